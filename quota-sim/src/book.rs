//! Counts the calls: who came, who was told to stay away, and who was under way at once.
//! What a call is answered is decided in `running`; the sums for others to read are in `ledger`.

use jiff::Timestamp;

use crate::clock::SimTime;
use crate::grants::Exchange;
use crate::ledger::{AccountLedger, Ledger};

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// That of the account of this number.
    Account(usize),
    /// A request with an unknown token.
    Unauthenticated,
}

/// A call that arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) who: Caller,
    pub(crate) now: SimTime,
    /// The same moment on a wall clock.
    pub(crate) wall: Timestamp,
    pub(crate) user_agent: &'a str,
}

/// The pages of all accounts, and of strangers.
#[derive(Debug)]
pub(crate) struct Recorder {
    accounts: Vec<AccountStats>,
    strangers: AccountStats,
    under_way: u64,
    max_concurrent: u64,
    exchanges_under_way: u64,
    max_concurrent_exchanges: u64,
    given_up: u64,
    given_up_with_room: u64,
}

#[derive(Debug, Default)]
struct AccountStats {
    name: String,
    sums: AccountLedger,
    /// Until when the client was told to stay away, by any answer so far.
    away_until: Option<SimTime>,
    /// The same for ordinary traffic.
    traffic_away_until: Option<SimTime>,
}

/// Ordinary traffic that is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) who: Caller,
    pub(crate) arrived: SimTime,
    pub(crate) status: u16,
    /// Until when its client is told to stay away.
    pub(crate) away_until: Option<SimTime>,
    /// Whether its client knew that it would be turned away.
    pub(crate) is_in_vain: bool,
}

impl Message {
    /// A message that nothing else is to be said of.
    pub(crate) fn new(who: Caller, arrived: SimTime, status: u16) -> Self {
        Self { who, arrived, status, away_until: None, is_in_vain: false }
    }
}

const MAX_ARRIVALS: usize = 1000;
const MAX_AGENTS: usize = 32;
const MAX_AGENT: usize = 200;

impl Recorder {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let page = |name: &str| AccountStats { name: name.to_owned(), ..AccountStats::default() };
        Self {
            accounts: names.into_iter().map(page).collect(),
            strangers: AccountStats::default(),
            under_way: 0,
            max_concurrent: 0,
            exchanges_under_way: 0,
            max_concurrent_exchanges: 0,
            given_up: 0,
            given_up_with_room: 0,
        }
    }

    /// A call has arrived. It ends by [`answered`](Self::answered) or [`abandoned`](Self::abandoned).
    pub(crate) fn arrived(&mut self, arrival: Arrival<'_>) {
        self.under_way += 1;
        self.max_concurrent = self.max_concurrent.max(self.under_way);
        let page = self.page(arrival.who);
        if page.away_until.is_some_and(|until| arrival.now < until) {
            page.sums.calls_during_hold += 1;
        }
        let sums = &mut page.sums;
        sums.calls += 1;
        sums.under_way += 1;
        sums.max_concurrent = sums.max_concurrent.max(sums.under_way);
        if sums.arrivals.len() == MAX_ARRIVALS {
            sums.arrivals.pop_front();
        }
        sums.arrivals.push_back(arrival.wall);
        if !arrival.user_agent.is_empty() && sums.user_agents.len() < MAX_AGENTS {
            sums.user_agents.insert(arrival.user_agent.chars().take(MAX_AGENT).collect());
        }
    }

    /// A call is answered, and its client perhaps told to stay away until some moment.
    pub(crate) fn answered(&mut self, who: Caller, status: u16, away_until: Option<SimTime>) {
        let page = self.left(who);
        *page.sums.answers.entry(status).or_default() += 1;
        page.away_until = page.away_until.max(away_until);
    }

    /// A call ends without an answer.
    pub(crate) fn abandoned(&mut self, who: Caller) {
        self.left(who).sums.abandoned += 1;
    }

    /// Ordinary traffic was answered.
    pub(crate) fn traffic(&mut self, message: Message) {
        let page = self.page(message.who);
        *page.sums.traffic.entry(message.status).or_default() += 1;
        page.sums.traffic_during_hold +=
            u64::from(page.traffic_away_until.is_some_and(|until| message.arrived < until));
        page.sums.traffic_in_vain += u64::from(message.is_in_vain);
        page.traffic_away_until = page.traffic_away_until.max(message.away_until);
    }

    /// A client has sent a message nowhere, although an account had room for it or because none had.
    pub(crate) fn given_up(&mut self, had_room: bool) {
        self.given_up += 1;
        self.given_up_with_room += u64::from(had_room);
    }

    /// An exchange of a refresh token has arrived.
    pub(crate) fn exchange_begun(&mut self) {
        self.exchanges_under_way += 1;
        self.max_concurrent_exchanges = self.max_concurrent_exchanges.max(self.exchanges_under_way);
    }

    /// An exchange was answered, or its client has left.
    pub(crate) fn exchange_ended(&mut self) {
        self.exchanges_under_way -= 1;
    }

    /// What came of an exchange.
    pub(crate) fn exchanged(&mut self, account: usize, exchange: &Exchange) {
        let sums = &mut self.accounts[account].sums;
        let count = match exchange {
            Exchange::Given(_) => &mut sums.exchanges,
            Exchange::GivenAgain(_) => &mut sums.exchanges_again,
            Exchange::Reused => &mut sums.reuses,
            Exchange::Revoked => &mut sums.exchanges_refused,
        };
        *count += 1;
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger {
            max_concurrent: self.max_concurrent,
            max_concurrent_exchanges: self.max_concurrent_exchanges,
            accounts: self.accounts.iter().map(|page| (page.name.clone(), page.sums.clone())).collect(),
            strangers: self.strangers.sums.clone(),
            given_up: self.given_up,
            given_up_with_room: self.given_up_with_room,
        }
    }

    fn left(&mut self, who: Caller) -> &mut AccountStats {
        self.under_way -= 1;
        let page = self.page(who);
        page.sums.under_way -= 1;
        page
    }

    fn page(&mut self, who: Caller) -> &mut AccountStats {
        match who {
            Caller::Account(at) => &mut self.accounts[at],
            Caller::Unauthenticated => &mut self.strangers,
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

    fn book() -> Recorder {
        Recorder::new(["main", "spare"])
    }

    fn arrive(book: &mut Recorder, who: Caller, now: SimTime) {
        book.arrived(Arrival { who, now, wall: Timestamp::UNIX_EPOCH, user_agent: "test/1" });
    }

    fn main(book: &Recorder) -> AccountLedger {
        book.ledger().account("main").unwrap().clone()
    }

    fn message(second: u64, status: u16) -> Message {
        Message::new(SPARE, at(second), status)
    }

    #[test]
    fn a_message_before_the_told_moment_is_one_during_a_hold_and_calls_are_not() {
        let mut book = book();
        book.traffic(Message { away_until: Some(at(60)), ..message(0, 429) });

        book.traffic(message(59, 200));
        book.traffic(message(60, 200));
        arrive(&mut book, SPARE, at(1));

        let ledger = book.ledger();
        let spare = ledger.account("spare").unwrap();
        assert_eq!((spare.traffic_during_hold, spare.calls_during_hold), (1, 0));
    }

    #[test]
    fn calls_one_after_the_other_are_never_concurrent() {
        let mut book = book();

        for _ in 0..3 {
            arrive(&mut book, MAIN, at(0));
            book.answered(MAIN, 200, None);
        }

        assert_eq!((main(&book).calls, main(&book).max_concurrent, main(&book).answered(200)), (3, 1, 3));
    }

    #[test]
    fn calls_of_two_accounts_at_once_are_concurrent_for_the_provider_only() {
        let mut book = book();

        arrive(&mut book, MAIN, at(0));
        arrive(&mut book, SPARE, at(0));

        assert_eq!((book.ledger().max_concurrent, main(&book).max_concurrent), (2, 1));
    }

    #[test]
    fn an_abandoned_call_is_under_way_no_more() {
        let mut book = book();
        arrive(&mut book, MAIN, at(0));

        book.abandoned(MAIN);

        assert_eq!((main(&book).under_way, main(&book).abandoned), (0, 1));
    }

    #[test]
    fn a_call_before_the_told_moment_is_a_call_during_a_hold() {
        let mut book = book();
        arrive(&mut book, MAIN, at(0));
        book.answered(MAIN, 429, Some(at(60)));

        arrive(&mut book, MAIN, at(59));
        arrive(&mut book, MAIN, at(60));

        assert_eq!(main(&book).calls_during_hold, 1);
    }

    #[test]
    fn neither_a_success_nor_a_shorter_hold_ends_a_hold() {
        let mut book = book();
        for away in [Some(at(60)), None, Some(at(10))] {
            arrive(&mut book, MAIN, at(0));
            book.answered(MAIN, 200, away);
        }
        let before = main(&book).calls_during_hold;

        arrive(&mut book, MAIN, at(59));

        assert_eq!(main(&book).calls_during_hold, before + 1);
    }

    #[test]
    fn a_hold_of_one_account_is_not_that_of_its_neighbour() {
        let mut book = book();
        arrive(&mut book, MAIN, at(0));
        book.answered(MAIN, 429, Some(at(60)));

        arrive(&mut book, SPARE, at(1));

        assert_eq!(book.ledger().calls_during_hold(), 0);
    }

    #[test]
    fn what_grows_with_every_client_is_bounded() {
        let mut book = book();

        for call in 0..2000u32 {
            let user_agent = &format!("{call}{}", "x".repeat(1000));
            let wall = Timestamp::from_second(call.into()).unwrap();
            book.arrived(Arrival { who: MAIN, now: at(0), wall, user_agent });
        }

        let main = main(&book);
        assert_eq!((main.arrivals.len(), main.arrivals[0].as_second()), (1000, 1000));
        assert_eq!(main.user_agents.len(), 32);
        assert!(main.user_agents.iter().all(|agent| agent.len() == 200));
    }

    #[test]
    fn a_ledger_is_written_as_json() {
        let mut book = book();
        arrive(&mut book, MAIN, at(0));
        book.answered(MAIN, 429, Some(at(60)));
        arrive(&mut book, MAIN, at(1));
        arrive(&mut book, Caller::Unauthenticated, at(1));
        book.answered(Caller::Unauthenticated, 401, None);
        let limit = Message { away_until: Some(at(5)), ..message(1, 429) };
        book.traffic(limit);
        book.traffic(Message { is_in_vain: true, ..message(4, 429) });
        book.given_up(false);
        book.given_up(true);

        insta::assert_json_snapshot!(book.ledger());
    }

    proptest! {
        #[test]
        fn every_call_is_answered_abandoned_or_under_way(steps in prop::collection::vec((0usize..3, 0usize..4), 0..60)) {
            let mut book = book();
            let mut open = vec![];

            for (who, step) in steps {
                let who = [MAIN, SPARE, Caller::Unauthenticated][who];
                if step == 0 {
                    arrive(&mut book, who, at(0));
                    open.push(who);
                } else if let Some(place) = open.iter().position(|one| *one == who) {
                    open.swap_remove(place);
                    match step {
                        1 => book.abandoned(who),
                        step => book.answered(who, if step == 2 { 200 } else { 429 }, None),
                    }
                }
                let ledger = book.ledger();
                prop_assert!(open.len() as u64 <= ledger.max_concurrent);
                for one in ledger.accounts.values().chain([&ledger.strangers]) {
                    prop_assert_eq!(one.calls, one.answers.values().sum::<u64>() + one.abandoned + one.under_way);
                }
            }
        }
    }
}
