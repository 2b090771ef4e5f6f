//! The part of a record whose changes are events, as the journal last observed it. `diff` decides which events follow from two
//! observations.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use quota_core::clock::is_from_future;
use quota_core::record::{Hold, HoldReason, LastFailureKind, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An observation of an account's record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Observation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    #[serde(rename = "refreshed_ms", with = "millisecond::optional", default)]
    pub(crate) refreshed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<ObservedHold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<ObservedFailure>,
    #[serde(default)]
    pub(crate) windows: BTreeMap<String, ObservedWindow>,
    /// Fields that a newer program wrote. The same field exists in the structs below.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ObservedHold {
    #[serde(rename = "since_ms", with = "millisecond::required")]
    pub(crate) since: Timestamp,
    #[serde(rename = "until_ms", with = "millisecond::required")]
    pub(crate) until: Timestamp,
    pub(crate) reason: HoldReason,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ObservedFailure {
    #[serde(rename = "at_ms", with = "millisecond::required")]
    pub(crate) at: Timestamp,
    pub(crate) kind: LastFailureKind,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ObservedWindow {
    #[serde(rename = "at_ms", with = "millisecond::required")]
    pub(crate) at: Timestamp,
    pub(crate) used_bp: u32,
    /// The reset of the last reading that had one, if it was in the future at that time.
    #[serde(rename = "resets_ms", with = "millisecond::optional", default)]
    pub(crate) resets_at: Option<Timestamp>,
    /// The time of the last reset event.
    #[serde(
        rename = "last_reset_ms",
        with = "millisecond::optional",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) last_reset: Option<Timestamp>,
    /// When the journal last recorded that the provider had lowered the usage within the period.
    #[serde(
        rename = "lowered_ms",
        with = "millisecond::optional",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) lowered_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length_ms: Option<u64>,
    /// The highest threshold that was crossed in this period.
    #[serde(default)]
    pub(crate) last_threshold_bp: u32,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Observation {
    /// Observes `record`, with the hold that is active. Timestamps from the future come from a wrong clock and are omitted.
    pub(crate) fn new(record: &Record, hold: Option<&Hold>, now: Timestamp) -> Self {
        let is_plausible = |at| !is_from_future(at, now);
        let windows = record.snapshot().windows().iter();
        let windows = windows.filter(|window| is_plausible(window.observed_at())).map(|window| {
            let length = window.length().map(|length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
            let observed = ObservedWindow {
                at: window.observed_at(),
                used_bp: window.used().basis_points(),
                resets_at: window.expires_at(),
                last_reset: None,
                lowered_at: None,
                length_ms: length,
                last_threshold_bp: 0,
                unknown: Map::new(),
            };
            (window.id().as_str().to_owned(), observed)
        });
        Self {
            login: record.login_id().map(ToString::to_string),
            owner: record.owner_id().map(ToString::to_string),
            refreshed_at: record.complete_at().filter(|at| is_plausible(*at)),
            hold: hold.filter(|hold| is_plausible(hold.since)).map(|hold| ObservedHold {
                since: hold.since,
                until: hold.until,
                reason: hold.reason,
                unknown: Map::new(),
            }),
            failure: record
                .last_failure()
                .filter(|failure| is_plausible(failure.at))
                .map(|failure| ObservedFailure { at: failure.at, kind: failure.kind, unknown: Map::new() }),
            windows: windows.collect(),
            unknown: Map::new(),
        }
    }

    /// Drops timestamps from the future. A hold restarts with its full length, as in `Record::repair_clock`.
    pub(crate) fn repair_clock(&mut self, now: Timestamp) {
        let is_from_future = |at| is_from_future(at, now);
        self.refreshed_at.take_if(|at| is_from_future(*at));
        self.failure.take_if(|failure| is_from_future(failure.at));
        if let Some(hold) = self.hold.as_mut().filter(|hold| is_from_future(hold.since)) {
            hold.until = now.saturating_add(hold.until.duration_since(hold.since)).unwrap_or(hold.until);
            hold.since = now;
        }
        for window in self.windows.values_mut() {
            if is_from_future(window.at) {
                // Keep the window with its thresholds, so that none is reported again. Any reading is newer than 1970.
                window.at = Timestamp::UNIX_EPOCH;
            }
            window.last_reset.take_if(|at| is_from_future(*at));
            window.lowered_at.take_if(|at| is_from_future(*at));
        }
    }

    /// Copies the fields that a newer program wrote for the same objects in `before`.
    pub(crate) fn copy_unknown_fields(&mut self, before: &Self) {
        self.unknown.clone_from(&before.unknown);
        if let (Some(hold), Some(earlier)) = (&mut self.hold, &before.hold)
            && hold.since == earlier.since
        {
            hold.unknown.clone_from(&earlier.unknown);
        }
        if let (Some(failure), Some(earlier)) = (&mut self.failure, &before.failure)
            && failure.at == earlier.at
        {
            failure.unknown.clone_from(&earlier.unknown);
        }
        for (id, window) in &mut self.windows {
            if let Some(earlier) = before.windows.get(id) {
                window.unknown.clone_from(&earlier.unknown);
            }
        }
    }

    /// Whether this observation is of a different login than `before`. An id that is missing on one side does not count as
    /// different.
    pub(crate) fn is_other_login(&self, before: &Self) -> bool {
        let differ = |one: &Option<String>, other: &Option<String>| matches!((one, other), (Some(one), Some(other)) if one != other);
        differ(&self.login, &before.login) || differ(&self.owner, &before.owner)
    }

    /// The next time at which an event can happen without a change to the record.
    pub(crate) fn next_change_at(&self) -> Option<Timestamp> {
        let resets = self.windows.values().filter_map(|window| window.resets_at);
        resets.chain(self.hold.as_ref().map(|hold| hold.until)).min()
    }
}

impl ObservedWindow {
    pub(crate) fn length(&self) -> Option<Duration> {
        self.length_ms.map(Duration::from_millis)
    }
}
