//! `quota watch`: a live view of all accounts, until somebody leaves it.
//! What is on the screen is in `picture`, what keys do in `state`; here is what wakes it, and leaving the terminal clean.

mod picture;
mod scribe;
mod state;

use std::sync::Arc;
use std::time::Duration;

use quota::{Account, Clock};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use self::scribe::Written;
use self::state::{Act, State};
use crate::args::WatchArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::runtime::{self, Farewell, Threads};
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
    runtime::run(Threads::One, async {
        let Some(config) = status::configuration(options.config.as_deref()).await? else {
            return Ok(Exit::NoAccount);
        };
        let config = Arc::new(config);
        store.check().await?;
        let manager = gateway::open(&config, &store, "quota watch")?;
        let accounts: Vec<_> = config.accounts.iter().map(|one| manager.account(&one.id)).collect();
        let changed = Arc::new(Notify::new());
        let (writer, written) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(scribe::write_down(Arc::clone(&config), store.store, Arc::clone(&changed), writer));
        let mut farewell = Farewell::listen()?;
        let terminal = Terminal::take()?;
        let mut watch = Watch { config, accounts, state: State::default(), terminal, changed, tasks };
        let outcome = tokio::select! {
            outcome = watch.live(written) => outcome,
            () = farewell.wait() => Ok(()),
        };
        drop(watch);
        manager.close().await;
        outcome.map(|()| Exit::Done)
    })
}

/// The terminal, given back when this is dropped; and by ratatui's own hook if the program panics.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn take() -> Result<Self, Failure> {
        let refused = |error| Failure::new(Exit::OsErr, format!("could not use the terminal: {error}"));
        ratatui::try_init().map(Self).map_err(refused)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where it cannot be given back, there is nobody to tell.
        let _ = ratatui::try_restore();
    }
}

struct Watch {
    config: Arc<Config>,
    accounts: Vec<Account>,
    state: State,
    terminal: Terminal,
    changed: Arc<Notify>,
    /// The scribe and the refreshes that were asked for; they end with this.
    tasks: JoinSet<Option<String>>,
}

impl Watch {
    /// Lives until somebody leaves.
    async fn live(&mut self, mut written: mpsc::Receiver<Written>) -> Result<(), Failure> {
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
                event = keys.recv() => match event {
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        if self.press(key) { return Ok(()) }
                    }
                    // A new size, and whatever else there is, is drawn anew.
                    Some(_) => {}
                    None => return Ok(()),
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

    fn draw(&mut self) -> Result<(), Failure> {
        let here = Here::now();
        let views = self.accounts.iter().zip(&self.config.accounts);
        let views: Vec<_> = views
            .map(|(account, settings)| {
                let answer = account.peek();
                let failure = answer.error().filter(|_| answer.snapshot().is_empty());
                let failure = failure.map(|error| FailureView::of(error, || settings.login.advice()));
                let view = AccountView::of(&settings.id, &answer, failure);
                AccountView { switched_off: settings.disabled, ..view }
            })
            .collect();
        self.state.views = views;
        let colour = Screen::stdout().colour;
        let drawn = self.terminal.0.draw(|frame| picture::draw(frame, &mut self.state, &here, colour));
        drawn.map(drop).map_err(|error| Failure::unwritten(&error))
    }

    /// Does what a key asks for; whether that is to leave.
    fn press(&mut self, key: event::KeyEvent) -> bool {
        let ids = match self.state.press(key) {
            Act::Leave => return true,
            Act::Nothing => return false,
            Act::Refresh(ids) => ids,
        };
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
                let error = match account.refresh().await {
                    Ok(refreshed) => refreshed.error,
                    Err(error) => Some(error),
                };
                let id = account.id();
                Some(match error {
                    None => format!("{id} was read"),
                    Some(error) => {
                        term::harmless(&format!("{id}: {}", FailureView::of(&error, String::new).why))
                    }
                })
            });
        }
        false
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
