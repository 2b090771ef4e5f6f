//! `quota watch`: a live view of all accounts, until somebody leaves it.
//! What is on the screen is in `picture`, what keys do in `state`; here is what wakes it, and leaving the terminal clean.

#[cfg(test)]
mod capture;
mod files;
mod picture;
mod scribe;
mod signals;
mod state;
mod terminal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use futures_util::future::join_all;
use quota::{Account, AccountId, AccountUsage, Clock, Instant, KeepFreshGuard};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

#[cfg(test)]
pub(crate) use self::capture::{Seen, drawn};
use self::files::Files;
use self::scribe::Written;
use self::signals::{Signals, Told};
use self::state::{Act, State};
use self::terminal::Terminal;
use crate::call_limit;
use crate::cli::GlobalOptions;
use crate::config::{self, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::sanitize::sanitize;
use crate::scope::{self, CommandScope};
use crate::store::{self, OpenedStore};
use crate::store_probe::{self, StoreProbe, is_any_standalone};
use crate::term::Screen;
use crate::view::account::{AccountView, FailureView};

/// The seconds on the screen.
const TICK: Duration = Duration::from_secs(1);

/// Shows all accounts until somebody leaves.
///
/// # Errors
///
/// [`CliError`] if there is no terminal, or configuration or store cannot be used.
pub(crate) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    if !Screen::stdout().is_tty {
        return Err(CliError::new(
            Exit::Usage,
            "quota watch needs a terminal; for scripts there is quota status",
        ));
    }
    scope::run(async |scope| {
        let named = global.config.as_deref();
        let files = Files::of(named);
        let Some(config) = context::configuration(named).await? else {
            return Ok(Exit::NoAccount);
        };
        store.check().await?;
        let shown = Shown::open(scope, config, &store)?;
        let changed = Arc::new(Notify::new());
        let (writer, written) = mpsc::channel(16);
        let (configs, config) = watch::channel(Arc::clone(&shown.config));
        let mut tasks = JoinSet::new();
        let scribe = scribe::write_down(config, Arc::clone(&store.store), Arc::clone(&changed), writer);
        tasks.spawn(async move {
            scribe.await;
            Done::Nothing
        });
        let signals = Signals::listen()?;
        let terminal = Terminal::take()?;
        let mut watch = Watch {
            scope,
            store: &store,
            named,
            files,
            looked_at: Clock::system().instant(),
            shown,
            configs,
            state: State::default(),
            terminal,
            has_paused: false,
            changed,
            tasks,
            probe: Arc::new(StoreProbe::new(&store)),
            is_alone: false,
            is_damaged: false,
        };
        watch.live(written, signals).await
    })
}

/// The accounts of one reading of the configuration: kept fresh, and followed, while this exists.
struct Shown {
    config: Arc<Config>,
    accounts: Vec<Account>,
    changes: JoinSet<Option<quota::Changes>>,
    _kept: Vec<KeepFreshGuard>,
}

impl Shown {
    /// Opens a manager for the accounts; the one before it is closed.
    fn open(scope: &CommandScope, config: Config, store: &OpenedStore) -> Result<Self, CliError> {
        let manager = context::open_manager_for_screen(scope, &config, store, "quota watch")?;
        let accounts: Vec<_> = config.accounts.iter().map(|one| manager.account(&one.id)).collect();
        let mut changes = JoinSet::new();
        for account in &accounts {
            follow(&mut changes, account.watch());
        }
        let enabled = accounts.iter().zip(&config.accounts).filter(|(_, settings)| !settings.disabled);
        let kept = enabled.map(|(account, _)| account.keep_fresh()).collect();
        Ok(Self { config: Arc::new(config), accounts, changes, _kept: kept })
    }

    /// Reads what the store has of them, so that they are not shown without numbers first.
    async fn load(&self) {
        let loads = self.accounts.iter().map(|account| async { drop(account.sync().await) });
        let _ = Clock::system().bounded(TICK, join_all(loads)).await;
    }
}

/// Waits for the next change of an account, in a task.
fn follow(changes: &mut JoinSet<Option<quota::Changes>>, mut watch: quota::Changes) {
    changes.spawn(async move {
        let is_open = watch.next().await.is_some();
        is_open.then_some(watch)
    });
}

struct Watch<'a> {
    scope: &'a CommandScope,
    store: &'a OpenedStore,
    /// The configuration that the command line names.
    named: Option<&'a Path>,
    files: Files,
    /// When the files were last looked at.
    looked_at: Instant,
    shown: Shown,
    /// The configuration, for the scribe.
    configs: watch::Sender<Arc<Config>>,
    state: State,
    terminal: Terminal,
    /// Whether it has stopped itself, and has not been told yet that it goes on.
    has_paused: bool,
    changed: Arc<Notify>,
    /// The scribe and the refreshes that were asked for; they end with this.
    tasks: JoinSet<Done>,
    probe: Arc<StoreProbe>,
    /// Whether it goes on without the store, and has looked why.
    is_alone: bool,
    /// Whether the record of an account is damaged.
    is_damaged: bool,
}

/// What came of a task.
enum Done {
    /// A refresh that was asked for, and why it brought nothing if it did not.
    Refreshed(AccountId, Option<String>),
    /// Why nothing is shared with other processes.
    StoreProbe(Option<String>),
    Nothing,
}

impl Watch<'_> {
    /// Lives until somebody leaves, and says how.
    async fn live(
        &mut self,
        mut written: mpsc::Receiver<Written>,
        mut signals: Signals,
    ) -> Result<Exit, CliError> {
        let clock = Clock::system();
        let mut keys = keys();
        loop {
            self.reread(&clock).await;
            self.draw()?;
            tokio::select! {
                // The first that is ready in this order: what ends it comes before what there is to draw.
                biased;
                () = terminal::panicked() => return Ok(Exit::Software),
                told = signals.next() => match told {
                    Told::Stop => self.pause()?,
                    // The one that ended a pause is told late: the terminal has been taken since.
                    Told::GoOn if std::mem::take(&mut self.has_paused) => {}
                    // Whoever stopped it has not asked for the terminal, and others have had it.
                    Told::GoOn => self.terminal.retake()?,
                },
                event = keys.recv() => match event {
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => match self.state.press(key) {
                        Act::Leave => return Ok(Exit::Success),
                        Act::Interrupt => return Ok(Exit::Interrupted),
                        Act::Pause => self.pause()?,
                        Act::Refresh(ids) => self.refresh(&ids),
                        Act::Nothing => {}
                    },
                    // A new size, and whatever else there is, is drawn anew.
                    Some(_) => {}
                    None => return Ok(Exit::HungUp),
                },
                Some(change) = self.shown.changes.join_next() => {
                    if let Ok(Some(watch)) = change {
                        self.changed.notify_one();
                        follow(&mut self.shown.changes, watch);
                    }
                },
                Some(news) = written.recv() => self.state.write(news),
                Some(done) = self.tasks.join_next() => {
                    match done {
                        Ok(Done::Refreshed(account, why)) => self.state.refreshed(&account, why),
                        Ok(Done::StoreProbe(why)) => self.state.not_shared = why,
                        Ok(Done::Nothing) | Err(_) => {}
                    }
                    self.changed.notify_one();
                },
                () = clock.sleep(TICK) => {}
            }
        }
    }

    /// Takes in what other commands have changed in the configuration. What cannot be read changes
    /// nothing, and one line says why.
    async fn reread(&mut self, clock: &Clock) {
        let now = clock.instant();
        if now.saturating_since(self.looked_at) < TICK {
            return;
        }
        self.looked_at = now;
        if self.files.have_changed() {
            let reopened = self.reopen().await;
            self.state.not_read = reopened.err().map(|failure| sanitize(&failure.to_string()));
        }
    }

    async fn reopen(&mut self) -> Result<(), CliError> {
        let config = context::configuration_or_empty(self.named).await?;
        let shown = Shown::open(self.scope, config, self.store)?;
        shown.load().await;
        self.state.retain(|id| shown.config.accounts.iter().any(|account| account.id == *id));
        self.configs.send_replace(Arc::clone(&shown.config));
        self.shown = shown;
        self.changed.notify_one();
        Ok(())
    }

    /// Once it goes on without the store: shows why, for as long as that lasts.
    fn see_whether_alone(&mut self, answers: &[AccountUsage]) {
        let was_alone = std::mem::replace(&mut self.is_alone, is_any_standalone(answers));
        let is_damaged = answers.iter().any(AccountUsage::is_record_damaged);
        let was_damaged = std::mem::replace(&mut self.is_damaged, is_damaged);
        if (self.is_alone, self.is_damaged) == (was_alone, was_damaged) {
            return;
        }
        self.state.not_shared = is_damaged.then(store_probe::damage_warning);
        if self.is_alone {
            let probe = Arc::clone(&self.probe);
            self.tasks.spawn(async move {
                probe.is_read_only().await;
                Done::StoreProbe(probe.warning(true))
            });
        }
    }

    fn draw(&mut self) -> Result<(), CliError> {
        let local = LocalTime::now();
        let answers: Vec<_> = self.shown.accounts.iter().map(Account::peek).collect();
        self.see_whether_alone(&answers);
        let views: Vec<_> = answers
            .iter()
            .zip(&self.shown.config.accounts)
            .map(|(answer, settings)| {
                let failure = answer.error().filter(|_| answer.snapshot().is_empty());
                let failure = failure.map(|error| FailureView::of(error, || settings.login.advice()));
                let view = AccountView::of(&settings.id, answer, failure);
                AccountView { switched_off: settings.disabled, ..view }
            })
            .collect();
        self.state.views = views;
        let colour = Screen::stdout().colour;
        self.terminal.draw(|frame| picture::draw(frame, &mut self.state, &local, colour))
    }

    /// Lets the shell have the terminal, until somebody has this go on.
    fn pause(&mut self) -> Result<(), CliError> {
        self.terminal.lend();
        self.has_paused = true;
        signals::stop();
        self.terminal.retake()
    }

    /// Refreshes these accounts, in tasks of their own.
    fn refresh(&mut self, ids: &[AccountId]) {
        let wanted = self.shown.accounts.iter().zip(&self.shown.config.accounts);
        let (disabled, wanted): (Vec<_>, Vec<_>) = wanted
            .filter(|(account, _)| ids.contains(account.id()))
            .partition(|(_, settings)| settings.disabled);
        match (&*wanted, &*disabled) {
            ([], []) => {}
            ([], [(account, _), ..]) => {
                let id = account.id();
                self.state.told = format!("{id} is disabled; enable it with: {}", config::enable(id));
            }
            ([(account, _)], _) => self.state.told = format!("refreshing {}", account.id()),
            (several, _) => self.state.told = format!("refreshing {} accounts", several.len()),
        }
        for (account, _) in wanted {
            let account = account.clone();
            self.tasks.spawn(async move {
                // The rules decide; why they said no is told in the last line.
                let refreshed = call_limit::refresh(&account).await;
                let called_at = call_limit::recent_call(&refreshed);
                let error = match refreshed {
                    Ok(refreshed) => refreshed.error,
                    Err(error) => Some(error),
                };
                let why = error.as_ref().map(|error| FailureView::of(error, String::new).why);
                let limit = called_at.map(|at| call_limit::text(at, error.is_some(), account.peek().now()));
                let parts: Vec<_> = limit.into_iter().chain(why).collect();
                let why_not = (!parts.is_empty()).then(|| sanitize(&parts.join("; ")));
                Done::Refreshed(account.id().clone(), why_not)
            });
        }
    }
}

/// Keys and sizes, read by a thread of their own: a terminal can only be waited for by blocking.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        // It ends with the program, or when nobody listens any more.
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
