//! The stored form of a record: JSON in an envelope with a format number.
//! Unknown fields are preserved. A record of a higher format is read but never written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ended_call::SucceededCall;
use super::{CallRecord, Hold, LastFailure, Lease, Record};
use crate::model::extra_fields::ExtraFields;
use crate::model::login::RecordOwner;
use crate::model::{CredentialFingerprint, Snapshot};
use crate::store::format_of;
use crate::time::{self, UnixMillis};

/// The format number of a record. It rises when the form of a field or the meaning of other fields changes.
///
/// In format 1 calls have no fence. Format 2 adds it. Format 3 renames fields and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Format(u32);

impl Format {
    const CURRENT: Self = Self(3);
}

impl Default for Format {
    fn default() -> Self {
        Self::CURRENT
    }
}

/// A stored document that is damaged or not a record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the stored document is damaged or is not a quota document")]
pub struct DecodeError {
    pub(crate) source: Arc<serde_json::Error>,
}

impl Record {
    /// Encodes the record for a store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let stored = Stored {
            format: self.format,
            owner: self.owner.clone(),
            fence: self.fence,
            revision: self.revision,
            lease: self.lease.clone(),
            hold: self.hold.clone(),
            rate_limit_streak: self.rate_limit_streak,
            failures: self.failures,
            streak_fence: self.streak_fence,
            cleared_fence: self.cleared_fence,
            last_failure: self.last_failure.clone(),
            unscoped: self.unscoped().to_vec(),
            calls: group(&self.calls),
            given_back: group(self.given_back()),
            succeeded: self.succeeded.clone(),
            failed: self.failed.clone(),
            refreshed_at: self.refreshed_at,
            refreshed_with: self.refreshed_with,
            forgotten_at: self.forgotten_at,
            snapshot: self.snapshot.clone(),
            unknown: self.unknown.clone(),
        };
        let body = serde_json::to_vec(&stored).expect("a record has only string keys");
        // Copy the body, so that a memory store keeps neither spare capacity nor a fragmented allocation.
        Bytes::copy_from_slice(&body)
    }

    /// Decodes a stored record.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the document is not a record. Leave the document unchanged, so that a user can inspect it.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let stored = match parse(body) {
            Ok(stored) => stored,
            Err(error) => {
                return Self::opaque_newer(body).ok_or(DecodeError { source: Arc::new(error) });
            }
        };
        let mut hold = stored.hold;
        hold.iter_mut().for_each(|hold| hold.shorten());
        let mut record = Self {
            // A record of an older format counts as the current format, and its next change is written in that format.
            format: stored.format.max(Format::CURRENT),
            owner: stored.owner,
            fence: stored.fence,
            revision: stored.revision,
            lease: stored.lease,
            hold,
            rate_limit_streak: stored.rate_limit_streak,
            failures: stored.failures,
            streak_fence: stored.streak_fence,
            cleared_fence: stored.cleared_fence,
            last_failure: stored.last_failure,
            unscoped: Some(stored.unscoped).filter(|rejections| !rejections.is_empty()).map(Box::new),
            calls: ungroup(stored.calls),
            given_back: Some(ungroup(stored.given_back)).filter(|calls| !calls.is_empty()).map(Box::new),
            succeeded: stored.succeeded,
            failed: stored.failed,
            refreshed_at: stored.refreshed_at,
            refreshed_with: stored.refreshed_with,
            forgotten_at: stored.forgotten_at,
            snapshot: stored.snapshot,
            unknown: stored.unknown,
        };
        record.apply_lists();
        Ok(record)
    }

    /// A read-only placeholder for a record of a newer format that this program cannot parse.
    fn opaque_newer(body: &[u8]) -> Option<Self> {
        let format = Format(format_of(body)?);
        (format > Format::CURRENT).then(|| Self { format, ..Self::default() })
    }

    /// Whether this program may change the record. It must not if a newer program wrote it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.format <= Format::CURRENT
    }
}

fn parse(body: &[u8]) -> Result<Stored, serde_json::Error> {
    match serde_json::from_slice::<Stored>(body) {
        Ok(stored) if stored.format >= Format::CURRENT => Ok(stored),
        _ if format_of(body).is_some_and(|format| Format(format) < Format::CURRENT) => {
            let mut older = serde_json::from_slice(body)?;
            rename_older(&mut older);
            serde_json::from_value(older)
        }
        parsed => parsed,
    }
}

/// Renames the fields and words of formats 1 and 2 to those of format 3.
fn rename_older(record: &mut Value) {
    // The containing object, the old name and the new name.
    const FIELDS: [(&str, &str, &str); 13] = [
        ("", "lineage", "login_id"),
        ("", "identity", "owner_id"),
        ("", "strikes", "rate_limit_streak"),
        ("", "trouble", "last_failure"),
        ("", "attempts_ms", "calls_ms"),
        ("", "refreshed_mark", "refreshed_with"),
        ("/lease", "mark", "fingerprint"),
        ("/hold", "why", "reason"),
        ("/last_failure", "note", "message"),
        ("/last_failure", "mark", "fingerprint"),
        ("/snapshot", "horizon", "watermark"),
        ("/snapshot/watermark", "apart", "exceptions"),
        ("/snapshot/watermark/exceptions", "$money", "$credits"),
    ];
    const WORDS: [(&str, &str, &str); 3] = [
        ("/hold/reason", "neighbour_rate_limited", "provider_rate_limited"),
        ("/hold/reason", "budget_spent", "budget_exhausted"),
        ("/last_failure/kind", "login_refused", "unauthorized"),
    ];
    for (object, old, new) in FIELDS {
        rename(record.pointer_mut(object), old, new);
    }
    for failure in record.pointer_mut("/unscoped").and_then(Value::as_array_mut).into_iter().flatten() {
        rename(Some(&mut *failure), "note", "message");
        rename(Some(failure), "mark", "fingerprint");
    }
    for (field, old, new) in WORDS {
        if let Some(word) = record.pointer_mut(field).filter(|word| *word == old) {
            *word = new.into();
        }
    }
}

fn rename(object: Option<&mut Value>, old: &str, new: &str) {
    if let Some(fields) = object.and_then(Value::as_object_mut)
        && let Some(value) = fields.remove(old)
    {
        fields.insert(new.to_owned(), value);
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: Format,
    #[serde(flatten)]
    owner: RecordOwner,
    #[serde(default)]
    fence: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Box<Lease>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Box<Hold>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    rate_limit_streak: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    streak_fence: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    cleared_fence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_failure: Option<Box<LastFailure>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unscoped: Vec<LastFailure>,
    /// Grouped by caller, so that each name is written once.
    #[serde(rename = "calls_ms", default, skip_serializing_if = "BTreeMap::is_empty")]
    calls: BTreeMap<Arc<str>, Vec<Call>>,
    #[serde(rename = "given_back_ms", default, skip_serializing_if = "BTreeMap::is_empty")]
    given_back: BTreeMap<Arc<str>, Vec<Call>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    succeeded: Option<Box<SucceededCall>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Box<LastFailure>>,
    #[serde(rename = "refreshed_ms", default, skip_serializing_if = "Option::is_none")]
    refreshed_at: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refreshed_with: Option<CredentialFingerprint>,
    #[serde(rename = "forgotten_ms", default, skip_serializing_if = "Option::is_none")]
    forgotten_at: Option<UnixMillis>,
    #[serde(default)]
    snapshot: Snapshot,
    #[serde(flatten)]
    unknown: ExtraFields,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// A call in the list of its caller: its time in milliseconds, and the fence of its lease, which is usually the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Call {
    /// The fence equals the time. Format 1 writes all calls this way, regardless of their fence.
    At(i64),
    /// The time, and how much the fence exceeds it.
    WithOffset(i64, u64),
}

impl From<&CallRecord> for Call {
    fn from(call: &CallRecord) -> Self {
        let ms = call.at.as_millisecond();
        match call.fence.wrapping_sub(ms.cast_unsigned()) {
            0 => Self::At(ms),
            offset => Self::WithOffset(ms, offset),
        }
    }
}

impl Call {
    fn by(self, by: Arc<str>) -> CallRecord {
        let (Self::At(ms) | Self::WithOffset(ms, _)) = self;
        let offset = if let Self::WithOffset(_, offset) = self { offset } else { 0 };
        CallRecord { at: time::from_ms(ms), fence: ms.cast_unsigned().wrapping_add(offset), by }
    }
}

fn group(calls: &[CallRecord]) -> BTreeMap<Arc<str>, Vec<Call>> {
    let mut by_caller = BTreeMap::<_, Vec<_>>::new();
    for call in calls {
        by_caller.entry(Arc::clone(&call.by)).or_default().push(call.into());
    }
    by_caller
}

fn ungroup(by_caller: BTreeMap<Arc<str>, Vec<Call>>) -> Vec<CallRecord> {
    let of = |(by, calls): (Arc<str>, Vec<Call>)| calls.into_iter().map(move |call| call.by(Arc::clone(&by)));
    let mut calls: Vec<_> = by_caller.into_iter().flat_map(of).collect();
    calls.sort_unstable();
    calls
}
