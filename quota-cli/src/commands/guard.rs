//! `quota guard`: exits with 0 if enough quota is left to start a job.
//! `requirements` decides whether enough is left, and `text` explains why not.

mod requirements;
mod text;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::Evaluated;
use quota::accounts::routing::Reason;
use quota::{Account, AccountUsage, Clock, Percent, QuotaStore};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::requirements::Requirements;
use self::text::Failed;
use crate::cli::{GlobalOptions, GuardArgs, Unknown};
use crate::config::{self, AccountSettings, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, rfc3339, whole_seconds};
use crate::journal;
use crate::local_usage;
use crate::reset_grace::{self, PendingReset};
use crate::scope;
use crate::store;
use crate::store_probe::StoreProbe;
use crate::term;
use crate::token_like::masked;
use crate::unnamed_model;
use crate::view::json;

/// The longest time between two checks with `--wait`, because a window may have reset or a hold may have ended. It causes no additional
/// calls, because only stale readings are refreshed.
const RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The time limit for the refresh of one check.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks whether enough is left; with `--wait`, waits until it is.
///
/// # Errors
///
/// [`CliError`] if the configuration, the account or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &GuardArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Arc::new(Config::load(global.config.as_deref())?);
    let settings = match &options.account {
        Some(name) => config.account(name)?,
        None => config.first()?,
    };
    if settings.disabled {
        return Err(config::all_disabled([&settings.id]));
    }
    let requirements =
        Requirements::new(options.min_remaining, options.window.as_deref(), options.model.as_deref());
    scope::run(async |scope| {
        context::offer_other_logins(&config, global.json).await?;
        store.check(&config).await?;
        let clock = Clock::system();
        let started_at = clock.instant();
        // A wait without a timeout needs no time limit for its calls.
        let timeout = options.timeout.or((!options.wait).then_some(context::COMMAND_TIMEOUT));
        let manager = context::open_manager(scope, &config, &store, "quota guard", timeout)?;
        let account = manager.account(&settings.id);
        let journal = JournalTask::start(&config, &store.store);
        let login_hint = || settings.login.hint();
        let guard = Guard {
            account: &account,
            settings,
            requirements: &requirements,
            options,
            is_json: global.json,
            clock: &clock,
            journal: &journal,
            probe: &StoreProbe::new(&store),
            login_hint: &login_hint,
        };
        let wait = guard.wait();
        let check = match options.timeout {
            // After the timeout, check once more without a call.
            Some(timeout) => match clock.bounded(timeout, wait).await {
                Some(check) => check,
                None => guard.check(account.sync().await),
            },
            None => wait.await,
        };
        let exit = exit_of(&check.account, options.unknown);
        unnamed_model::warn(options.model.as_deref(), [(account.id(), check.usage.snapshot())]);
        guard.print(&check, exit)?;
        if exit == Exit::Unavailable {
            context::print_unused_logins(&config).await;
        }
        guard.probe.warn([&check.usage]);
        let left = options
            .timeout
            .map(|timeout| timeout.saturating_sub(clock.instant().saturating_since(started_at)));
        journal.end(left, &clock).await;
        Ok(exit)
    })
}

/// One run of the command.
struct Guard<'a> {
    account: &'a Account,
    settings: &'a AccountSettings,
    requirements: &'a Requirements,
    options: &'a GuardArgs,
    is_json: bool,
    clock: &'a Clock,
    journal: &'a JournalTask,
    probe: &'a StoreProbe,
    login_hint: &'a dyn Fn() -> String,
}

/// The evaluation of the account's current readings.
struct GuardCheck {
    usage: AccountUsage,
    account: Evaluated,
    /// The delayed refresh of the deciding window, if that window has just reset.
    pending: Option<PendingReset>,
}

impl GuardCheck {
    /// Local time, at the time of the check.
    fn local(&self) -> LocalTime {
        LocalTime { now: self.usage.now(), ..LocalTime::now() }
    }
}

impl Guard<'_> {
    /// Checks once, or repeatedly while it must wait.
    async fn wait(&self) -> GuardCheck {
        let mut changes = self.account.watch();
        let mut last_notice = None;
        let time = reset_grace::Time::of_command(self.clock);
        loop {
            // If the refresh fails, the cached readings decide.
            let refreshed = self.clock.bounded(REFRESH_TIMEOUT, self.refresh()).await.flatten();
            let check = self.check(refreshed.unwrap_or_else(|| self.account.peek()));
            if exit_of(&check.account, self.options.unknown) == Exit::Success {
                return check;
            }
            let wait = check.pending.map(|pending| pending.wait(check.usage.now()));
            if !self.options.wait && !wait.is_some_and(|wait| time.allows(wait)) {
                return check;
            }
            if check.account.reason == Reason::UnknownDenied {
                let (cause, why) = (self.cause(&check), self.why_unknown(&check));
                let notice = match check.pending {
                    Some(_) => Some(self.failed(&check, None, &why).unknown()),
                    None => cause.clone(),
                };
                // Compare without the time to the next refresh, which changes with each check.
                let local = check.local();
                let constant = self.requirements.why_unknown(&check.account, check.usage.snapshot(), &local);
                if let Some(notice) =
                    notice.filter(|_| last_notice.as_ref() != Some(&(constant.clone(), cause.clone())))
                {
                    term::eprint(&format!("quota: {}: {notice}; waiting\n", self.account.id()));
                    last_notice = Some((constant, cause));
                }
            }
            drop(check);
            self.journal.update();
            let pause =
                wait.map_or(RECHECK_INTERVAL, |wait| RECHECK_INTERVAL.min(wait + reset_grace::MARGIN));
            drop(self.clock.bounded(pause, changes.next()).await);
        }
    }

    /// The readings, refreshed if they are stale; `None` if there are none.
    async fn refresh(&self) -> Option<AccountUsage> {
        let cached = local_usage::sync(self.account, self.settings).await;
        let model = self.requirements.fresh_model();
        if cached.is_stale_for(model) && self.probe.should_skip_refresh(&cached).await {
            return Some(cached);
        }
        self.account.get_for(model).await.ok()
    }

    fn check(&self, usage: AccountUsage) -> GuardCheck {
        let now = usage.now();
        let account = self.requirements.evaluate(self.account.id(), usage.snapshot(), now, usage.max_age());
        let reset_at = self.requirements.reset_at(&account, now);
        let model = self.requirements.fresh_model();
        let pending = reset_at.and_then(|reset_at| PendingReset::of(&usage, reset_at, model));
        GuardCheck { usage, account, pending }
    }

    /// Why there is no newer reading, and what to do.
    fn cause(&self, check: &GuardCheck) -> Option<String> {
        // While the readings are fresh, an earlier failure does not matter.
        if check.pending.is_some() {
            return None;
        }
        let (usage, local) = (&check.usage, check.local());
        text::cause(usage.error(), usage.hold().as_ref(), self.login_hint, &local)
    }

    fn why_unknown(&self, check: &GuardCheck) -> String {
        let local = check.local();
        match check.pending {
            Some(pending) => pending.text(&local),
            None => self.requirements.why_unknown(&check.account, check.usage.snapshot(), &local),
        }
    }

    fn failed<'b>(
        &'b self,
        check: &'b GuardCheck,
        cause: Option<&'b str>,
        why_unknown: &'b str,
    ) -> Failed<'b> {
        let (window, left) = self.requirements.deciding(&check.account);
        let min_remaining = self.options.min_remaining;
        let is_missing_window = self.requirements.is_missing_window(&check.account, check.usage.snapshot());
        let reason = check.account.reason;
        Failed { reason, window, left, min_remaining, cause, why_unknown, is_missing_window }
    }

    fn print(&self, check: &GuardCheck, exit: Exit) -> Result<(), CliError> {
        if self.is_json {
            let document = GuardJson::of(self, check, exit, check.usage.now());
            return term::print(&json::one_line(&document));
        }
        if exit != Exit::Success {
            let (cause, why) = (self.cause(check), self.why_unknown(check));
            let line = self.failed(check, cause.as_deref(), &why).text();
            term::eprint(&format!("quota: {}: {line}\n", self.account.id()));
        }
        Ok(())
    }
}

/// Updates the journal in a separate task, so that a slow store does not delay the command, and a timeout of the wait does not cancel a
/// write whose hooks have not started.
struct JournalTask {
    requests: mpsc::Sender<()>,
    task: JoinSet<()>,
}

impl JournalTask {
    fn start(config: &Arc<Config>, store: &Arc<dyn QuotaStore>) -> Self {
        let (config, store) = (Arc::clone(config), Arc::clone(store));
        let (requests, mut requested) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while requested.recv().await.is_some() {
                journal::update_and_print(&config, store.as_ref()).await;
            }
        });
        Self { requests, task }
    }

    /// Requests an update. Requests that arrive before it starts share one update.
    fn update(&self) {
        let _ = self.requests.try_send(());
    }

    /// Updates once more, and waits for at most `timeout`. If the time runs out, the next command continues.
    async fn end(mut self, timeout: Option<Duration>, clock: &Clock) {
        self.update();
        drop(self.requests);
        let ended = self.task.join_next();
        match timeout {
            Some(timeout) => drop(clock.bounded(timeout, ended).await),
            None => drop(ended.await),
        }
    }
}

fn exit_of(account: &Evaluated, unknown: Unknown) -> Exit {
    match (account.reason, unknown) {
        (Reason::Available, _) | (Reason::UnknownDenied, Unknown::Allow) => Exit::Success,
        (Reason::UnknownDenied, Unknown::Deny) => Exit::Unavailable,
        _ => Exit::Incomplete,
    }
}

/// The JSON of `quota guard --json`, which docs/guard-json.md describes.
#[derive(Serialize)]
struct GuardJson<'a> {
    version: u32,
    now: String,
    account: &'a str,
    go: bool,
    result: &'static str,
    reason: &'static str,
    window: Option<&'a str>,
    left_percent: Option<f64>,
    min_remaining_percent: f64,
    retry_after_seconds: Option<u64>,
}

impl<'a> GuardJson<'a> {
    fn of(guard: &Guard<'a>, check: &'a GuardCheck, exit: Exit, now: Timestamp) -> Self {
        let (window, left) = guard.requirements.deciding(&check.account);
        Self {
            version: 2,
            now: rfc3339(now),
            account: guard.account.id().as_str(),
            go: exit == Exit::Success,
            result: match check.account.reason {
                Reason::Available => "go",
                Reason::UnknownDenied => "unknown",
                _ => "below",
            },
            reason: check.account.reason.as_str(),
            // The window may be text from the command line.
            window: window.map(masked),
            left_percent: left.map(Percent::as_f64),
            min_remaining_percent: guard.options.min_remaining,
            retry_after_seconds: check.pending.map(|pending| whole_seconds(pending.wait(now))),
        }
    }
}
