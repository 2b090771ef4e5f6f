//! The resources: the last events of all accounts and of each account, from the journals.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, select_all};
use quota::{AccountId, Clock};
use quota_journal::{HookPayload, JournalUpdate, wait_for_events};
use rmcp::model::{Resource, ResourceTemplate};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use crate::exit::{CliError, Exit};
use crate::read_context::ReadContext;

const ALL: &str = "quota://events";
/// The number of events in a resource.
const MAX_EVENTS: usize = 100;
/// One event per line.
pub(super) const MIME_TYPE: &str = "application/jsonl";
const DESCRIPTION: &str = "The last 100 events, oldest first, one JSON object per line: thresholds that were \
                           crossed, resets, holds and failures.";
/// The delay after a store error.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The resources of a configuration.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used.
pub(super) async fn list(calls: &Calls) -> Result<Vec<Resource>, CliError> {
    let accounts = calls.accounts().await?.accounts;
    let all = Resource::new(ALL, "events").with_title("Events of all accounts");
    let each = accounts.iter().map(|account| {
        let title = format!("Events of {}", account.id);
        Resource::new(format!("{ALL}/{}", account.id), format!("events of {}", account.id)).with_title(title)
    });
    let described = |resource: Resource| resource.with_description(DESCRIPTION).with_mime_type(MIME_TYPE);
    Ok(std::iter::once(all).chain(each).map(described).collect())
}

/// The template of the resource names.
pub(super) fn template() -> ResourceTemplate {
    ResourceTemplate::new(format!("{ALL}/{{provider}}/{{name}}"), "events of an account")
        .with_title("Events of one account")
        .with_description(DESCRIPTION)
        .with_mime_type(MIME_TYPE)
}

/// A resource: the events of all accounts, or of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventsUri(Option<AccountId>);

impl EventsUri {
    /// Parses a resource name; `None` if it is invalid.
    pub(super) fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(ALL)?;
        match rest.strip_prefix('/') {
            None => rest.is_empty().then_some(Self(None)),
            Some(account) => Some(Self(Some(account.parse().ok()?))),
        }
    }

    /// Reads the events, one per line.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the account is not configured, the store does not respond, or the call is cancelled.
    pub(super) async fn read(
        &self,
        calls: &Calls,
        cancelled: &CancellationToken,
    ) -> Result<String, CliError> {
        calls
            .run(cancelled, async |_| {
                let shared = self.open(calls).await?;
                let updates = shared.load_all().await?;
                let events = shared.last_events(&updates, MAX_EVENTS);
                Ok(events
                    .into_iter()
                    .map(|(account, event)| HookPayload::new(account, event).json() + "\n")
                    .collect())
            })
            .await
    }

    /// Whether the account is configured now.
    pub(super) async fn exists(&self, calls: &Calls) -> bool {
        let Some(account) = &self.0 else { return true };
        let config = calls.accounts().await;
        config.is_ok_and(|config| config.accounts.iter().any(|one| one.id == *account))
    }

    async fn open(&self, calls: &Calls) -> Result<ReadContext, CliError> {
        let mut config = calls.accounts().await?;
        if let Some(account) = &self.0 {
            config.accounts.retain(|one| one.id == *account);
        }
        if config.accounts.is_empty() {
            return Err(CliError::new(Exit::NoAccount, "the account is not configured"));
        }
        Ok(ReadContext::new(config, calls.store.clone()))
    }

    /// Calls `notify` after each new event, until it returns `false`.
    pub(super) async fn follow(&self, calls: &Calls, notify: impl AsyncFn() -> bool) {
        let clock = Clock::system();
        let mut known = None;
        loop {
            let Ok((next, wait)) = self.next(calls).await else {
                clock.sleep(RETRY_DELAY).await;
                continue;
            };
            let is_new = known.as_ref().is_some_and(|known| *known != next);
            known = Some(next);
            if is_new && !notify().await {
                return;
            }
            wait.await;
        }
    }

    /// The numbers of the next events, and a future that waits for new ones.
    async fn next(&self, calls: &Calls) -> Result<(Vec<u64>, BoxFuture<'static, ()>), CliError> {
        let shared = self.open(calls).await?;
        let updates = shared.load_all().await?;
        let next = updates.iter().map(|update| update.journal.next_number()).collect();
        let wait = |(update, account): (JournalUpdate, &AccountId)| {
            let (store, account) = (Arc::clone(&shared.store), account.clone());
            async move { wait_for_events(&*store, &account, &update).await }.boxed()
        };
        let accounts = shared.config.accounts.iter().map(|account| &account.id);
        let waits = select_all(updates.into_iter().zip(accounts).map(wait));
        Ok((next, waits.map(drop).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources_are_parsed() {
        let account = |uri| EventsUri::parse(uri).map(|uri| uri.0.map(|account| account.to_string()));

        assert_eq!(account("quota://events"), Some(None));
        assert_eq!(account("quota://events/anthropic/main"), Some(Some("anthropic/main".to_owned())));
        for bad in [
            "",
            "quota://",
            "quota://eventsx",
            "quota://events/",
            "quota://events/a",
            "quota://events/a/b/c",
            "file:///etc/passwd",
        ] {
            assert_eq!(account(bad), None, "{bad}");
        }
    }
}
