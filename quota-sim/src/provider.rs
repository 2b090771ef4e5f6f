//! The state that all connections share: the accounts and the recorder, behind one lock, and the clock. This module delays
//! answers where the script requires it. `account_sim` decides the answers, and `recorder` counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::account_sim::{AccountSim, Decision, MessageResult, NoReplyYet};
use crate::authorization::{Codes, InvalidCode};
use crate::budget::Throttle;
use crate::change::{Action, Change, ChangeError};
use crate::clock::{SimClock, SimTime};
use crate::ledger::Ledger;
use crate::recorder::{Arrival, Caller, Message, Recorder};
use crate::script::{Account, Script};
use crate::tokens::{IssuedTokens, TokenResult};
use crate::wire::MessageRequest;

/// The state of a simulator.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) clock: SimClock,
    state: Mutex<State>,
    /// Notifies hung calls and waiting tests of every change.
    changed: watch::Sender<()>,
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    accounts: Vec<AccountSim>,
    codes: Codes,
    recorder: Recorder,
}

/// The hold after a 429 without a deadline.
const DEFAULT_HOLD: Duration = Duration::from_secs(60);

impl Provider {
    pub(crate) fn new(script: Script, anchor: Option<Timestamp>) -> Arc<Self> {
        let clock = SimClock::start(anchor, script.speed);
        let recorder = Recorder::new(script.accounts().iter().map(Account::name));
        let accounts = script.accounts.into_iter().map(AccountSim::new).collect();
        Arc::new(Self {
            clock,
            state: Mutex::new(State { accounts, codes: Codes::default(), recorder }),
            changed: watch::Sender::new(()),
            requests: AtomicU64::new(0),
        })
    }

    /// The account to which an access token belongs.
    pub(crate) fn account_of_token(&self, token: &str) -> Option<usize> {
        let now = self.clock.now();
        self.read(|state| state.accounts.iter().position(|account| account.tokens.accepts(token, now)))
    }

    /// Reads from one account at the current time.
    pub(crate) fn with_account<T>(&self, account: usize, work: impl FnOnce(&AccountSim, SimTime) -> T) -> T {
        let now = self.clock.now();
        self.read(|state| work(&state.accounts[account], now))
    }

    /// The names of the accounts, in script order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.read(|state| state.accounts.iter().map(|one| one.account().name().to_owned()).collect())
    }

    /// Answers a message, and adds its cost.
    pub(crate) fn message(&self, account: usize, request: &MessageRequest) -> MessageResult {
        let now = self.clock.now();
        self.update(|state| state.accounts[account].message(now, request.cost, &request.model))
    }

    /// Counts a call as in flight until it is answered or dropped.
    pub(crate) fn begin(self: &Arc<Self>, caller: Caller, user_agent: &str) -> Call {
        let now = self.clock.now();
        let wall = self.clock.wall(now);
        self.update(|state| state.recorder.arrived(Arrival { caller, now, wall, user_agent }));
        Call { provider: Arc::clone(self), caller, ended: false }
    }

    /// Decides the answer to a call to the usage endpoint. Waits while the call hangs.
    pub(crate) async fn decide(&self, account: usize) -> Decision {
        // Subscribe before the first read, so that no change between a read and the wait is missed.
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            match self.read(|state| state.accounts[account].usage_call(self.clock.now())) {
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

    /// Counts an answered message.
    pub(crate) fn message_answered(&self, message: Message) {
        self.update(|state| state.recorder.message_answered(message));
    }

    /// Counts a message to `model` that a client abandoned without sending it.
    pub(crate) fn gave_up(&self, model: &str) {
        let now = self.clock.now();
        self.update(|state| {
            let had_capacity = state.accounts.iter().any(|account| account.has_capacity(now, model));
            state.recorder.gave_up(had_capacity);
        });
    }

    /// Changes an account while the script runs.
    pub(crate) fn change(&self, name: &str, change: Change) -> Result<(), ChangeError> {
        let now = self.clock.now();
        self.update(|state| {
            let account = state.accounts.iter().position(|one| one.account().name() == name);
            let account = account.ok_or(ChangeError::NoAccount)?;
            if let Action::Token(token) | Action::Login { token, .. } = &change.0 {
                let mut others = state.accounts.iter().enumerate().filter(|(at, _)| *at != account);
                if others.any(|(_, other)| other.tokens.accepts(token, now)) {
                    return Err(ChangeError::TokenInUse);
                }
            }
            state.accounts[account].change(now, change.0)
        })
    }

    /// The account to which a refresh token belongs or belonged.
    pub(crate) fn account_of_refresh_token(&self, token: &str) -> Option<usize> {
        self.read(|state| state.accounts.iter().position(|account| account.tokens.has_issued(token)))
    }

    /// Exchanges a current or used refresh token of the account.
    pub(crate) fn exchange(&self, account: usize, token: &str) -> TokenResult {
        let now = self.clock.now();
        self.update(|state| {
            let exchange = state.accounts[account].tokens.exchange(token, now);
            state.recorder.exchanged(account, &exchange);
            exchange
        })
    }

    /// Issues an authorization code for the account with this name, or for the first one; `None` if there is no such account.
    pub(crate) fn authorize(
        &self,
        name: Option<&str>,
        redirect_uri: String,
        challenge: String,
    ) -> Option<String> {
        let now = self.clock.now();
        self.update(|state| {
            let mut accounts = state.accounts.iter();
            let account = accounts.position(|one| name.is_none_or(|name| one.account().name() == name))?;
            Some(state.codes.issue(account, redirect_uri, challenge, now))
        })
    }

    /// Exchanges an authorization code for the tokens of a new login.
    pub(crate) fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<(usize, IssuedTokens), InvalidCode> {
        let now = self.clock.now();
        self.update(|state| {
            let account = state.codes.redeem(code, redirect_uri, verifier, now)?;
            let issued = state.accounts[account].tokens.log_in(now);
            state.recorder.exchanged(account, &TokenResult::Issued(issued.clone()));
            Ok((account, issued))
        })
    }

    /// Counts a token exchange as in flight until the guard is dropped.
    pub(crate) fn begin_exchange(self: &Arc<Self>) -> ExchangeInFlight {
        self.update(|state| state.recorder.exchange_started());
        ExchangeInFlight(Arc::clone(self))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.read(|state| state.recorder.ledger())
    }

    /// Subscribes to all changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The id of the next request.
    pub(crate) fn request_id(&self) -> String {
        format!("req_sim_{:06}", self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn read<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock())
    }

    fn update<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = self.read(work);
        self.changed.send_replace(());
        result
    }
}

/// A token exchange that has no answer yet.
#[derive(Debug)]
pub(crate) struct ExchangeInFlight(Arc<Provider>);

impl Drop for ExchangeInFlight {
    fn drop(&mut self) {
        self.0.update(|state| state.recorder.exchange_ended());
    }
}

/// A call to the usage endpoint that has no answer yet. Dropping it counts the call as abandoned.
#[derive(Debug)]
pub(crate) struct Call {
    provider: Arc<Provider>,
    caller: Caller,
    ended: bool,
}

impl Call {
    /// Counts the answer. Call this before the answer is sent, so that the client finds its call counted.
    pub(crate) fn answered(mut self, status: u16, throttle: Option<Throttle>) {
        let now = self.provider.clock.now();
        let hold_until = throttle.map(|throttle| match throttle {
            Throttle::Zero | Throttle::NoHeader => now + DEFAULT_HOLD,
            Throttle::Until(until) => until,
        });
        self.ended = true;
        self.provider.update(|state| state.recorder.answered(self.caller, status, hold_until));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.provider.update(|state| state.recorder.abandoned(self.caller));
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
    async fn a_429_without_a_deadline_imposes_a_hold_of_a_minute() {
        for throttle in [Throttle::Zero, Throttle::NoHeader] {
            let provider = provider(Account::new("main"));
            throttled_once(&provider, throttle);

            provider.clock.sleep(SECOND * 59).await;
            assert_eq!(calls_during_hold(&provider), 1);

            provider.clock.sleep(SECOND).await;
            assert_eq!(calls_during_hold(&provider), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_script_shortens_the_hold() {
        let provider = Provider::new(Script::new([Account::new("main")]).speed(60.0), None);
        throttled_once(&provider, Throttle::Zero);

        provider.clock.sleep(SECOND).await;

        assert_eq!(calls_during_hold(&provider), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_with_a_deadline_imposes_a_hold_until_then() {
        let provider = provider(Account::new("main"));
        throttled_once(&provider, Throttle::Until(SimTime::START + SECOND * 5));

        provider.clock.sleep(SECOND * 4).await;
        assert_eq!(calls_during_hold(&provider), 1);

        provider.clock.sleep(SECOND).await;
        assert_eq!(calls_during_hold(&provider), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hold_starts_with_the_answer() {
        let provider = provider(Account::new("main"));
        let call = provider.begin(Caller::Account(0), "");
        provider.clock.sleep(SECOND * 10).await;
        call.answered(429, Some(Throttle::Zero));

        provider.clock.sleep(SECOND * 59).await;

        assert_eq!(calls_during_hold(&provider), 1);
    }

    #[tokio::test]
    async fn the_token_of_another_account_is_rejected() {
        let provider = Provider::new(Script::default(), None);

        let refused = provider.change("main", Change::token("sim-token-fallback-1"));

        assert_eq!(refused, Err(ChangeError::TokenInUse));
        assert_eq!(provider.change("main", Change::token("sim-token-main")), Ok(()));
    }

    #[tokio::test]
    async fn a_missing_account_cannot_be_changed() {
        let refused = Provider::new(Script::default(), None).change("unknown", Change::follow_script());

        assert_eq!(refused, Err(ChangeError::NoAccount));
    }
}
