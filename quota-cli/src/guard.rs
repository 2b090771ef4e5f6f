//! `quota guard`: whether there is enough left to begin, as an exit code for scripts.
//! What is enough is decided in `judge`, how it is said in `text`; when the provider is asked, by the rules, as everywhere.

mod judge;
mod text;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::{Account, AccountUsage, Clock, QuotaStore};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::judge::{Terms, Verdict, Why, judge};
use self::text::Beside;
use crate::cli::{GlobalOptions, GuardArgs, Unknown};
use crate::config::{self, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, rfc3339, whole_seconds};
use crate::journal;
use crate::reset_grace::{self, PendingReset};
use crate::scope;
use crate::store;
use crate::store_probe::StoreProbe;
use crate::term;
use crate::token_like::masked;
use crate::unnamed_model;

/// While waiting it is looked again after this, whatever was heard: a window may have reset, a hold may be over. The
/// provider is asked no more often for that: only what is not fresh is asked for at all.
const LOOK: Duration = Duration::from_secs(15);

/// How long the provider is waited for in one look.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hooks are not begun with less time than this before the end of `--timeout`: the next command finds the same event.
const SHORTEST_HOOK: Duration = Duration::from_secs(1);

/// Says whether to go on, and waits for that if it was asked to.
///
/// # Errors
///
/// [`CliError`] if the configuration, the account or the store cannot be used, or the answer cannot be written.
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
    let terms = Terms {
        min_remaining: options.min_remaining,
        window: options.window.as_deref(),
        model: options.model.as_deref(),
    };
    scope::run(async |scope| {
        store.check().await?;
        let clock = Clock::system();
        let began = clock.instant();
        // One that waits without end is no command that ends: its calls may take their time.
        let timeout = options.timeout.or((!options.wait).then_some(context::COMMAND_TIMEOUT));
        let manager = context::open_manager(scope, &config, &store, "quota guard", timeout)?;
        let account = manager.account(&settings.id);
        let keeper = Keeper::start(&config, &store.store);
        let advice = || settings.login.advice();
        let guard = Guard {
            account: &account,
            terms: &terms,
            options,
            is_json: global.json,
            clock: &clock,
            keeper: &keeper,
            probe: &StoreProbe::new(&store),
            advice: &advice,
        };
        let waited = guard.wait();
        let (answer, verdict) = match options.timeout {
            // What stands when the time is over is judged once more, without asking the provider.
            Some(most) => match clock.bounded(most, waited).await {
                Some(judged) => judged,
                None => judged(account.sync().await, &terms),
            },
            None => waited.await,
        };
        let exit = exit_of(&verdict, options.unknown);
        unnamed_model::warn(terms.model, [(account.id(), answer.snapshot())]);
        guard.tell(&answer, &verdict, exit)?;
        guard.probe.warn([&answer]);
        // After the answer: nobody waits for what hooks do, but a script that goes on by the exit code.
        let left = options.timeout.map(|most| most.saturating_sub(clock.instant().saturating_since(began)));
        if !keeper.end(left, &clock).await && !config.hooks.is_empty() {
            term::eprint("quota: --timeout is over, so hooks that were still running were ended\n");
        }
        Ok(exit)
    })
}

/// One run of the command.
struct Guard<'a> {
    account: &'a Account,
    terms: &'a Terms<'a>,
    options: &'a GuardArgs,
    is_json: bool,
    clock: &'a Clock,
    keeper: &'a Keeper,
    probe: &'a StoreProbe,
    advice: &'a dyn Fn() -> String,
}

impl Guard<'_> {
    /// Looks, and looks again for as long as it is to be waited.
    async fn wait(&self) -> (AccountUsage, Verdict) {
        let mut news = self.account.watch();
        let mut told = None;
        let time = reset_grace::Time::of_command(self.clock);
        loop {
            // Whatever fails, the answer says what is known and how certain it is.
            let asked = self.clock.bounded(PATIENCE, self.ask()).await.flatten();
            let (answer, verdict) = judged(asked.unwrap_or_else(|| self.account.peek()), self.terms);
            if exit_of(&verdict, self.options.unknown) == Exit::Success {
                return (answer, verdict);
            }
            let pending = self.pending(&answer, &verdict);
            let wait = pending.map(|pending| pending.wait(answer.now()));
            if !self.options.wait && !wait.is_some_and(|wait| time.allows(wait)) {
                return (answer, verdict);
            }
            // A number that does not come needs a reason.
            let beside = self.beside(&answer, pending);
            if let Verdict::Unknown { window, why } = &verdict
                && let Some(notice) = text::notice(window.as_deref(), why, &beside, &local(&answer))
                && told.as_ref() != Some(&(why.clone(), beside.cause.clone()))
            {
                term::eprint(&format!("quota: {}: {notice}\n", self.account.id()));
                told = Some((why.clone(), beside.cause));
            }
            drop(answer);
            self.keeper.look();
            let pause = wait.map_or(LOOK, |wait| LOOK.min(wait + reset_grace::MARGIN));
            drop(self.clock.bounded(pause, news.next()).await);
        }
    }

    /// What is known, refreshed if it is old; `None` if nothing is known.
    async fn ask(&self) -> Option<AccountUsage> {
        let known = self.account.sync().await;
        let model = self.terms.fresh_model();
        if known.is_stale_for(model) && self.probe.should_skip_refresh(&known).await {
            return Some(known);
        }
        self.account.get_for(model).await.ok()
    }

    /// What keeps the window that cannot be decided from being refreshed, if it has just reset.
    fn pending(&self, answer: &AccountUsage, verdict: &Verdict) -> Option<PendingReset> {
        match verdict {
            Verdict::Unknown { why: Why::Reset { at }, .. } => {
                PendingReset::of(answer, *at, self.terms.fresh_model())
            }
            _ => None,
        }
    }

    fn beside(&self, answer: &AccountUsage, pending: Option<PendingReset>) -> Beside {
        // What kept an earlier refresh from happening does not matter while the readings are fresh.
        let cause = || text::cause(answer.error(), answer.hold().as_ref(), self.advice, &local(answer));
        Beside { cause: if pending.is_some() { None } else { cause() }, pending }
    }

    fn tell(&self, answer: &AccountUsage, verdict: &Verdict, exit: Exit) -> Result<(), CliError> {
        let (local, pending) = (local(answer), self.pending(answer, verdict));
        if self.is_json {
            let document = Document::of(self, verdict, exit, pending, local.now);
            let text = serde_json::to_string(&document).expect("it has only text keys");
            return term::print(&(text + "\n"));
        }
        if exit != Exit::Success {
            let line = text::verdict(verdict, &self.beside(answer, pending), &local);
            term::eprint(&format!("quota: {}: {line}\n", self.account.id()));
        }
        Ok(())
    }
}

/// Writes down what happens meanwhile, and runs the hooks for it, in a task of its own: a slow hook holds up no waiting, and
/// the end of the waiting ends no hook.
struct Keeper {
    looks: mpsc::Sender<()>,
    task: JoinSet<()>,
}

impl Keeper {
    fn start(config: &Arc<Config>, store: &Arc<dyn QuotaStore>) -> Self {
        let (config, store) = (Arc::clone(config), Arc::clone(store));
        let (looks, mut asked) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while asked.recv().await.is_some() {
                journal::tell(&config, store.as_ref()).await;
            }
        });
        Self { looks, task }
    }

    /// Has it look; one look that has not begun yet is enough for all that ask.
    fn look(&self) {
        let _ = self.looks.try_send(());
    }

    /// Has it look once more, and waits for that: for no longer than `within`, if that is given. Hooks that are still running then
    /// end with everything they have started. Returns whether nothing had to be ended.
    async fn end(mut self, within: Option<Duration>, clock: &Clock) -> bool {
        if within.is_none_or(|within| within >= SHORTEST_HOOK) {
            self.look();
        }
        drop(self.looks);
        let ended = self.task.join_next();
        let has_ended = match within {
            Some(within) => clock.bounded(within, ended).await.is_some(),
            None => ended.await.is_some(),
        };
        // Dropped before the program ends, or a hook would outlive it.
        self.task.shutdown().await;
        has_ended
    }
}

/// Where the reader is, at the time that the answer is about.
fn local(answer: &AccountUsage) -> LocalTime {
    LocalTime { now: answer.now(), ..LocalTime::now() }
}

fn judged(answer: AccountUsage, terms: &Terms<'_>) -> (AccountUsage, Verdict) {
    let verdict = judge(answer.snapshot(), answer.now(), answer.max_age(), terms);
    (answer, verdict)
}

fn exit_of(verdict: &Verdict, unknown: Unknown) -> Exit {
    match (verdict, unknown) {
        (Verdict::Go { .. }, _) | (Verdict::Unknown { .. }, Unknown::Allow) => Exit::Success,
        (Verdict::Below { .. }, _) => Exit::Incomplete,
        (Verdict::Unknown { .. }, Unknown::Deny) => Exit::Unavailable,
    }
}

/// What `quota guard --json` writes; its fields are told in docs/guard-json.md.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    now: String,
    account: &'a str,
    go: bool,
    verdict: &'static str,
    window: Option<&'a str>,
    left_percent: Option<f64>,
    min_remaining_percent: f64,
    retry_after_seconds: Option<u64>,
}

impl<'a> Document<'a> {
    fn of(
        guard: &Guard<'a>,
        verdict: &'a Verdict,
        exit: Exit,
        pending: Option<PendingReset>,
        now: Timestamp,
    ) -> Self {
        let (word, window, left) = match verdict {
            Verdict::Go { window, left } => ("go", Some(&**window), Some(*left)),
            Verdict::Below { window, left } => ("below", Some(&**window), Some(*left)),
            Verdict::Unknown { window, .. } => ("unknown", window.as_deref(), None),
        };
        // A window that the command line names is repeated as it was given.
        let window = window.map(masked);
        Self {
            version: 1,
            now: rfc3339(now),
            account: guard.account.id().as_str(),
            go: exit == Exit::Success,
            verdict: word,
            window,
            left_percent: left,
            min_remaining_percent: guard.options.min_remaining,
            retry_after_seconds: pending.map(|pending| whole_seconds(pending.wait(now))),
        }
    }
}
