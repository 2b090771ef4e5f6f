//! The provider as its routes see it: all accounts and the book, behind one lock and one clock.
//! It waits where a script says so; what is answered and counted is decided in `running` and `book`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::book::{Arrival, Caller, Message, Recorder};
use crate::budget::Throttle;
use crate::change::{Action, Change, ChangeError};
use crate::clock::{SimClock, SimTime};
use crate::grants::Exchange;
use crate::ledger::Ledger;
use crate::running::{AccountSim, Decision, NoReplyYet, Outcome};
use crate::script::{Account, Script};
use crate::wire::Ask;

/// Everything that is shared by the connections of a simulator.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) clock: SimClock,
    state: Mutex<State>,
    /// Told whenever the state has changed: hung calls and waiting tests look again.
    changed: watch::Sender<()>,
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    accounts: Vec<AccountSim>,
    book: Recorder,
}

/// How long a client has to stay away after a 429 that does not say how long.
const UNTOLD_HOLD: Duration = Duration::from_secs(60);

impl Provider {
    pub(crate) fn new(script: Script, anchor: Option<Timestamp>) -> Arc<Self> {
        let clock = SimClock::start(anchor, script.speed);
        let book = Recorder::new(script.accounts().iter().map(Account::name));
        let accounts = script.accounts.into_iter().map(AccountSim::new).collect();
        Arc::new(Self {
            clock,
            state: Mutex::new(State { accounts, book }),
            changed: watch::Sender::new(()),
            requests: AtomicU64::new(0),
        })
    }

    /// The account that a token opens.
    pub(crate) fn opened_by(&self, token: &str) -> Option<usize> {
        let now = self.clock.now();
        self.look(|state| state.accounts.iter().position(|account| account.grants.is_opened_by(token, now)))
    }

    /// Reads something of one account, at this moment of the script.
    pub(crate) fn look_at<T>(&self, account: usize, work: impl FnOnce(&AccountSim, SimTime) -> T) -> T {
        let now = self.clock.now();
        self.look(|state| work(&state.accounts[account], now))
    }

    /// The names of the accounts, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.look(|state| state.accounts.iter().map(|one| one.account().name().to_owned()).collect())
    }

    /// What ordinary traffic gets, and what it uses.
    pub(crate) fn spend(&self, account: usize, ask: &Ask) -> Outcome {
        let now = self.clock.now();
        self.alter(|state| state.accounts[account].spend(now, ask.cost, &ask.model))
    }

    /// Counts a call, from now until it is answered or dropped.
    pub(crate) fn begin(self: &Arc<Self>, who: Caller, user_agent: &str) -> Call {
        let now = self.clock.now();
        let wall = self.clock.wall(now);
        self.alter(|state| state.book.arrived(Arrival { who, now, wall, user_agent }));
        Call { provider: Arc::clone(self), who, ended: false }
    }

    /// What a call to the usage endpoint gets, as soon as it gets anything.
    pub(crate) async fn decide(&self, account: usize) -> Decision {
        // Subscribed before the first look, so that no change between a look and the wait is missed.
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            match self.look(|state| state.accounts[account].ask(self.clock.now())) {
                Ok(decision) => return decision,
                Err(NoReplyYet { until: Some(until) }) => tokio::select! {
                    () = self.clock.sleep_until(until) => {}
                    _ = changed.changed() => {}
                },
                Err(NoReplyYet { until: None }) => {
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// Counts an answer to ordinary traffic.
    pub(crate) fn traffic(&self, message: Message) {
        self.alter(|state| state.book.traffic(message));
    }

    /// Counts a message to that model that a client has sent nowhere.
    pub(crate) fn given_up(&self, model: &str) {
        let now = self.clock.now();
        self.alter(|state| {
            let had_room = state.accounts.iter().any(|account| account.has_room(now, model));
            state.book.given_up(had_room);
        });
    }

    /// Changes an account while the script plays.
    pub(crate) fn change(&self, name: &str, change: Change) -> Result<(), ChangeError> {
        let now = self.clock.now();
        self.alter(|state| {
            let account = state.accounts.iter().position(|one| one.account().name() == name);
            let account = account.ok_or(ChangeError::NoAccount)?;
            if let Action::Token(token) | Action::Login { token, .. } = &change.0 {
                let mut others = state.accounts.iter().enumerate().filter(|(at, _)| *at != account);
                if others.any(|(_, other)| other.grants.is_opened_by(token, now)) {
                    return Err(ChangeError::TokenTaken);
                }
            }
            state.accounts[account].change(now, change.0)
        })
    }

    /// The account that a refresh token is, or was, of.
    pub(crate) fn refreshed_by(&self, token: &str) -> Option<usize> {
        self.look(|state| state.accounts.iter().position(|account| account.grants.has_given(token)))
    }

    /// Exchanges a refresh token that is, or was, of the account.
    pub(crate) fn exchange(&self, account: usize, token: &str) -> Exchange {
        let now = self.clock.now();
        self.alter(|state| {
            let exchange = state.accounts[account].grants.exchange(token, now);
            state.book.exchanged(account, &exchange);
            exchange
        })
    }

    /// Counts an exchange as under way, until what is given back is dropped.
    pub(crate) fn begin_exchange(self: &Arc<Self>) -> UnderWay {
        self.alter(|state| state.book.exchange_begun());
        UnderWay(Arc::clone(self))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.look(|state| state.book.ledger())
    }

    /// Tells of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The next request's id.
    pub(crate) fn request_id(&self) -> String {
        format!("req_sim_{:06}", self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn look<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing under this lock panics halfway through a change, so what a poisoned one guards is whole.
        work(&mut self.state.lock())
    }

    fn alter<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = self.look(work);
        self.changed.send_replace(());
        result
    }
}

/// An exchange of a refresh token that waits for its answer.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Provider>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.alter(|state| state.book.exchange_ended());
    }
}

/// A call to the usage endpoint that waits for its answer; dropped without one, its client has left.
#[derive(Debug)]
pub(crate) struct Call {
    provider: Arc<Provider>,
    who: Caller,
    ended: bool,
}

impl Call {
    /// Ends the call before its answer leaves, so that a client that received it finds it counted.
    pub(crate) fn answered(mut self, status: u16, throttle: Option<Throttle>) {
        let now = self.provider.clock.now();
        let away_until = throttle.map(|throttle| match throttle {
            Throttle::Zero | Throttle::Silent => now + UNTOLD_HOLD,
            Throttle::Until(until) => until,
        });
        self.ended = true;
        self.provider.alter(|state| state.book.answered(self.who, status, away_until));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.provider.alter(|state| state.book.abandoned(self.who));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Answer, Phase};

    const SECOND: Duration = Duration::from_secs(1);

    fn provider(account: Account) -> Arc<Provider> {
        Provider::new(Script::new([account]), Some(Timestamp::UNIX_EPOCH))
    }

    fn throttled_once(provider: &Arc<Provider>, throttle: Throttle) {
        provider.begin(Caller::Account(0), "").answered(429, Some(throttle));
    }

    fn calls_during_hold(provider: &Arc<Provider>) -> u64 {
        drop(provider.begin(Caller::Account(0), ""));
        provider.ledger().calls_during_hold()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_call_is_answered_when_its_phase_is_over() {
        let phase = Phase::new(Answer::Hang).until(SECOND * 30);
        let provider = provider(Account::new("main").answers([phase]));

        let decision = provider.decide(0).await;

        assert!(matches!(decision, Decision::Usage(_)));
        assert_eq!(provider.clock.now(), SimTime::START + SECOND * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_call_is_answered_when_the_script_is_changed() {
        let provider = provider(Account::new("main"));
        provider.change("main", Change::answer(Answer::Hang)).unwrap();

        let change = async { provider.change("main", Change::answer(Answer::Empty)).unwrap() };
        let (decision, ()) = tokio::join!(provider.decide(0), change);

        assert!(matches!(decision, Decision::Fault(_)), "{decision:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_a_client_has_to_stay_away_for_a_minute() {
        for throttle in [Throttle::Zero, Throttle::Silent] {
            let provider = provider(Account::new("main"));
            throttled_once(&provider, throttle);

            provider.clock.sleep(SECOND * 59).await;
            assert_eq!(calls_during_hold(&provider), 1);

            provider.clock.sleep(SECOND).await;
            assert_eq!(calls_during_hold(&provider), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_script_shortens_that_minute() {
        let provider = Provider::new(Script::new([Account::new("main")]).speed(60.0), None);
        throttled_once(&provider, Throttle::Zero);

        provider.clock.sleep(SECOND).await;

        assert_eq!(calls_during_hold(&provider), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_deadline_a_client_has_to_stay_away_until_then() {
        let provider = provider(Account::new("main"));
        throttled_once(&provider, Throttle::Until(SimTime::START + SECOND * 5));

        provider.clock.sleep(SECOND * 4).await;
        assert_eq!(calls_during_hold(&provider), 1);

        provider.clock.sleep(SECOND).await;
        assert_eq!(calls_during_hold(&provider), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_minute_counts_from_the_answer() {
        let provider = provider(Account::new("main"));
        let call = provider.begin(Caller::Account(0), "");
        provider.clock.sleep(SECOND * 10).await;
        call.answered(429, Some(Throttle::Zero));

        provider.clock.sleep(SECOND * 59).await;

        assert_eq!(calls_during_hold(&provider), 1);
    }

    #[tokio::test]
    async fn the_token_of_another_account_is_refused() {
        let provider = Provider::new(Script::default(), None);

        let refused = provider.change("main", Change::token("sim-token-fallback-1"));

        assert_eq!(refused, Err(ChangeError::TokenTaken));
        assert_eq!(provider.change("main", Change::token("sim-token-main")), Ok(()));
    }

    #[tokio::test]
    async fn an_account_that_is_not_there_cannot_be_changed() {
        let refused = Provider::new(Script::default(), None).change("unknown", Change::follow_script());

        assert_eq!(refused, Err(ChangeError::NoAccount));
    }
}
