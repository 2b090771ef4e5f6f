//! Merges the documents of an outage into the store: records and cooldowns by their own rules. Other documents are
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::record::{MergeOutcome, ProviderCooldown, Record};
use crate::store::update::{Change, Trips, run, update_through};
use crate::store::{Outcome, Start, StoreError, StoreKey, StoreRead};

/// How a document is handled during and after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The record of an account. Its calls, holds and readings are merged.
    Record,
    /// The cooldown of a provider. The later end wins.
    Cooldown,
    /// A lease, a claim or a reservation, which the processes of this machine share during the outage. It is dropped at
    /// the end, because it expires within minutes, and the merged record contains the lease and the calls. An alias is
    /// dropped too, because the next refresh writes it again.
    Temporary,
    /// A document that may exist only in the store. A journal in the file would report the same event a second time
    /// after the outage. Its events are derived from the merged record instead.
    OnlyInStore,
}

/// The extensions whose documents are only in the store.
const ONLY_IN_STORE: [&str; 1] = ["journal"];

impl Kind {
    pub(super) fn of(key: &StoreKey) -> Self {
        match key.as_str().rsplit_once('#') {
            Some((_, record)) if record.starts_with("login:") => Self::Record,
            Some((_, extension)) if ONLY_IN_STORE.contains(&extension) => Self::OnlyInStore,
            Some(_) => Self::Temporary,
            None if *key == StoreKey::probe() => Self::Temporary,
            None if key.as_str().contains('/') => Self::Record,
            None => Self::Cooldown,
        }
    }

    /// Whether the document is merged into the store after the outage.
    pub(super) fn is_merged(self) -> bool {
        matches!(self, Self::Record | Self::Cooldown)
    }
}

/// Merges `body` into the document of `key`, and returns whether that changed it. Merging it twice has no effect.
/// `shift_ms` is how far the clock of this document is ahead of the clock of `body`.
///
/// A damaged document is not merged, because the account makes no calls anyway until a user replaces its record. A
/// document of this program is also not merged into one that a newer program wrote. This program makes no calls for
/// such a record, but would not notice that if the record stayed in the file.
///
/// # Errors
///
/// [`StoreError::Rejected`] if a newer program wrote `body`, which then stays in the file for that program. Otherwise
/// any error of the store.
pub(super) async fn merge(
    trips: &impl Trips,
    key: &StoreKey,
    body: &[u8],
    ttl: Duration,
    shift_ms: i64,
) -> Result<bool, StoreError> {
    let newer = || StoreError::rejected(format!("a newer program wrote the document {key}"));
    let merged = match Kind::of(key) {
        Kind::Record => {
            let Ok(mut local) = Record::decode(body) else { return Ok(false) };
            if !local.is_writable() {
                return Err(newer());
            }
            local.shift_limits(shift_ms);
            let merged = run(trips, key, Start::Read, ttl, &mut MergeRecord { local }).await;
            merged.map(|merged| {
                if merged.value == MergeOutcome::UnsupportedFormat {
                    superseded(key);
                }
                merged.outcome
            })
        }
        Kind::Cooldown => match ProviderCooldown::decode(body) {
            Ok(local) if local.is_writable() => {
                let local = local.shifted(shift_ms);
                let extend = |shared: &mut ProviderCooldown, now| {
                    if let Some(hold) = local.at(now) {
                        shared.extend(now, &hold);
                    }
                    shared.is_writable()
                };
                let merged = update_through(trips, key, Start::Read, ttl, extend).await;
                merged.map(|merged| {
                    if !merged.value {
                        superseded(key);
                    }
                    merged.outcome
                })
            }
            Ok(_) => Err(newer()),
            Err(_) => return Ok(false),
        },
        Kind::Temporary | Kind::OnlyInStore => return Ok(false),
    };
    match merged {
        Err(StoreError::Corrupt { reason, .. }) => {
            tracing::warn!(%key, %reason, "damaged document left unchanged, the outage's copy was not merged");
            Ok(false)
        }
        merged => merged.map(|outcome| outcome != Outcome::Unchanged),
    }
}

fn superseded(key: &StoreKey) {
    tracing::warn!(%key, "document of a newer program left unchanged, the outage's copy was not merged");
}

/// This document with its limits moved by `shift_ms`. A damaged document, or one of a newer program, stays unchanged.
pub(super) fn shifted(key: &StoreKey, body: &Bytes, shift_ms: i64) -> Bytes {
    if shift_ms == 0 {
        return body.clone();
    }
    let shifted = match Kind::of(key) {
        Kind::Record => Record::decode(body).ok().filter(Record::is_writable).map(|mut record| {
            record.shift_limits(shift_ms);
            record.encode()
        }),
        Kind::Cooldown => ProviderCooldown::decode(body)
            .ok()
            .filter(ProviderCooldown::is_writable)
            .map(|cooldown| cooldown.shifted(shift_ms).encode()),
        Kind::Temporary | Kind::OnlyInStore => None,
    };
    shifted.unwrap_or_else(|| body.clone())
}

/// Merges a copy of a record.
struct MergeRecord {
    local: Record,
}

impl Change for MergeRecord {
    type Document = Record;
    type Output = MergeOutcome;

    fn decode(&mut self, found: &StoreRead) -> Result<Arc<Record>, StoreError> {
        let Some(document) = &found.document else { return Ok(Arc::default()) };
        let damaged = |error| StoreError::corrupt("the record is damaged").with_source(error);
        Record::decode(&document.body).map(Arc::new).map_err(damaged)
    }

    fn decide(&mut self, record: &mut Record, now: Timestamp) -> MergeOutcome {
        record.merge_standalone(now, &self.local, None)
    }

    fn encode(&mut self, record: &mut Record) -> Bytes {
        record.shrink();
        record.bump_revision();
        record.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_key_decides_how_it_is_merged() {
        let account: crate::AccountId = "anthropic/main".parse().unwrap();

        for (key, kind) in [
            (StoreKey::account(&account), Kind::Record),
            (StoreKey::login(account.provider(), &crate::model::LoginId::new("someone")), Kind::Record),
            (StoreKey::account_extension(&account, "login"), Kind::Temporary),
            (StoreKey::provider(account.provider()), Kind::Cooldown),
            (StoreKey::account_extension(&account, "reservations"), Kind::Temporary),
            (StoreKey::account_extension(&account, "journal"), Kind::OnlyInStore),
            (StoreKey::probe(), Kind::Temporary),
        ] {
            assert_eq!(Kind::of(&key), kind, "{key}");
        }
    }
}
