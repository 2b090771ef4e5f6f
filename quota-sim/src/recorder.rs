//! Counts the calls: by caller, by status, during a hold, and how many are concurrent. `account_sim` decides the answers; a `Ledger`
//! publishes the counts.

use jiff::Timestamp;

use crate::clock::SimTime;
use crate::ledger::{AccountLedger, Ledger};
use crate::tokens::TokenResult;

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The account with this index.
    Account(usize),
    /// A request with an unknown token or none.
    Unauthenticated,
}

/// An arriving call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) caller: Caller,
    pub(crate) now: SimTime,
    /// The wall-clock time of `now`.
    pub(crate) wall: Timestamp,
    pub(crate) user_agent: &'a str,
}

/// The counts of all accounts, and of unauthenticated requests.
#[derive(Debug)]
pub(crate) struct Recorder {
    accounts: Vec<AccountStats>,
    unauthenticated: AccountStats,
    in_flight: u64,
    max_concurrent: u64,
    exchanges_in_flight: u64,
    max_concurrent_exchanges: u64,
    gave_up: u64,
    gave_up_with_capacity: u64,
}

#[derive(Debug, Default)]
struct AccountStats {
    name: String,
    ledger: AccountLedger,
    /// The end of the hold that the answers so far have imposed on the client.
    hold_until: Option<SimTime>,
    /// The same for messages.
    message_hold_until: Option<SimTime>,
}

/// An answered message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) caller: Caller,
    pub(crate) arrived: SimTime,
    pub(crate) status: u16,
    /// The end of the hold that the answer imposes on the client.
    pub(crate) hold_until: Option<SimTime>,
    /// Whether an earlier answer had reported the window as full to the client.
    pub(crate) is_futile: bool,
}

impl Message {
    /// Creates a message without a hold.
    pub(crate) fn new(caller: Caller, arrived: SimTime, status: u16) -> Self {
        Self { caller, arrived, status, hold_until: None, is_futile: false }
    }
}

const MAX_ARRIVALS: usize = 1000;
const MAX_AGENTS: usize = 32;
const MAX_AGENT: usize = 200;

impl Recorder {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let account = |name: &str| AccountStats { name: name.to_owned(), ..AccountStats::default() };
        Self {
            accounts: names.into_iter().map(account).collect(),
            unauthenticated: AccountStats::default(),
            in_flight: 0,
            max_concurrent: 0,
            exchanges_in_flight: 0,
            max_concurrent_exchanges: 0,
            gave_up: 0,
            gave_up_with_capacity: 0,
        }
    }

    /// Counts the arrival of a call. [`answered`](Self::answered) or [`abandoned`](Self::abandoned) ends it.
    pub(crate) fn arrived(&mut self, arrival: Arrival<'_>) {
        self.in_flight += 1;
        self.max_concurrent = self.max_concurrent.max(self.in_flight);
        let account = self.account(arrival.caller);
        if account.hold_until.is_some_and(|until| arrival.now < until) {
            account.ledger.calls_during_hold += 1;
        }
        let ledger = &mut account.ledger;
        ledger.calls += 1;
        ledger.in_flight += 1;
        ledger.max_concurrent = ledger.max_concurrent.max(ledger.in_flight);
        if ledger.arrivals.len() == MAX_ARRIVALS {
            ledger.arrivals.pop_front();
        }
        ledger.arrivals.push_back(arrival.wall);
        if !arrival.user_agent.is_empty() && ledger.user_agents.len() < MAX_AGENTS {
            ledger.user_agents.insert(arrival.user_agent.chars().take(MAX_AGENT).collect());
        }
    }

    /// Counts an answer, which may impose a hold on the client.
    pub(crate) fn answered(&mut self, caller: Caller, status: u16, hold_until: Option<SimTime>) {
        let account = self.end_call(caller);
        *account.ledger.answers.entry(status).or_default() += 1;
        account.hold_until = account.hold_until.max(hold_until);
    }

    /// Counts a call that ended without an answer.
    pub(crate) fn abandoned(&mut self, caller: Caller) {
        self.end_call(caller).ledger.abandoned += 1;
    }

    /// Counts an answered message.
    pub(crate) fn message_answered(&mut self, message: Message) {
        let account = self.account(message.caller);
        *account.ledger.messages.entry(message.status).or_default() += 1;
        account.ledger.messages_during_hold +=
            u64::from(account.message_hold_until.is_some_and(|until| message.arrived < until));
        account.ledger.futile_messages += u64::from(message.is_futile);
        account.message_hold_until = account.message_hold_until.max(message.hold_until);
    }

    /// Counts a message that a client did not send, and whether an account had capacity for it.
    pub(crate) fn gave_up(&mut self, had_capacity: bool) {
        self.gave_up += 1;
        self.gave_up_with_capacity += u64::from(had_capacity);
    }

    /// Counts the arrival of a token exchange.
    pub(crate) fn exchange_started(&mut self) {
        self.exchanges_in_flight += 1;
        self.max_concurrent_exchanges = self.max_concurrent_exchanges.max(self.exchanges_in_flight);
    }

    /// Counts the end of a token exchange, with or without an answer.
    pub(crate) fn exchange_ended(&mut self) {
        self.exchanges_in_flight -= 1;
    }

    /// Counts the result of a token exchange.
    pub(crate) fn exchanged(&mut self, account: usize, exchange: &TokenResult) {
        let ledger = &mut self.accounts[account].ledger;
        let count = match exchange {
            TokenResult::Issued(_) => &mut ledger.exchanges,
            TokenResult::Replayed(_) => &mut ledger.exchanges_replayed,
            TokenResult::ReuseDetected => &mut ledger.reuses,
            TokenResult::Revoked => &mut ledger.exchanges_rejected,
        };
        *count += 1;
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger {
            max_concurrent: self.max_concurrent,
            max_concurrent_exchanges: self.max_concurrent_exchanges,
            accounts: self
                .accounts
                .iter()
                .map(|account| (account.name.clone(), account.ledger.clone()))
                .collect(),
            unauthenticated: self.unauthenticated.ledger.clone(),
            gave_up: self.gave_up,
            gave_up_with_capacity: self.gave_up_with_capacity,
        }
    }

    fn end_call(&mut self, caller: Caller) -> &mut AccountStats {
        self.in_flight -= 1;
        let account = self.account(caller);
        account.ledger.in_flight -= 1;
        account
    }

    fn account(&mut self, caller: Caller) -> &mut AccountStats {
        match caller {
            Caller::Account(at) => &mut self.accounts[at],
            Caller::Unauthenticated => &mut self.unauthenticated,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MAIN: Caller = Caller::Account(0);
    const SPARE: Caller = Caller::Account(1);

    fn at(seconds: u64) -> SimTime {
        SimTime::START + Duration::from_secs(seconds)
    }

    fn recorder() -> Recorder {
        Recorder::new(["main", "spare"])
    }

    fn arrive(recorder: &mut Recorder, caller: Caller, now: SimTime) {
        recorder.arrived(Arrival { caller, now, wall: Timestamp::UNIX_EPOCH, user_agent: "test/1" });
    }

    fn main(recorder: &Recorder) -> AccountLedger {
        recorder.ledger().account("main").unwrap().clone()
    }

    fn message(second: u64, status: u16) -> Message {
        Message::new(SPARE, at(second), status)
    }

    #[test]
    fn a_message_hold_counts_messages_but_no_calls() {
        let mut recorder = recorder();
        recorder.message_answered(Message { hold_until: Some(at(60)), ..message(0, 429) });

        recorder.message_answered(message(59, 200));
        recorder.message_answered(message(60, 200));
        arrive(&mut recorder, SPARE, at(1));

        let ledger = recorder.ledger();
        let spare = ledger.account("spare").unwrap();
        assert_eq!((spare.messages_during_hold, spare.calls_during_hold), (1, 0));
    }

    #[test]
    fn sequential_calls_are_never_concurrent() {
        let mut recorder = recorder();

        for _ in 0..3 {
            arrive(&mut recorder, MAIN, at(0));
            recorder.answered(MAIN, 200, None);
        }

        assert_eq!(
            (main(&recorder).calls, main(&recorder).max_concurrent, main(&recorder).answered(200)),
            (3, 1, 3)
        );
    }

    #[test]
    fn concurrent_calls_of_two_accounts_count_only_for_the_provider() {
        let mut recorder = recorder();

        arrive(&mut recorder, MAIN, at(0));
        arrive(&mut recorder, SPARE, at(0));

        assert_eq!((recorder.ledger().max_concurrent, main(&recorder).max_concurrent), (2, 1));
    }

    #[test]
    fn an_abandoned_call_is_no_longer_in_flight() {
        let mut recorder = recorder();
        arrive(&mut recorder, MAIN, at(0));

        recorder.abandoned(MAIN);

        assert_eq!((main(&recorder).in_flight, main(&recorder).abandoned), (0, 1));
    }

    #[test]
    fn a_call_before_the_end_of_a_hold_is_counted() {
        let mut recorder = recorder();
        arrive(&mut recorder, MAIN, at(0));
        recorder.answered(MAIN, 429, Some(at(60)));

        arrive(&mut recorder, MAIN, at(59));
        arrive(&mut recorder, MAIN, at(60));

        assert_eq!(main(&recorder).calls_during_hold, 1);
    }

    #[test]
    fn neither_a_success_nor_a_shorter_hold_ends_a_hold() {
        let mut recorder = recorder();
        for hold in [Some(at(60)), None, Some(at(10))] {
            arrive(&mut recorder, MAIN, at(0));
            recorder.answered(MAIN, 200, hold);
        }
        let before = main(&recorder).calls_during_hold;

        arrive(&mut recorder, MAIN, at(59));

        assert_eq!(main(&recorder).calls_during_hold, before + 1);
    }

    #[test]
    fn a_hold_of_one_account_does_not_apply_to_another() {
        let mut recorder = recorder();
        arrive(&mut recorder, MAIN, at(0));
        recorder.answered(MAIN, 429, Some(at(60)));

        arrive(&mut recorder, SPARE, at(1));

        assert_eq!(recorder.ledger().calls_during_hold(), 0);
    }

    #[test]
    fn lists_that_grow_with_clients_are_bounded() {
        let mut recorder = recorder();

        for call in 0..2000u32 {
            let user_agent = &format!("{call}{}", "x".repeat(1000));
            let wall = Timestamp::from_second(call.into()).unwrap();
            recorder.arrived(Arrival { caller: MAIN, now: at(0), wall, user_agent });
        }

        let main = main(&recorder);
        assert_eq!((main.arrivals.len(), main.arrivals[0].as_second()), (1000, 1000));
        assert_eq!(main.user_agents.len(), 32);
        assert!(main.user_agents.iter().all(|agent| agent.len() == 200));
    }

    #[test]
    fn a_ledger_is_written_as_json() {
        let mut recorder = recorder();
        arrive(&mut recorder, MAIN, at(0));
        recorder.answered(MAIN, 429, Some(at(60)));
        arrive(&mut recorder, MAIN, at(1));
        arrive(&mut recorder, Caller::Unauthenticated, at(1));
        recorder.answered(Caller::Unauthenticated, 401, None);
        let limit = Message { hold_until: Some(at(5)), ..message(1, 429) };
        recorder.message_answered(limit);
        recorder.message_answered(Message { is_futile: true, ..message(4, 429) });
        recorder.gave_up(false);
        recorder.gave_up(true);

        insta::assert_json_snapshot!(recorder.ledger());
    }

    proptest! {
        #[test]
        fn every_call_is_answered_abandoned_or_in_flight(steps in prop::collection::vec((0usize..3, 0usize..4), 0..60)) {
            let mut recorder = recorder();
            let mut open = vec![];

            for (caller, step) in steps {
                let caller = [MAIN, SPARE, Caller::Unauthenticated][caller];
                if step == 0 {
                    arrive(&mut recorder, caller, at(0));
                    open.push(caller);
                } else if let Some(index) = open.iter().position(|one| *one == caller) {
                    open.swap_remove(index);
                    match step {
                        1 => recorder.abandoned(caller),
                        step => recorder.answered(caller, if step == 2 { 200 } else { 429 }, None),
                    }
                }
                let ledger = recorder.ledger();
                prop_assert!(open.len() as u64 <= ledger.max_concurrent);
                for one in ledger.accounts.values().chain([&ledger.unauthenticated]) {
                    prop_assert_eq!(one.calls, one.answers.values().sum::<u64>() + one.abandoned + one.in_flight);
                }
            }
        }
    }
}
