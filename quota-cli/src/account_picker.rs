//! Picks an account for a request, for `pick`, `explain`, `run` and the list of accounts.
//! The rules are those of `quota::accounts`; the text of a decision is in `view::decision_text`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use quota::accounts::routing::Choice;
use quota::accounts::{Decision, FallbackAccountManager, Request, Route, RoutingPolicy, UnknownUsage};
use quota::http::AnyResponseParser;
use quota::{AccountUsage, Clock, QuotaManager};
use quota_view::decision::{Outcome, outcome};

use crate::cli::{RequestArgs, Unknown};
use crate::config::{self, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::local_usage;
use crate::reset_grace::{self, PendingReset};
use crate::sanitize::sanitize;
use crate::scope::CommandScope;
use crate::store::OpenedStore;
use crate::store_probe::{StoreProbe, is_any_standalone};
use crate::term;
use crate::unnamed_model;

/// How long a command waits before it exits, for the state file, the store and background calls.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// How many accounts are read from the store concurrently.
const CONCURRENT_LOADS: usize = 64;

/// Picks one of the accounts of a configuration.
#[derive(Debug)]
pub(crate) struct AccountPicker<'a> {
    config: &'a Config,
    quota: QuotaManager,
    accounts: FallbackAccountManager,
    request: Request,
    probe: StoreProbe,
    time: reset_grace::Time,
    /// Whether the store was unavailable when this was opened.
    was_standalone: bool,
    /// The state of every account when this was opened.
    before: Vec<ReadState>,
}

/// The values that a refresh changes: when the account was read, put on hold, and failed.
type ReadState = (Option<Timestamp>, Option<Timestamp>, Option<Timestamp>);

impl<'a> AccountPicker<'a> {
    /// Opens the store on the current runtime, and reads every account from it. Later calls to the provider are counted under
    /// `name`. Without a name, no calls are made.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store cannot be used, or the settings contradict each other.
    pub(crate) async fn open(
        scope: &CommandScope,
        config: &'a Config,
        store: &OpenedStore,
        name: Option<&str>,
        args: &RequestArgs,
    ) -> Result<Self, CliError> {
        let time = reset_grace::Time::of_command(&Clock::system());
        store.check(config).await?;
        let quota = match name {
            Some(name) => context::open_manager(scope, config, store, name, Some(context::COMMAND_TIMEOUT))?,
            None => {
                let quota = context::open_read_only(config, store)?;
                let logins = context::renewing_logins(config, store)?;
                scope.own_logins(&logins);
                let sources = Arc::new(context::credential_sources(config, &logins));
                for account in &config.accounts {
                    quota.account(&account.id).set_credentials(Arc::clone(&sources));
                }
                quota
            }
        };
        // Read all shared records before the choice, because a fallback account may have more quota left.
        let mut known = Vec::with_capacity(config.accounts.len());
        for accounts in config.accounts.chunks(CONCURRENT_LOADS) {
            let loads = accounts.iter().map(|settings| {
                let account = quota.account(&settings.id);
                async move { local_usage::sync(&account, settings).await }
            });
            known.extend(join_all(loads).await);
        }
        let probe = StoreProbe::new(store);
        probe.warn(&known);
        let was_standalone = is_any_standalone(&known) || probe.is_outage();
        let mut builder = FallbackAccountManager::builder(config.routed())
            .quota_manager(quota.clone())
            .policy(policy(config, args.unknown));
        for provider in config.used_providers() {
            builder = builder.response_parser(AnyResponseParser::new(provider.id()));
        }
        // With a memory store, nothing is saved to disk.
        if let Some(file) = config::accounts_file().filter(|_| store.is_shared) {
            builder = builder.state_file(file.state_path());
        }
        let accounts = builder.build().map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
        if let Err(error) = accounts.load().await {
            // The state can be rebuilt. The file is not changed, so that the user can inspect it.
            term::eprint(&format!("quota: {}; continuing without it\n", config::unusable(&error)));
        }
        let mut request = Request::new();
        if let Some(model) = &args.model {
            request = request.with_model(model);
        }
        if let Some(session) = &args.session {
            request = request.with_session(session);
        }
        Ok(Self {
            config,
            quota,
            accounts,
            request,
            probe,
            time,
            was_standalone,
            before: known.iter().map(read_state).collect(),
        })
    }

    /// Routes the request to an account, and returns the decision. Refreshes obey the policy.
    ///
    /// # Errors
    ///
    /// The decision, if no account can serve the request.
    pub(crate) async fn route(&self) -> Result<(Route, Decision), Decision> {
        let mut left = self.config.accounts.len();
        loop {
            let routed = self.accounts.route(self.request.clone()).await;
            let decision = self.accounts.explain_route(&self.request, routed.as_ref());
            if let Ok(route) = routed {
                return Ok((route, decision));
            }
            if self.refresh_more(&mut left).await {
                continue;
            }
            if !self.wait_for_reset(&self.accounts.explain(&self.request)).await {
                return Err(decision);
            }
            left = self.config.accounts.len();
        }
    }

    /// The decision that [`route`](Self::route) would make, after the same refreshes. It does not record a request.
    pub(crate) async fn decide(&self) -> Decision {
        let mut left = self.config.accounts.len();
        loop {
            let decision = self.accounts.decide(&self.request).await;
            if decision.chosen().is_some() {
                return decision;
            }
            if self.refresh_more(&mut left).await {
                continue;
            }
            if !self.wait_for_reset(&decision).await {
                return decision;
            }
            left = self.config.accounts.len();
        }
    }

    /// Waits for the first pending reset, until its account may be refreshed. Does not wait if the command would time out. Returns
    /// whether it waited.
    async fn wait_for_reset(&self, decision: &Decision) -> bool {
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

    /// The decision from the current readings, without a refresh.
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

    /// Refreshes accounts with unknown usage until one can serve the request, at most `left` in total. A route refreshes only a few.
    /// Returns whether any account was refreshed.
    async fn refresh_more(&self, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        let refreshed = self.accounts.refresh_until_usable(&self.request).await;
        *left = left.saturating_sub(refreshed);
        refreshed > 0
    }

    /// Saves the routing state and waits for background tasks, at most for `within`. Prints a warning if new readings could not be
    /// shared.
    ///
    /// Returns whether an account has changed, so that the journal may have new events.
    #[must_use]
    pub(crate) async fn close(self, within: Duration) -> bool {
        // A failed save is ignored: the output is complete, and the state can be rebuilt.
        let _ = Clock::system().bounded(within, self.accounts.flush()).await;
        self.quota.close_within(within).await;
        let known: Vec<_> =
            self.config.accounts.iter().map(|account| self.quota.account(&account.id).peek()).collect();
        if !self.was_standalone && (is_any_standalone(&known) || self.probe.is_outage()) {
            self.probe.is_read_only().await;
            self.probe.warn(&known);
        }
        !known.iter().map(read_state).eq(self.before)
    }

    /// Prints a warning if the store is read-only, for a command that has written nothing.
    pub(crate) async fn warn_if_read_only(&self) {
        if !self.was_standalone && self.probe.is_read_only().await {
            self.probe.warn([]);
        }
    }
}

fn read_state(usage: &AccountUsage) -> ReadState {
    let held = usage.hold().map(|hold| hold.since);
    (usage.snapshot().complete_at(), held, usage.last_failure().map(|failure| failure.at))
}

/// The policy of the configuration, with the command line's choice for unknown usage.
fn policy(config: &Config, unknown: Option<Unknown>) -> RoutingPolicy {
    let mut policy = config.routing.clone();
    if policy.route_timeout == RoutingPolicy::default().route_timeout {
        // A command has its own time limit, and no work continues afterwards.
        policy.route_timeout = context::COMMAND_TIMEOUT;
    }
    match unknown {
        Some(Unknown::Allow) => policy.when_unknown(UnknownUsage::Allow),
        Some(Unknown::Deny) => policy.when_unknown(UnknownUsage::Deny),
        None if config.when_unknown_is_set => policy,
        // As in `quota guard`, deny by default, because a script does not notice a failure and try another account.
        None => policy.when_unknown(UnknownUsage::Deny),
    }
}

/// The exit code of a decision:
///
/// - [`Exit::Success`]: an account is available.
/// - [`Exit::Incomplete`]: all accounts are unavailable until a reset, or the session waits.
/// - [`Exit::NoAccount`]: all accounts are disabled.
/// - [`Exit::Unavailable`]: the usage is unknown, or a user must log in.
pub(crate) fn exit_of(decision: &Decision) -> Exit {
    match outcome(decision) {
        Outcome::Available => Exit::Success,
        Outcome::Later => Exit::Incomplete,
        Outcome::AllDisabled => Exit::NoAccount,
        Outcome::Unknown => Exit::Unavailable,
    }
}
