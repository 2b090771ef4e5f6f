//! Whether the store can be written, and the warnings about a store that cannot be used.
//!
//! A command checks this before it calls a provider. If the store accepts no write, not even a hold, then each process would call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quota::store::{StoreError, StoreKey};
use quota::{AccountUsage, Clock, QuotaStore};

use crate::command_store::CommandStore;
use crate::hint;
use crate::store::{self, OpenedStore};
use crate::term;

/// How long the trial write may take. A store that does not answer is unavailable, not read-only.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the store keeps the trial document. Stores have no delete.
const PROBE_TTL: Duration = Duration::from_millis(1);

/// Why an account was not refreshed.
pub(crate) fn skip_reason(cached: &AccountUsage) -> &'static str {
    match cached.is_record_damaged() {
        true => "not refreshed: the record is damaged, and only --refresh calls the provider without one",
        false => "not refreshed: the store is read-only",
    }
}

/// Tries the store of a command, and reports what is wrong with it.
#[derive(Debug)]
pub(crate) struct StoreProbe {
    store: Arc<dyn QuotaStore>,
    used: Option<Arc<CommandStore>>,
    /// The error of the last trial write.
    write_error: Mutex<Option<StoreError>>,
    is_damage_reported: AtomicBool,
}

impl StoreProbe {
    pub(crate) fn new(store: &OpenedStore) -> Self {
        Self {
            store: Arc::clone(&store.store),
            used: store.used.clone(),
            write_error: Mutex::default(),
            is_damage_reported: AtomicBool::new(false),
        }
    }

    /// Whether to show the cached numbers instead of refreshing them: the store is read-only, so new numbers could not be shared.
    /// It writes to the store, so call it only if a refresh is due.
    ///
    /// An account with a damaged record is skipped even without numbers, because no record would limit the calls of many commands.
    pub(crate) async fn should_skip_refresh(&self, cached: &AccountUsage) -> bool {
        if cached.is_record_damaged() {
            return true;
        }
        cached.store_unavailable_since().is_none()
            && self.is_read_only().await
            && !cached.snapshot().windows().is_empty()
    }

    /// Tries to write, and returns whether the store refused it.
    pub(crate) async fn is_read_only(&self) -> bool {
        let key = StoreKey::account_extension(&"quota/probe".parse().expect("the name is valid"), "trial");
        let written = self.store.compare_and_swap(&key, None, Bytes::from_static(b"{}"), PROBE_TTL);
        let error = match Clock::system().bounded(WRITE_TIMEOUT, written).await {
            Some(Err(error)) if !error.is_transient() => Some(error),
            // A conflict means that another process has written.
            _ => None,
        };
        let is_read_only = error.is_some();
        *self.write_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        is_read_only
    }

    /// Prints a warning if the last trial write failed, the store does not answer, or a record is damaged.
    pub(crate) fn warn<'a>(&self, accounts: impl IntoIterator<Item = &'a AccountUsage>) {
        let accounts: Vec<_> = accounts.into_iter().collect();
        let is_damaged = accounts.iter().any(|account| account.is_record_damaged());
        if is_damaged && !self.is_damage_reported.swap(true, Ordering::Relaxed) {
            term::eprint(&format!("quota: {}\n", damage_warning()));
        }
        // A damaged file was reported when it was found.
        let is_reported = self.used.as_ref().is_some_and(|used| used.is_damaged());
        if let Some(warning) = self.warning(is_any_standalone(accounts)).filter(|_| !is_reported) {
            term::eprint(&format!("quota: {warning}\n"));
        }
    }

    /// The warning, for a command that does not print it to standard error.
    pub(crate) fn warning(&self, is_standalone: bool) -> Option<String> {
        if let Some(error) = &*self.write_error.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(without_shared_store(error));
        }
        let last_error = || self.used.as_ref().and_then(|used| used.last_error());
        is_standalone.then(|| match last_error() {
            Some(error) if !error.is_transient() => without_shared_store(&error),
            Some(error) => unavailable(&error),
            None => unavailable_without_cause(),
        })
    }
}

/// The warning about a store that may answer later, and what is lost if it does not.
fn unavailable(error: &StoreError) -> String {
    let reason = match error {
        StoreError::Unavailable { reason, .. } => reason.as_ref(),
        _ => "it failed",
    };
    format!(
        "the store does not answer ({reason}), so nothing is shared with other processes; calls that this command makes count for others \
         only if it answers before the command ends"
    )
}

fn unavailable_without_cause() -> String {
    format!(
        "the store does not answer, so nothing is shared with other processes; for details run {}",
        hint::command("doctor")
    )
}

/// The warning about a record that cannot be decoded.
pub(crate) fn damage_warning() -> String {
    format!(
        "a stored record is damaged, so the usage of its account is not shared with other processes; {} names the account and the command \
         that replaces it",
        hint::command("doctor")
    )
}

/// Whether this process goes on without the store for one of them, and not only because a record is damaged.
pub(crate) fn is_any_standalone<'a>(accounts: impl IntoIterator<Item = &'a AccountUsage>) -> bool {
    accounts
        .into_iter()
        .any(|account| account.store_unavailable_since().is_some() && !account.is_record_damaged())
}

fn without_shared_store(error: &StoreError) -> String {
    format!("running without a shared store: {}", store::cause(error))
}

/// Prints the warning about a store that accepts no write.
pub(crate) fn warn_read_only(error: &StoreError) {
    term::eprint(&format!("quota: {}\n", without_shared_store(error)));
}
