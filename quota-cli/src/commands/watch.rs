//! `quota watch`: a live view of all accounts.
//! This file contains the event loop; `ui` draws the screen, and `state` applies keys.

#[cfg(test)]
mod capture;
mod files;
mod journal_task;
mod signals;
mod state;
mod terminal;
mod ui;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use futures_util::future::join_all;
use quota::clock::Instant;
use quota::manager::KeepFreshGuard;
use quota::{Account, AccountId, AccountUsage, Clock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

#[cfg(test)]
pub(crate) use self::capture::captured;
use self::files::Files;
use self::journal_task::DisplayUpdate;
use self::signals::{JobControlSignals, SignalEvent};
use self::state::{KeyAction, State};
use self::terminal::Terminal;
use crate::call_limit;
use crate::cli::GlobalOptions;
use crate::config::{self, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::hook_failures;
use crate::sanitize::sanitize;
use crate::scope::{self, CommandScope};
use crate::store::{self, OpenedStore};
use crate::store_probe::{self, StoreProbe, is_any_standalone};
use crate::term::{self, Screen};
use crate::view::account::{AccountView, FailureView};

/// The interval between two redraws, because the screen shows seconds.
const TICK: Duration = Duration::from_secs(1);

/// Shows all accounts until the user quits.
///
/// # Errors
///
/// [`CliError`] if there is no terminal, or the configuration or the store cannot be used.
pub(crate) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    if !Screen::stdout().is_tty {
        return Err(CliError::new(Exit::Usage, "quota watch needs a terminal; use quota status in scripts"));
    }
    scope::run(async |scope| {
        let named = global.config.as_deref();
        let files = Files::of(named);
        let Some(config) = context::configuration(named).await? else {
            return Ok(Exit::NoAccount);
        };
        store.check(&config).await?;
        let shown = Shown::open(scope, config, &store)?;
        let changed = Arc::new(Notify::new());
        let (sender, updates) = mpsc::channel(16);
        let (configs, config) = watch::channel(Arc::clone(&shown.config));
        let mut tasks = JoinSet::new();
        let journal = journal_task::run(config, Arc::clone(&store.store), Arc::clone(&changed), sender);
        tasks.spawn(async move {
            journal.await;
            Done::Nothing
        });
        let signals = JobControlSignals::listen()?;
        let terminal = Terminal::enter()?;
        let mut watch = Watch {
            scope,
            store: &store,
            named,
            files,
            checked_at: Clock::system().instant(),
            shown,
            configs,
            state: State::default(),
            terminal,
            was_suspended: false,
            changed,
            tasks,
            probe: Arc::new(StoreProbe::new(&store)),
            is_standalone: false,
            is_damaged: false,
        };
        let ended = watch.run(updates, signals).await;
        let (unread, mut reported) = (watch.state.hook_failures.clone(), watch.state.read_failures.clone());
        drop(watch);
        let now = Clock::system().now();
        for failure in &unread {
            term::eprint(&format!("quota: {}\n", failure.describe(now)));
        }
        reported.extend(unread);
        hook_failures::remove(reported).await;
        ended
    })
}

/// The accounts of one configuration. They are kept fresh and followed until this is dropped.
struct Shown {
    config: Arc<Config>,
    accounts: Vec<Account>,
    changes: JoinSet<Option<quota::manager::Changes>>,
    _keep_fresh: Vec<KeepFreshGuard>,
}

impl Shown {
    /// Opens a manager for the accounts, and closes the previous manager.
    fn open(scope: &CommandScope, config: Config, store: &OpenedStore) -> Result<Self, CliError> {
        let manager = context::open_manager_for_screen(scope, &config, store, "quota watch")?;
        let accounts: Vec<_> = config.accounts.iter().map(|one| manager.account(&one.id)).collect();
        let mut changes = JoinSet::new();
        for account in &accounts {
            follow(&mut changes, account.watch());
        }
        let enabled = accounts.iter().zip(&config.accounts).filter(|(_, settings)| !settings.disabled);
        let keep_fresh = enabled.map(|(account, _)| account.keep_fresh()).collect();
        Ok(Self { config: Arc::new(config), accounts, changes, _keep_fresh: keep_fresh })
    }

    /// Reads the store, so that the first screen already shows readings.
    async fn load(&self) {
        let loads = self.accounts.iter().map(|account| async { drop(account.sync().await) });
        let _ = Clock::system().bounded(TICK, join_all(loads)).await;
    }
}

/// Spawns a task that waits for the next change of an account.
fn follow(changes: &mut JoinSet<Option<quota::manager::Changes>>, mut watch: quota::manager::Changes) {
    changes.spawn(async move {
        let is_open = watch.next().await.is_some();
        is_open.then_some(watch)
    });
}

struct Watch<'a> {
    scope: &'a CommandScope,
    store: &'a OpenedStore,
    /// The `--config` of the command line.
    named: Option<&'a Path>,
    files: Files,
    /// The time of the last check of the files.
    checked_at: Instant,
    shown: Shown,
    /// The configuration for the journal task.
    configs: watch::Sender<Arc<Config>>,
    state: State,
    terminal: Terminal,
    /// Whether the process has stopped itself, and SIGCONT has not arrived yet.
    was_suspended: bool,
    changed: Arc<Notify>,
    /// The journal task, and the refreshes that keys started. They end when this is dropped.
    tasks: JoinSet<Done>,
    probe: Arc<StoreProbe>,
    /// Whether the process runs without the store.
    is_standalone: bool,
    /// Whether the record of an account is damaged.
    is_damaged: bool,
}

/// The result of a task.
enum Done {
    /// A refresh that a key started, with the reason if it failed.
    Refreshed(AccountId, Option<String>),
    /// Why the process runs without a shared store.
    StoreProbe(Option<String>),
    Nothing,
}

impl Watch<'_> {
    /// Runs the event loop until the user quits. Returns the exit code.
    async fn run(
        &mut self,
        mut updates: mpsc::Receiver<DisplayUpdate>,
        mut signals: JobControlSignals,
    ) -> Result<Exit, CliError> {
        let clock = Clock::system();
        let mut keys = keys();
        loop {
            self.reload_if_changed(&clock).await;
            self.draw()?;
            tokio::select! {
                // Poll in this order, so that the end of the program takes precedence over drawing.
                biased;
                () = terminal::panicked() => return Ok(Exit::Software),
                signal = signals.next() => match signal {
                    SignalEvent::Stop => self.suspend()?,
                    // The SIGCONT that ended a suspension arrives late, when the terminal is already in use again.
                    SignalEvent::Resume if std::mem::take(&mut self.was_suspended) => {}
                    // After a SIGSTOP another program may have changed the terminal.
                    SignalEvent::Resume => self.terminal.resume()?,
                },
                event = keys.recv() => match event {
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        let action = self.state.press(key);
                        self.remove_read_failures();
                        match action {
                            KeyAction::Quit => return Ok(Exit::Success),
                            KeyAction::Interrupt => return Ok(Exit::Interrupted),
                            KeyAction::Suspend => self.suspend()?,
                            KeyAction::Refresh(ids) => self.refresh(&ids),
                            KeyAction::Nothing => {}
                        }
                    },
                    // The next iteration draws the effect of other events, such as a new size.
                    Some(_) => {}
                    None => return Ok(Exit::HungUp),
                },
                Some(change) = self.shown.changes.join_next() => {
                    if let Ok(Some(watch)) = change {
                        self.changed.notify_one();
                        follow(&mut self.shown.changes, watch);
                    }
                },
                Some(update) = updates.recv() => self.state.apply(update),
                Some(done) = self.tasks.join_next() => {
                    match done {
                        Ok(Done::Refreshed(account, failure)) => self.state.refreshed(&account, failure),
                        Ok(Done::StoreProbe(why)) => self.state.not_shared = why,
                        Ok(Done::Nothing) | Err(_) => {}
                    }
                    self.changed.notify_one();
                },
                () = clock.sleep(TICK) => {}
            }
        }
    }

    /// Reloads a changed configuration. If that fails, it keeps the old configuration and shows the error.
    async fn reload_if_changed(&mut self, clock: &Clock) {
        let now = clock.instant();
        if now.saturating_since(self.checked_at) < TICK {
            return;
        }
        self.checked_at = now;
        if self.files.have_changed() {
            let reopened = self.reopen().await;
            self.state.config_error = reopened.err().map(|failure| sanitize(&failure.to_string()));
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

    /// Shows the reason while the process runs without the store.
    fn update_sharing(&mut self, usages: &[AccountUsage]) {
        if let Some(outage) = self.store.outage() {
            self.is_standalone = true;
            self.state.not_shared = Some(store_probe::outage_warning(&outage, &LocalTime::now()));
            return;
        }
        let was_standalone = std::mem::replace(&mut self.is_standalone, is_any_standalone(usages));
        let is_damaged = usages.iter().any(AccountUsage::is_record_damaged);
        let was_damaged = std::mem::replace(&mut self.is_damaged, is_damaged);
        if (self.is_standalone, self.is_damaged) == (was_standalone, was_damaged) {
            return;
        }
        self.state.not_shared = is_damaged.then(store_probe::damage_warning);
        if self.is_standalone {
            let probe = Arc::clone(&self.probe);
            self.tasks.spawn(async move {
                probe.is_read_only().await;
                Done::StoreProbe(probe.warning(true))
            });
        }
    }

    fn draw(&mut self) -> Result<(), CliError> {
        let local = LocalTime::now();
        let usages: Vec<_> = self.shown.accounts.iter().map(Account::peek).collect();
        self.update_sharing(&usages);
        let views: Vec<_> = usages
            .iter()
            .zip(&self.shown.config.accounts)
            .map(|(usage, settings)| {
                let failure = usage.error().filter(|_| usage.snapshot().is_empty());
                let failure = failure.map(|error| FailureView::of(error, || settings.login.hint()));
                let view = AccountView::of(&settings.id, usage, failure);
                AccountView { disabled: settings.disabled, ..view }
            })
            .collect();
        self.state.views = views;
        let color = Screen::stdout().color;
        self.terminal.draw(|frame| ui::draw(frame, &mut self.state, &local, color))
    }

    /// Removes read hook failures from their file, so that no other command reports them again.
    fn remove_read_failures(&mut self) {
        let read = self.state.read_failures.clone();
        if !read.is_empty() {
            self.tasks.spawn(async move {
                hook_failures::remove(read).await;
                Done::Nothing
            });
        }
    }

    /// Restores the terminal and stops the process until it is resumed.
    fn suspend(&mut self) -> Result<(), CliError> {
        self.terminal.suspend();
        self.was_suspended = true;
        signals::stop();
        self.terminal.resume()
    }

    /// Refreshes these accounts, each in its own task.
    fn refresh(&mut self, ids: &[AccountId]) {
        let selected = self.shown.accounts.iter().zip(&self.shown.config.accounts);
        let (disabled, enabled): (Vec<_>, Vec<_>) = selected
            .filter(|(account, _)| ids.contains(account.id()))
            .partition(|(_, settings)| settings.disabled);
        match (&*enabled, &*disabled) {
            ([], []) => {}
            ([], [(account, _), ..]) => {
                let id = account.id();
                self.state.status_message =
                    format!("{id} is disabled; enable it with: {}", config::enable(id));
            }
            ([(account, _)], _) => self.state.status_message = format!("refreshing {}", account.id()),
            (several, _) => self.state.status_message = format!("refreshing {} accounts", several.len()),
        }
        for (account, _) in enabled {
            let account = account.clone();
            self.tasks.spawn(async move {
                let refreshed = call_limit::refresh(&account).await;
                let called_at = call_limit::recent_call(&refreshed);
                let error = match refreshed {
                    Ok(refreshed) => refreshed.error,
                    Err(error) => Some(error),
                };
                let why = error.as_ref().map(|error| FailureView::of(error, String::new).why);
                let limit = called_at.map(|at| call_limit::text(at, error.is_some(), account.peek().now()));
                let parts: Vec<_> = limit.into_iter().chain(why).collect();
                let failure = (!parts.is_empty()).then(|| sanitize(&parts.join("; ")));
                Done::Refreshed(account.id().clone(), failure)
            });
        }
    }
}

/// Reads keys and terminal sizes in a thread, because crossterm blocks.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        // The thread ends with the program, or when the receiver is dropped.
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
