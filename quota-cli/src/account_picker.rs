//! Picks an account for a request, for `pick`, `explain`, `run` and the list of accounts.
//! The rules are those of `quota::accounts`; the text of a decision is in `view::decision_text`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use quota::accounts::routing::{Choice, Reason};
use quota::accounts::{Decision, FallbackAccountManager, Request, Route, RoutingPolicy, UnknownUsage};
use quota::anthropic::AnthropicResponseParser;
use quota::{AccountUsage, Clock, QuotaManager};

use crate::cli::{RequestArgs, Unknown};
use crate::config::{self, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::reset_grace::{self, PendingReset};
use crate::sanitize::sanitize;
use crate::scope::CommandScope;
use crate::store::OpenedStore;
use crate::store_probe::{StoreProbe, is_any_standalone};
use crate::term;
use crate::unnamed_model;

/// How long a command waits at its end for the disk, the store and a call in the background.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// How many accounts are read from the store at once.
const LOADED_AT_ONCE: usize = 64;

/// The accounts of a configuration, ready to be chosen from.
#[derive(Debug)]
pub(crate) struct AccountPicker<'a> {
    config: &'a Config,
    quota: QuotaManager,
    accounts: FallbackAccountManager,
    request: Request,
    probe: StoreProbe,
    time: reset_grace::Time,
    /// Whether the store did not answer when this was opened.
    was_alone: bool,
    /// The state of every account when this was opened.
    before: Vec<ReadState>,
}

/// What a refresh changes: when the account was read, put on hold, and failed.
type ReadState = (Option<Timestamp>, Option<Timestamp>, Option<Timestamp>);

impl<'a> AccountPicker<'a> {
    /// Opens the store on the current runtime, and reads every account. It makes no call yet. Calls are counted under `name`;
    /// without a name it never makes one.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store cannot be used, or the settings contradict each other.
    pub(crate) async fn open(
        scope: &CommandScope,
        config: &'a Config,
        store: &OpenedStore,
        name: Option<&str>,
        asked: &RequestArgs,
    ) -> Result<Self, CliError> {
        let time = reset_grace::Time::of_command(&Clock::system());
        store.check().await?;
        let quota = match name {
            Some(name) => context::open_manager(scope, config, store, name, Some(context::COMMAND_TIMEOUT))?,
            None => {
                let quota = context::open_read_only(config, store)?;
                let sources = Arc::new(context::credential_sources(config));
                for account in &config.accounts {
                    quota.account(&account.id).set_credentials(Arc::clone(&sources));
                }
                quota
            }
        };
        // What others have found out is known before the first look: one of them may have more room.
        let mut known = Vec::with_capacity(config.accounts.len());
        for accounts in config.accounts.chunks(LOADED_AT_ONCE) {
            let loads = accounts.iter().map(|account| {
                let account = quota.account(&account.id);
                async move { account.sync().await }
            });
            known.extend(join_all(loads).await);
        }
        let probe = StoreProbe::new(store);
        probe.warn(&known);
        let was_alone = is_any_standalone(&known);
        let mut builder = FallbackAccountManager::builder(config.routed())
            .quota_manager(quota.clone())
            .response_parser(AnthropicResponseParser)
            .policy(policy(config, asked.unknown));
        // What is tried on a store of this process alone leaves nothing behind.
        if let Some(file) = config::accounts_file().filter(|_| store.is_shared) {
            builder = builder.state_file(file.state_path());
        }
        let accounts = builder.build().map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
        if let Err(error) = accounts.load().await {
            // What was learned can be learned again. The file stays as it is, for its owner to inspect.
            term::eprint(&format!("quota: {}, going on without\n", config::unusable(&error)));
        }
        let mut request = Request::new();
        if let Some(model) = &asked.model {
            request = request.with_model(model);
        }
        if let Some(session) = &asked.session {
            request = request.with_session(session);
        }
        Ok(Self {
            config,
            quota,
            accounts,
            request,
            probe,
            time,
            was_alone,
            before: known.iter().map(read_state).collect(),
        })
    }

    /// Gives the request an account, with the decision. Refreshes obey the rules of the configuration.
    ///
    /// # Errors
    ///
    /// The decision, if no account may serve the request.
    pub(crate) async fn route(&self) -> Result<(Route, Decision), Decision> {
        let mut left = self.config.accounts.len();
        loop {
            let routed = self.accounts.route(self.request.clone()).await;
            let decision = self.accounts.explain_route(&self.request, routed.as_ref());
            if let Ok(route) = routed {
                return Ok((route, decision));
            }
            if self.refreshes_more(&mut left).await {
                continue;
            }
            if !self.waits_for_reset(&self.accounts.explain(&self.request)).await {
                return Err(decision);
            }
            left = self.config.accounts.len();
        }
    }

    /// The decision that [`route`](Self::route) would take, after the same refreshes. It leaves no trace of a request.
    pub(crate) async fn decide(&self) -> Decision {
        let mut left = self.config.accounts.len();
        loop {
            let decision = self.accounts.decide(&self.request).await;
            if decision.chosen().is_some() {
                return decision;
            }
            if self.refreshes_more(&mut left).await {
                continue;
            }
            if !self.waits_for_reset(&decision).await {
                return decision;
            }
            left = self.config.accounts.len();
        }
    }

    /// Waits until the first account with a window that has just reset may be refreshed, if the command's time allows that. Returns
    /// whether it waited.
    async fn waits_for_reset(&self, decision: &Decision) -> bool {
        if !matches!(decision.choice(), Choice::NoAccount { .. }) {
            return false;
        }
        let pending = decision.accounts().iter().filter_map(|account| {
            let pending = PendingReset::of_account(account, decision.now())?;
            Some((account, pending))
        });
        let Some((account, pending)) = pending.min_by_key(|(_, pending)| pending.refresh_at) else {
            return false;
        };
        let wait = pending.wait(decision.now());
        if !self.time.allows(wait) {
            return false;
        }
        let local = LocalTime { now: decision.now(), ..LocalTime::now() };
        let window = account.window.as_ref().map_or_else(String::new, |window| format!("{window}: "));
        let notice = sanitize(&format!("{}: {window}{}; waiting", account.account, pending.text(&local)));
        term::eprint(&format!("quota: {notice}\n"));
        Clock::system().sleep(wait + reset_grace::MARGIN).await;
        true
    }

    /// The decision by the current readings, without a refresh.
    pub(crate) fn explain_cached(&self) -> Decision {
        self.accounts.explain(&self.request)
    }

    /// Warns on standard error if the request names a model that no window of the accounts names.
    pub(crate) fn warn_of_unnamed_model(&self) {
        let enabled = self.config.accounts.iter().filter(|account| !account.disabled);
        let known: Vec<_> =
            enabled.map(|account| (&account.id, self.quota.account(&account.id).peek())).collect();
        let known = known.iter().map(|(id, answer)| (*id, answer.snapshot()));
        unnamed_model::warn(self.request.model(), known);
    }

    /// Refreshes accounts of unknown usage until one can serve the request: a route waits for a few of them only. At most `left`
    /// are refreshed in all. Returns whether any was.
    async fn refreshes_more(&self, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        let refreshed = self.accounts.refresh_until_usable(&self.request).await;
        *left = left.saturating_sub(refreshed);
        refreshed > 0
    }

    /// Saves what was learned, and waits for background tasks, at most that long. The next command does what is left. It prints a
    /// warning if new readings could not be shared.
    ///
    /// Returns whether an account has changed, so that the journal may have new events.
    #[must_use]
    pub(crate) async fn close(self, within: Duration) -> bool {
        // What could not be saved is learned again; the output is complete.
        let _ = Clock::system().bounded(within, self.accounts.flush()).await;
        self.quota.close_within(within).await;
        let known: Vec<_> =
            self.config.accounts.iter().map(|account| self.quota.account(&account.id).peek()).collect();
        if !self.was_alone && is_any_standalone(&known) {
            self.probe.is_read_only().await;
            self.probe.warn(&known);
        }
        !known.iter().map(read_state).eq(self.before)
    }

    /// Prints a warning if the store is read-only, for a command that has written nothing.
    pub(crate) async fn tell_if_refused(&self) {
        if !self.was_alone && self.probe.is_read_only().await {
            self.probe.warn([]);
        }
    }
}

fn read_state(answer: &AccountUsage) -> ReadState {
    let held = answer.hold().map(|hold| hold.since);
    (answer.snapshot().complete_at(), held, answer.last_failure().map(|failure| failure.at))
}

/// The policy of the configuration, with the command line's choice for unknown usage.
fn policy(config: &Config, unknown: Option<Unknown>) -> RoutingPolicy {
    let policy = config.routing.clone();
    match unknown {
        Some(Unknown::Allow) => policy.when_unknown(UnknownUsage::Allow),
        Some(Unknown::Deny) => policy.when_unknown(UnknownUsage::Deny),
        None if config.when_unknown_is_set => policy,
        // As for `quota guard`: a script does not notice a failure and try another account.
        None => policy.when_unknown(UnknownUsage::Deny),
    }
}

/// Whether an account with this reason may turn out to be available.
pub(crate) fn may_be_available(reason: Reason) -> bool {
    reason.is_unknown() || matches!(reason, Reason::CredentialUnavailable | Reason::LoginRenewing)
}

/// The exit code of a decision: [`Exit::Success`] if an account serves, [`Exit::Incomplete`] if all are out until their windows reset or
/// the session waits, [`Exit::NoAccount`] if all are disabled, [`Exit::Unavailable`] if that is unknown or a person must log in.
pub(crate) fn exit_of(decision: &Decision) -> Exit {
    if decision.chosen().is_some() {
        return Exit::Success;
    }
    let reasons = || decision.accounts().iter().map(|account| account.reason);
    let is_about_quota = |reason| {
        use Reason::{BelowKillswitch, Exhausted, QuotaExhausted, Reserved, Throttled};
        matches!(reason, Exhausted | BelowKillswitch | QuotaExhausted | Reserved | Throttled)
    };
    if reasons().all(|reason| reason == Reason::Disabled) {
        return Exit::NoAccount;
    }
    let is_unknown = reasons().any(may_be_available) || !reasons().any(is_about_quota);
    if is_unknown && decision.awaited().is_none() { Exit::Unavailable } else { Exit::Incomplete }
}
