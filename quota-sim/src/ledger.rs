//! The counts of a simulator, as plain data. `recorder` does the counting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The calls that a simulator has received so far. It contains the names of accounts, and never a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ledger {
    /// The highest number of concurrent calls to the usage endpoint, across all accounts.
    pub max_concurrent: u64,
    /// The highest number of concurrent token exchanges, across all accounts.
    pub max_concurrent_exchanges: u64,
    /// The counts of each account.
    pub accounts: BTreeMap<String, AccountLedger>,
    /// The counts of requests with an unknown token or none.
    pub unauthenticated: AccountLedger,
    /// The messages that a client abandoned without sending them ([`Simulator::gave_up`](crate::Simulator::gave_up)).
    pub gave_up: u64,
    /// The abandoned messages for which an account had capacity.
    pub gave_up_with_capacity: u64,
}

/// The counts of one account. A call is a request to the usage endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountLedger {
    /// All calls: those answered, abandoned and in flight.
    pub calls: u64,
    /// The answered calls by status.
    pub answers: BTreeMap<u16, u64>,
    /// The calls whose client disconnected, or whose server stopped, before the answer.
    pub abandoned: u64,
    /// The calls that have no answer yet.
    pub in_flight: u64,
    /// The highest number of concurrent calls, from arrival to answer.
    pub max_concurrent: u64,
    /// The calls that arrived during a hold.
    ///
    /// A 429 with a deadline imposes a hold until the deadline. A 429 with `Retry-After: 0`, or without the header, imposes a
    /// hold of 60 simulated seconds from its response. Neither a success nor a change to the script shortens a hold.
    pub calls_during_hold: u64,
    /// The arrival times of the newest 1,000 calls, oldest first.
    pub arrivals: VecDeque<Timestamp>,
    /// The user agents of the callers: the first 32, truncated to 200 characters.
    pub user_agents: BTreeSet<String>,
    /// The answers to messages, by status. Messages are not calls.
    pub messages: BTreeMap<u16, u64>,
    /// The messages that arrived before the deadline of a 429 to messages.
    pub messages_during_hold: u64,
    /// The messages that were rejected because of a full window after an earlier answer had reported it as full.
    ///
    /// The usage endpoint reports all windows. A rejected message reports the windows in which it counts. A successful message
    /// reports only the windows that count all models, because headers do not name the model of a window.
    pub futile_messages: u64,
    /// The refresh tokens that were exchanged for new tokens.
    pub exchanges: u64,
    /// The used refresh tokens that arrived again within the reuse grace, and received the same tokens again.
    pub exchanges_replayed: u64,
    /// The used refresh tokens that arrived again and so revoked their login. Each one is a lost login.
    pub reuses: u64,
    /// The refresh tokens that arrived after their login had been revoked.
    pub exchanges_rejected: u64,
}

impl Ledger {
    /// The counts of the account with this name; `None` if the script has no such account.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&AccountLedger> {
        self.accounts.get(name)
    }

    /// All calls to the usage endpoint, including unauthenticated ones.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.all_callers().map(|one| one.calls).sum()
    }

    /// All calls that arrived during a hold of their account.
    #[must_use]
    pub fn calls_during_hold(&self) -> u64 {
        self.all_callers().map(|one| one.calls_during_hold).sum()
    }

    /// The arrival times of all calls, including unauthenticated ones, oldest first.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Timestamp> {
        let mut all: Vec<_> = self.all_callers().flat_map(|one| one.arrivals.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    fn all_callers(&self) -> impl Iterator<Item = &AccountLedger> {
        self.accounts.values().chain([&self.unauthenticated])
    }
}

impl AccountLedger {
    /// The number of calls that were answered with this status.
    #[must_use]
    pub fn answered(&self, status: u16) -> u64 {
        self.answers.get(&status).copied().unwrap_or(0)
    }
}
