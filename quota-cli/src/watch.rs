//! `quota watch`: a live view of all accounts, until somebody leaves it.
//! What is on the screen is in `picture`, what keys do in `state`; here is what wakes it, and leaving the terminal clean.

#[cfg(test)]
mod capture;
mod picture;
mod scribe;
mod signals;
mod state;
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use quota::{Account, AccountId, Answer, Clock};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

#[cfg(test)]
pub(crate) use self::capture::{Seen, drawn};
use self::scribe::Written;
use self::signals::{Signals, Told};
use self::state::{Act, State};
use self::terminal::Terminal;
use crate::args::WatchArgs;
use crate::call_limit;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::scope;
use crate::sharing::{Sharing, is_any_alone};
use crate::status::model::{AccountView, FailureView};
use crate::term::{self, Screen};
use crate::words::Here;
use crate::{gateway, status};

/// The seconds on the screen.
const TICK: Duration = Duration::from_secs(1);

/// Shows all accounts until somebody leaves.
///
/// # Errors
///
/// [`Failure`] if there is no terminal, or configuration or store cannot be used.
pub(crate) fn run(options: &WatchArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let store = gateway::store(store)?;
    if !Screen::stdout().live {
        return Err(Failure::new(
            Exit::Usage,
            "quota watch needs a terminal; for scripts there is quota status",
        ));
    }
    scope::run(async |scope| {
        let Some(config) = status::configuration(options.config.as_deref()).await? else {
            return Ok(Exit::NoAccount);
        };
        let config = Arc::new(config);
        store.check().await?;
        let manager = gateway::open_for_screen(scope, &config, &store, "quota watch")?;
        let accounts: Vec<_> = config.accounts.iter().map(|one| manager.account(&one.id)).collect();
        let changed = Arc::new(Notify::new());
        let (writer, written) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let sharing = Arc::new(Sharing::on(&store));
        tasks.spawn(scribe::write_down(Arc::clone(&config), store.store, Arc::clone(&changed), writer));
        let signals = Signals::listen()?;
        let terminal = Terminal::take()?;
        let state = State::default();
        let mut watch = Watch {
            config,
            accounts,
            state,
            terminal,
            has_paused: false,
            changed,
            tasks,
            sharing,
            is_alone: false,
        };
        watch.live(written, signals).await
    })
}

struct Watch {
    config: Arc<Config>,
    accounts: Vec<Account>,
    state: State,
    terminal: Terminal,
    /// Whether it has stopped itself, and has not been told yet that it goes on.
    has_paused: bool,
    changed: Arc<Notify>,
    /// The scribe and the refreshes that were asked for; they end with this.
    tasks: JoinSet<Option<String>>,
    sharing: Arc<Sharing>,
    /// Whether it goes on without the store, and has looked why.
    is_alone: bool,
}

impl Watch {
    /// Lives until somebody leaves, and says how.
    async fn live(
        &mut self,
        mut written: mpsc::Receiver<Written>,
        mut signals: Signals,
    ) -> Result<Exit, Failure> {
        let clock = Clock::system();
        let mut keys = keys();
        let mut changes = JoinSet::new();
        let mut kept = Vec::new();
        for (at, account) in self.accounts.iter().enumerate() {
            let mut watch = account.watch();
            if !self.config.accounts[at].disabled {
                kept.push(account.keep_fresh());
            }
            changes.spawn(async move {
                let is_open = watch.next().await.is_some();
                (at, is_open.then_some(watch))
            });
        }
        loop {
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
                        Act::Leave => return Ok(Exit::Done),
                        Act::Interrupt => return Ok(Exit::Interrupted),
                        Act::Pause => self.pause()?,
                        Act::Refresh(ids) => self.refresh(&ids),
                        Act::Nothing => {}
                    },
                    // A new size, and whatever else there is, is drawn anew.
                    Some(_) => {}
                    None => return Ok(Exit::HungUp),
                },
                Some(change) = changes.join_next() => {
                    if let Ok((at, Some(mut watch))) = change {
                        self.changed.notify_one();
                        changes.spawn(async move {
                            let is_open = watch.next().await.is_some();
                            (at, is_open.then_some(watch))
                        });
                    }
                },
                Some(news) = written.recv() => self.state.write(news),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(Some(told)) = done { self.state.told = told; }
                    self.changed.notify_one();
                },
                () = clock.sleep(TICK) => {}
            }
        }
    }

    /// Once it goes on without the store: has it told why.
    fn see_whether_alone(&mut self, answers: &[Answer]) {
        let was_alone = std::mem::replace(&mut self.is_alone, is_any_alone(answers));
        if self.is_alone && !was_alone {
            let sharing = Arc::clone(&self.sharing);
            self.tasks.spawn(async move {
                sharing.is_refused().await;
                sharing.told(true)
            });
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let here = Here::now();
        let answers: Vec<_> = self.accounts.iter().map(Account::peek).collect();
        self.see_whether_alone(&answers);
        let views: Vec<_> = answers
            .iter()
            .zip(&self.config.accounts)
            .map(|(answer, settings)| {
                let failure = answer.error().filter(|_| answer.snapshot().is_empty());
                let failure = failure.map(|error| FailureView::of(error, || settings.login.advice()));
                let view = AccountView::of(&settings.id, answer, failure);
                AccountView { switched_off: settings.disabled, ..view }
            })
            .collect();
        self.state.views = views;
        let colour = Screen::stdout().colour;
        self.terminal.draw(|frame| picture::draw(frame, &mut self.state, &here, colour))
    }

    /// Lets the shell have the terminal, until somebody has this go on.
    fn pause(&mut self) -> Result<(), Failure> {
        self.terminal.lend();
        self.has_paused = true;
        signals::stop();
        self.terminal.retake()
    }

    /// Asks about these accounts, in tasks of their own.
    fn refresh(&mut self, ids: &[AccountId]) {
        let asked = self.accounts.iter().zip(&self.config.accounts);
        for (account, settings) in asked.filter(|(account, _)| ids.contains(account.id())) {
            if settings.disabled {
                let id = account.id();
                self.state.told = format!("{id} is switched off; quota accounts enable {id} switches it on");
                continue;
            }
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
                let id = account.id();
                Some(match &*parts {
                    [] => format!("{id} was read"),
                    parts => term::harmless(&format!("{id}: {}", parts.join("; "))),
                })
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
