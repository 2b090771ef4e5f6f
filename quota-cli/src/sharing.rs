//! Whether what is found out can be shared, which is looked at before anybody is asked, or once a process goes on alone: where
//! the store takes nothing, not even a hold, every process would ask anew. What the store is, and how it is opened, is in
//! `gateway`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quota::{AccountUsage, Clock, QuotaStore, StoreError, StoreKey};

use crate::command_store::CommandStore;
use crate::gateway::{self, Store};
use crate::hint;
use crate::term;

/// Why nobody was asked.
pub(crate) fn not_asked(known: &AccountUsage) -> &'static str {
    match known.is_record_damaged() {
        true => "not refreshed: the record is damaged, and only --refresh calls the provider without one",
        false => "not asked: the store cannot be written",
    }
}

/// How long a store has to say that it takes nothing; one that says nothing is away, not refusing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it keeps what was written to see whether it can be: stores forget, and do not delete.
const KEPT: Duration = Duration::from_millis(1);

/// What is known of a store that takes nothing.
#[derive(Debug)]
pub(crate) struct Sharing {
    store: Arc<dyn QuotaStore>,
    used: Option<Arc<CommandStore>>,
    refused: Mutex<Option<StoreError>>,
    /// Whether a damaged record was reported.
    is_damage_reported: AtomicBool,
}

impl Sharing {
    pub(crate) fn on(store: &Store) -> Self {
        Self {
            store: Arc::clone(&store.store),
            used: store.used.clone(),
            refused: Mutex::default(),
            is_damage_reported: AtomicBool::new(false),
        }
    }

    /// Whether to leave it at what is known: there are numbers, and no new ones could be shared. To be called where the
    /// provider is about to be asked, for it writes.
    ///
    /// So it is for an account whose record is damaged, also without numbers: nothing would limit the calls of many commands.
    pub(crate) async fn leaves_it_at(&self, known: &AccountUsage) -> bool {
        if known.is_record_damaged() {
            return true;
        }
        known.store_unavailable_since().is_none()
            && self.is_refused().await
            && !known.snapshot().windows().is_empty()
    }

    /// Whether the store takes nothing, which is tried.
    pub(crate) async fn is_refused(&self) -> bool {
        let key = StoreKey::account_extension(&"quota/sharing".parse().expect("the name is valid"), "trial");
        let written = self.store.compare_and_swap(&key, None, Bytes::from_static(b"{}"), KEPT);
        let refused = match Clock::system().bounded(PATIENCE, written).await {
            Some(Err(error)) if !error.is_transient() => Some(error),
            // One that others have written just now can be written.
            _ => None,
        };
        let is_refused = refused.is_some();
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        is_refused
    }

    /// Tells whoever waits, if the store was last found to take nothing, or does not answer.
    pub(crate) fn tell<'a>(&self, answers: impl IntoIterator<Item = &'a AccountUsage>) {
        let answers: Vec<_> = answers.into_iter().collect();
        let is_damaged = answers.iter().any(|answer| answer.is_record_damaged());
        if is_damaged && !self.is_damage_reported.swap(true, Ordering::Relaxed) {
            term::eprint(&format!("quota: {}\n", damaged()));
        }
        // Damage was reported when it was found.
        let is_told = self.used.as_ref().is_some_and(|used| used.is_damaged());
        if let Some(told) = self.told(is_any_alone(answers)).filter(|_| !is_told) {
            term::eprint(&format!("quota: {told}\n"));
        }
    }

    /// What there is to tell, for where it is told in another way.
    pub(crate) fn told(&self, is_alone: bool) -> Option<String> {
        if let Some(error) = &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(told(error));
        }
        let last_error = || self.used.as_ref().and_then(|used| used.last_error());
        is_alone.then(|| match last_error() {
            Some(error) if !error.is_transient() => told(&error),
            Some(error) => away(&error),
            None => away_without_cause(),
        })
    }
}

/// The warning about a store that may answer again, and what the command cannot keep if it does not.
fn away(error: &StoreError) -> String {
    let why = match error {
        StoreError::Unavailable { reason: why, .. } => why.as_ref(),
        _ => "it failed",
    };
    format!(
        "the store does not answer ({why}), so nothing is shared with other processes; calls that this command makes count for others \
         only if it answers before the command ends"
    )
}

/// The warning about a record that cannot be decoded.
pub(crate) fn damaged() -> String {
    format!(
        "a stored record is damaged, so the usage of its account is not shared with other processes; {} names the account and the command \
         that replaces it",
        hint::command("doctor")
    )
}

fn away_without_cause() -> String {
    format!(
        "the store does not answer, so nothing is shared with other processes; {} says more",
        hint::command("doctor")
    )
}

/// Whether this process goes on without the store for one of them, and not only because a record is damaged.
pub(crate) fn is_any_alone<'a>(answers: impl IntoIterator<Item = &'a AccountUsage>) -> bool {
    answers
        .into_iter()
        .any(|answer| answer.store_unavailable_since().is_some() && !answer.is_record_damaged())
}

fn told(error: &StoreError) -> String {
    format!("nothing can be shared with other processes: {}", gateway::store_cause(error))
}

/// Tells whoever waits that the store takes nothing, and why.
pub(crate) fn tell(error: &StoreError) {
    term::eprint(&format!("quota: {}\n", told(error)));
}
