//! `quota events`: prints the events of the accounts; `--follow` prints new ones as they happen.
//! quota-journal detects the events. Their JSON is the payload of hooks.

use std::sync::Arc;
use std::time::Duration;

use quota::{AccountId, Clock};
use tokio::task::{JoinError, JoinSet};

use crate::cli::{EventsArgs, GlobalOptions};
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::read_context::ReadContext;
use crate::scope;
use crate::term::{self, Screen};
use crate::view::event_text::{line, wrapped_lines};
use quota_journal::{Damage, HookPayload, JournalEvent, JournalUpdate, wait_for_events};

/// The delay after a store error.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Prints the events.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &EventsArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut follower = Follower { shared: &shared, json: global.json, next: Vec::new() };
        let updates = follower.print_last(options.last).await?;
        shared.print_hook_failures().await;
        if options.follow {
            follower.follow(updates).await?;
        }
        Ok(Exit::Success)
    })
}

/// Prints each event once.
struct Follower<'a> {
    shared: &'a ReadContext,
    json: bool,
    /// The number of the next event to print, for each account.
    next: Vec<u64>,
}

impl Follower<'_> {
    /// Prints the last events of all accounts, oldest first.
    async fn print_last(&mut self, last: usize) -> Result<Vec<JournalUpdate>, CliError> {
        let updates = self.shared.load_all().await?;
        let events = self.shared.last_events(&updates, last);
        let is_any_damaged = updates.iter().any(|update| update.damage != Damage::default());
        if events.is_empty() && !is_any_damaged && !self.json {
            term::eprint("no events yet\n");
        }
        self.print(&events)?;
        self.next = updates.iter().map(|update| update.journal.next_number()).collect();
        Ok(updates)
    }

    /// Prints new events. It ends only with an error.
    async fn follow(&mut self, updates: Vec<JournalUpdate>) -> Result<(), CliError> {
        let mut waits = JoinSet::new();
        for (at, update) in updates.into_iter().enumerate() {
            waits.spawn(self.wait(at, update));
        }
        while let Some(woken) = waits.join_next().await {
            let at = woken.map_err(|error| panicked(&error))?;
            let account = &self.shared.config.accounts[at].id;
            match self.shared.load(account).await {
                Ok(update) => {
                    // If the store lost its content, event numbers start over.
                    let from = self.next[at].min(update.journal.next_number());
                    let new = update.journal.events().filter(|(number, _)| *number >= from);
                    let new: Vec<_> = new.map(|(_, event)| (account, event)).collect();
                    self.print(&new)?;
                    self.next[at] = update.journal.next_number();
                    self.shared.print_hook_failures().await;
                    waits.spawn(self.wait(at, update));
                }
                Err(failure) => {
                    term::eprint(&format!("quota: {failure}; still trying\n"));
                    let clock = Clock::system();
                    waits.spawn(async move {
                        clock.sleep(RETRY_DELAY).await;
                        at
                    });
                }
            }
        }
        Ok(())
    }

    fn wait(&self, at: usize, update: JournalUpdate) -> impl Future<Output = usize> + Send + use<> {
        let account = self.shared.config.accounts[at].id.clone();
        let store = Arc::clone(&self.shared.store);
        async move {
            wait_for_events(&*store, &account, &update).await;
            at
        }
    }

    fn print(&self, events: &[(&AccountId, &JournalEvent)]) -> Result<(), CliError> {
        let (local, screen) = (LocalTime::now(), Screen::stdout());
        let mut text = String::new();
        for (account, event) in events {
            let event_text = match self.json {
                true => HookPayload::new(account, event).json() + "\n",
                false if screen.is_tty => screen.show(&wrapped_lines(account, event, &local, screen.width)),
                // Programs expect one event per line.
                false => line(account, event, &local) + "\n",
            };
            text.push_str(&event_text);
        }
        if text.is_empty() { Ok(()) } else { term::print(&text) }
    }
}

/// The error after a panic in the store. The command then ends, because it could print no more events of that account.
fn panicked(error: &JoinError) -> CliError {
    CliError::new(Exit::Software, format!("could not wait for new events: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_while_waiting_is_an_error() {
        let mut waits = JoinSet::<usize>::new();
        waits.spawn(async { panic!("a bug in the store") });

        let ended = waits.join_next().await.unwrap();

        let error = panicked(&ended.unwrap_err()).to_string();
        assert!(error.starts_with("could not wait for new events: ") && error.contains("a bug in the store"));
    }
}
