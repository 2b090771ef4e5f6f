//! `quota events`: what happened to the accounts, and with `--follow` what happens.
//! What an event is, and how it is found out, is in `journal`; its JSON is that of the notes that hooks get.

use std::sync::Arc;
use std::time::Duration;

use quota::{AccountId, Clock, QuotaStore, StoreKey, Version};
use tokio::task::JoinSet;

use crate::cli::{EventsArgs, GlobalOptions};
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, between};
use crate::read_context::ReadContext;
use crate::scope;
use crate::term::{self, Screen};
use crate::view::event_text::{line, wrapped_line};
use quota_journal::{Damage, HookPayload, JournalEvent, JournalUpdate};

/// A notice may be lost: what the store has is looked at this often all the same.
const RECHECK: Duration = Duration::from_secs(30);
/// After a failure of the store it is not asked again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows what happened.
///
/// # Errors
///
/// [`CliError`] if configuration or store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &EventsArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut follower = Follower { shared: &shared, json: global.json, told: Vec::new() };
        let looked = follower.tell_last(options.last).await?;
        shared.start_all_hooks(&looked).await;
        if options.follow {
            follower.follow(looked).await?;
        }
        Ok(Exit::Success)
    })
}

/// Tells events, each once.
struct Follower<'a> {
    shared: &'a ReadContext,
    json: bool,
    /// For each account, the number of the next event to tell.
    told: Vec<u64>,
}

impl Follower<'_> {
    /// Tells the last ones of all accounts, oldest first.
    async fn tell_last(&mut self, last: usize) -> Result<Vec<JournalUpdate>, CliError> {
        let accounts = &self.shared.config.accounts;
        let mut looked = Vec::with_capacity(accounts.len());
        for account in accounts {
            looked.push(self.shared.load(&account.id).await?);
        }
        let mut all: Vec<_> = accounts
            .iter()
            .zip(&looked)
            .flat_map(|(account, looked)| looked.journal.events().map(|(_, what)| (&account.id, what)))
            .collect();
        all.sort_by_key(|(_, event)| event.at);
        let surplus = all.len().saturating_sub(last);
        let is_whole = looked.iter().all(|looked| looked.damage == Damage::default());
        if all.is_empty() && is_whole && !self.json {
            term::eprint("no events yet\n");
        }
        self.tell(&all[surplus..])?;
        self.told = looked.iter().map(|looked| looked.journal.next_number()).collect();
        Ok(looked)
    }

    /// Tells whatever happens from now on. It never ends by itself.
    async fn follow(&mut self, looked: Vec<JournalUpdate>) -> Result<(), CliError> {
        let mut waits = JoinSet::new();
        for (at, looked) in looked.iter().enumerate() {
            waits.spawn(self.wait(at, looked));
        }
        while let Some(woken) = waits.join_next().await {
            // A store that breaks in its wait is a broken store, and is told when it is looked at.
            let Ok(at) = woken else { continue };
            let account = &self.shared.config.accounts[at].id;
            match self.shared.load(account).await {
                Ok(looked) => {
                    // A store that has lost its content begins to count anew.
                    let from = self.told[at].min(looked.journal.next_number());
                    let new = looked.journal.events().filter(|(number, _)| *number >= from);
                    let new: Vec<_> = new.map(|(_, event)| (account, event)).collect();
                    self.tell(&new)?;
                    self.told[at] = looked.journal.next_number();
                    self.shared.start_hooks(account, &looked).await;
                    waits.spawn(self.wait(at, &looked));
                }
                Err(failure) => {
                    term::eprint(&format!("quota: {failure}; still trying\n"));
                    let clock = Clock::system();
                    waits.spawn(async move {
                        clock.sleep(PAUSE).await;
                        at
                    });
                }
            }
        }
        Ok(())
    }

    fn wait(&self, at: usize, looked: &JournalUpdate) -> impl Future<Output = usize> + Send + use<> {
        let account = self.shared.config.accounts[at].id.clone();
        let wait = news(Arc::clone(&self.shared.store), account, looked);
        async move {
            wait.await;
            at
        }
    }

    fn tell(&self, events: &[(&AccountId, &JournalEvent)]) -> Result<(), CliError> {
        let (local, screen) = (LocalTime::now(), Screen::stdout());
        let mut text = String::new();
        for (account, event) in events {
            let told = match self.json {
                true => HookPayload::new(account, event).json(),
                false if screen.is_tty => wrapped_line(account, event, &local, screen.width),
                // Whatever searches or counts them goes by lines.
                false => line(account, event, &local),
            };
            text.push_str(&told);
            text.push('\n');
        }
        if text.is_empty() { Ok(()) } else { term::print(&text) }
    }
}

/// Waits until there may be news of an account: its record or its journal was written, or a moment has come.
fn news(
    store: Arc<dyn QuotaStore>,
    account: AccountId,
    looked: &JournalUpdate,
) -> impl Future<Output = ()> + Send + use<> {
    let clock = Clock::system();
    let (record, journal) = looked.versions;
    let left = looked.journal.next_change_at().map_or(RECHECK, |moment| between(looked.now, moment));
    // A moment that is a little later by this machine's clock must not be waited for in a circle.
    let left = left.max(Duration::from_millis(100)).min(RECHECK);
    async move {
        let (record_key, journal_key) =
            (StoreKey::account(&account), StoreKey::account_extension(&account, "journal"));
        let noticed = async {
            tokio::select! {
                () = noticed(&*store, &record_key, record) => {}
                () = noticed(&*store, &journal_key, journal) => {}
            }
        };
        let _ = clock.bounded(left, noticed).await;
    }
}

/// Waits for a notice; a store without notices gives none, and the slow look has to do.
async fn noticed(store: &dyn QuotaStore, key: &StoreKey, seen: Option<Version>) {
    if store.wait_for_change(key, seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}
