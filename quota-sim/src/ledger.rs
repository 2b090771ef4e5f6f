//! What a simulator saw, as plain data.
//! How it is counted is in `book`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a simulator has seen so far; it holds names of accounts, never their tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ledger {
    /// The most calls to the usage endpoint that were under way at once, over all accounts.
    pub max_concurrent: u64,
    /// The most exchanges of refresh tokens that were under way at once, over all accounts.
    pub max_concurrent_exchanges: u64,
    /// What each account has seen.
    pub accounts: BTreeMap<String, AccountLedger>,
    /// What came with a token that opens no account, or with none.
    pub strangers: AccountLedger,
    /// The messages that a client said to have sent nowhere ([`Simulator::given_up`](crate::Simulator::given_up)).
    pub given_up: u64,
    /// Those of them that an account would have answered.
    pub given_up_with_room: u64,
}

/// What one account has seen. Calls are those to the usage endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountLedger {
    /// All calls: the sum of those answered, abandoned and under way.
    pub calls: u64,
    /// The calls that were answered, by status.
    pub answers: BTreeMap<u16, u64>,
    /// The calls whose client left, or whose server was stopped, before there was an answer.
    pub abandoned: u64,
    /// The calls that wait for their answer now.
    pub under_way: u64,
    /// The most that were under way at once: from their arrival to their answer.
    pub max_concurrent: u64,
    /// The calls that came while the client had been told to stay away.
    ///
    /// A 429 with a deadline holds until then; one with `Retry-After: 0`, or without the header, for 60 simulated seconds
    /// from its answer. Nothing shortens a hold: no success, no change of the script.
    pub calls_during_hold: u64,
    /// When the calls arrived, oldest first; the newest 1,000.
    pub arrivals: VecDeque<Timestamp>,
    /// The clients that called, by their own word; the first 32, cut to 200 characters.
    pub user_agents: BTreeSet<String>,
    /// Answers to ordinary traffic, by status. It is not counted above.
    pub traffic: BTreeMap<u16, u64>,
    /// The traffic that came while a 429 about its pace had said when to come back.
    pub traffic_during_hold: u64,
    /// The traffic that was turned away for a full window of which the client had been told that it is full.
    ///
    /// Usage tells of all windows; a message that was turned away of those it counts in; one that was done of those that count
    /// every model, because headers do not say which model the window of a model is of.
    pub traffic_in_vain: u64,
    /// The refresh tokens that were exchanged for new ones.
    pub exchanges: u64,
    /// The spent refresh tokens that came again within their grace, and got the same tokens again.
    pub exchanges_again: u64,
    /// The spent refresh tokens that came again and ended their login: each is a login lost.
    pub reuses: u64,
    /// The refresh tokens that came after their login had ended.
    pub exchanges_refused: u64,
}

impl Ledger {
    /// What the account of this name has seen; `None` if the script has none.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&AccountLedger> {
        self.accounts.get(name)
    }

    /// The calls to the usage endpoint, over all accounts and strangers.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.all_callers().map(|one| one.calls).sum()
    }

    /// The calls that came while their account's client had been told to stay away.
    #[must_use]
    pub fn calls_during_hold(&self) -> u64 {
        self.all_callers().map(|one| one.calls_during_hold).sum()
    }

    /// When calls arrived, over all accounts and strangers, oldest first.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Timestamp> {
        let mut all: Vec<_> = self.all_callers().flat_map(|one| one.arrivals.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    fn all_callers(&self) -> impl Iterator<Item = &AccountLedger> {
        self.accounts.values().chain([&self.strangers])
    }
}

impl AccountLedger {
    /// How many calls were answered with this status.
    #[must_use]
    pub fn answered(&self, status: u16) -> u64 {
        self.answers.get(&status).copied().unwrap_or(0)
    }
}
