//! What was last seen of an account, as far as a change of it is a happening.
//! Which happenings follow from two sights is in `derive`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use quota_core::{Hold, HoldReason, Record, TroubleKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What was seen of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sight {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lineage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    #[serde(rename = "asked_ms", with = "crate::moment::option", default)]
    pub(crate) asked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<SeenHold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<SeenTrouble>,
    #[serde(default)]
    pub(crate) windows: BTreeMap<String, SeenWindow>,
    /// What a newer program has seen besides; likewise below.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenHold {
    #[serde(rename = "since_ms", with = "crate::moment")]
    pub(crate) since: Timestamp,
    #[serde(rename = "until_ms", with = "crate::moment")]
    pub(crate) until: Timestamp,
    pub(crate) why: HoldReason,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenTrouble {
    #[serde(rename = "at_ms", with = "crate::moment")]
    pub(crate) at: Timestamp,
    pub(crate) kind: TroubleKind,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenWindow {
    #[serde(rename = "at_ms", with = "crate::moment")]
    pub(crate) at: Timestamp,
    pub(crate) used_bp: u32,
    /// Of the last reading that told one, as long as it lay ahead then.
    #[serde(rename = "resets_ms", with = "crate::moment::option", default)]
    pub(crate) resets_at: Option<Timestamp>,
    /// The last one that was told as a happening.
    #[serde(
        rename = "last_reset_ms",
        with = "crate::moment::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) last_reset: Option<Timestamp>,
    /// When a use that was lowered within the period was last reported as a reset.
    #[serde(
        rename = "lowered_ms",
        with = "crate::moment::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) lowered_at: Option<Timestamp>,
    #[serde(default, with = "crate::span", rename = "length_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<std::time::Duration>,
    /// The highest threshold that was passed and told in this period.
    #[serde(default)]
    pub(crate) level_bp: u32,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Sight {
    /// What there is to see of `record`, with the hold that is in force.
    pub(crate) fn of(record: &Record, hold: Option<&Hold>) -> Self {
        let windows = record.snapshot().windows().iter().map(|window| {
            let seen = SeenWindow {
                at: window.observed_at(),
                used_bp: window.used().basis_points(),
                resets_at: window.rolls_over_at(),
                last_reset: None,
                lowered_at: None,
                length: window.length(),
                level_bp: 0,
                unknown: Map::new(),
            };
            (window.id().as_str().to_owned(), seen)
        });
        Self {
            lineage: record.lineage().map(ToString::to_string),
            identity: record.identity().map(ToString::to_string),
            asked_at: record.asked_at(),
            hold: hold.map(|hold| SeenHold {
                since: hold.since,
                until: hold.until,
                why: hold.why,
                unknown: Map::new(),
            }),
            trouble: record.trouble().map(|trouble| SeenTrouble {
                at: trouble.at,
                kind: trouble.kind,
                unknown: Map::new(),
            }),
            windows: windows.collect(),
            unknown: Map::new(),
        }
    }

    /// Takes over what a newer program has said of the same things in `before`.
    pub(crate) fn keep_unknown(&mut self, before: &Self) {
        self.unknown.clone_from(&before.unknown);
        if let (Some(mine), Some(theirs)) = (&mut self.hold, &before.hold)
            && mine.since == theirs.since
        {
            mine.unknown.clone_from(&theirs.unknown);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.trouble, &before.trouble)
            && mine.at == theirs.at
        {
            mine.unknown.clone_from(&theirs.unknown);
        }
        for (id, window) in &mut self.windows {
            if let Some(theirs) = before.windows.get(id) {
                window.unknown.clone_from(&theirs.unknown);
            }
        }
    }

    /// Whether this is of another login than `before`. What is not said on either side contradicts nothing.
    pub(crate) fn is_of_another_login(&self, before: &Self) -> bool {
        let differ = |one: &Option<String>, other: &Option<String>| matches!((one, other), (Some(one), Some(other)) if one != other);
        differ(&self.lineage, &before.lineage) || differ(&self.identity, &before.identity)
    }

    /// The next moment at which time alone brings something about.
    pub(crate) fn next_moment(&self) -> Option<Timestamp> {
        let resets = self.windows.values().filter_map(|window| window.resets_at);
        resets.chain(self.hold.as_ref().map(|hold| hold.until)).min()
    }
}
