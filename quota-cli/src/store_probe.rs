//! Checks whether the store can be written, and warns about an unusable store.
//!
//! A command checks this before it calls a provider. If the store accepts no writes, it stores no holds, so every process would call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quota::outage::Outage;
use quota::store::{StoreError, StoreKey};
use quota::{AccountUsage, Clock, QuotaStore};

use crate::command_store::CommandStore;
use crate::format::LocalTime;
use crate::hint;
use crate::store::{self, OpenedStore};
use crate::term;

/// The timeout of the trial write. A store that does not respond is unavailable, not read-only.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the store keeps the trial document. Stores have no delete operation.
const PROBE_TTL: Duration = Duration::from_millis(1);

/// The warning about the memory store that replaces the default file.
pub(crate) const NO_HOME: &str = "running without a shared store: neither XDG_STATE_HOME nor HOME is set";

/// Why an account was not refreshed.
pub(crate) fn skip_reason(cached: &AccountUsage) -> &'static str {
    match cached.is_record_damaged() {
        true => "not refreshed: the record is damaged; use --refresh to call the provider anyway",
        false => "not refreshed: the store is read-only",
    }
}

/// Tries to write to the store of a command, and reports problems with it.
#[derive(Debug)]
pub(crate) struct StoreProbe {
    store: Arc<dyn QuotaStore>,
    used: Option<Arc<CommandStore>>,
    opened: OpenedStore,
    /// The error of the last trial write.
    write_error: Mutex<Option<StoreError>>,
    is_damage_reported: AtomicBool,
}

impl StoreProbe {
    pub(crate) fn new(store: &OpenedStore) -> Self {
        Self {
            store: Arc::clone(&store.store),
            used: store.used.clone(),
            opened: store.clone(),
            write_error: Mutex::default(),
            is_damage_reported: AtomicBool::new(false),
        }
    }

    /// Whether to show cached usage without a refresh, because the store is read-only and new usage could not be shared.
    /// This writes to the store, so call it only if a refresh is due.
    ///
    /// An account with a damaged record is skipped even without cached usage, because without a record nothing limits the calls.
    pub(crate) async fn should_skip_refresh(&self, cached: &AccountUsage) -> bool {
        if cached.is_record_damaged() {
            return true;
        }
        cached.store_unavailable_since().is_none()
            && self.is_read_only().await
            && !cached.snapshot().windows().is_empty()
    }

    /// Tries to write, and returns whether the store rejected the write.
    pub(crate) async fn is_read_only(&self) -> bool {
        let key = StoreKey::account_extension(&"quota/probe".parse().expect("the name is valid"), "trial");
        let written = self.store.compare_and_swap(&key, None, Bytes::from_static(b"{}"), PROBE_TTL);
        let error = match Clock::system().bounded(WRITE_TIMEOUT, written).await {
            Some(Err(error)) if !error.is_transient() => Some(error),
            // A compare-and-swap conflict means that another process wrote, so the store is writable.
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
        // `CommandStore` has already reported a damaged file.
        let is_reported = self.used.as_ref().is_some_and(|used| used.is_damaged());
        if let Some(warning) = self.warning(is_any_standalone(accounts)).filter(|_| !is_reported) {
            if let Some(used) = &self.used {
                used.set_reported();
            }
            term::eprint(&format!("quota: {warning}\n"));
        }
    }

    /// Whether the command ran during an outage.
    pub(crate) fn is_outage(&self) -> bool {
        self.opened.outage().is_some()
    }

    /// The warning about the store, for a command that shows it on its own screen.
    pub(crate) fn warning(&self, is_standalone: bool) -> Option<String> {
        if let Some(outage) = self.opened.outage() {
            return Some(outage_warning(&outage, &LocalTime::now()));
        }
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

/// The warning about an outage: since when, why, and when the next attempt follows.
pub(crate) fn outage_warning(outage: &Outage, local: &LocalTime) -> String {
    let Outage { since, retry_at, reason, is_partial, .. } = outage;
    let store = if *is_partial { "a part of the shared store" } else { "the shared store" };
    match retry_at {
        Some(retry_at) => {
            let retry = match local.now < *retry_at {
                true => format!(
                    "next attempt {} ({})",
                    local.relative_only(*retry_at),
                    local.time_of_day_with_seconds(*retry_at)
                ),
                false => "next attempt by the next command".to_owned(),
            };
            let since = local.time_of_day_with_seconds(*since);
            format!("running without {store} since {since}: {reason}; {retry}")
        }
        None => format!(
            "running without the shared store: {reason}; no folder for a local file can be used either, so only --refresh calls the \
             provider"
        ),
    }
}

/// The warning about an unavailable store, with the consequence if it stays unavailable.
fn unavailable(error: &StoreError) -> String {
    let reason = match error {
        StoreError::Unavailable { reason, .. } => reason.as_ref(),
        _ => "it failed",
    };
    format!(
        "running without a shared store: the store does not answer ({reason}); other processes do not count this command's calls \
         unless the store answers before the command ends"
    )
}

fn unavailable_without_cause() -> String {
    format!(
        "running without a shared store: the store does not answer; for details run {}",
        hint::command("doctor")
    )
}

/// The warning about a record that cannot be decoded.
pub(crate) fn damage_warning() -> String {
    format!(
        "a stored record is damaged, so the usage of its account is not shared with other processes; {} shows the account and the command \
         that replaces the record",
        hint::command("doctor")
    )
}

/// Whether this process runs without the store for any of the accounts, for a reason other than a damaged record.
pub(crate) fn is_any_standalone<'a>(accounts: impl IntoIterator<Item = &'a AccountUsage>) -> bool {
    accounts
        .into_iter()
        .any(|account| account.store_unavailable_since().is_some() && !account.is_record_damaged())
}

fn without_shared_store(error: &StoreError) -> String {
    format!("running without a shared store: {}", store::cause(error))
}

/// Prints the warning about a read-only store.
pub(crate) fn warn_read_only(error: &StoreError) {
    term::eprint(&format!("quota: {}\n", without_shared_store(error)));
}
