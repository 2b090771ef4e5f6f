//! The facts that the checker reads from stored documents. It reads the JSON, and shares no code with quota's stored
//! form.

use quota_core::store::Version;
use serde_json::Value;

/// The facts in a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) is_record: bool,
    pub(crate) version: u64,
    pub(crate) revision: u64,
    pub(crate) fence: u64,
    pub(crate) forgotten_ms: i64,
    pub(crate) login: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) serial: Option<u32>,
    pub(crate) owner: Option<String>,
    /// The fence and the end of the lease.
    pub(crate) lease: Option<(u64, i64)>,
    /// The fence of the last call that succeeded.
    pub(crate) succeeded: Option<u64>,
    pub(crate) cleared_fence: u64,
    pub(crate) hold: Option<HoldFacts>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HoldFacts {
    pub(crate) since_ms: i64,
    pub(crate) until_ms: i64,
    pub(crate) fingerprints: Vec<String>,
    /// The fence of the call that armed it.
    pub(crate) fence: u64,
    pub(crate) has_retry_after: bool,
}

impl Facts {
    /// Reads a stored body.
    pub(crate) fn of(version: Version, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let unsigned = |value: &Value| value.as_u64().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let hold = &document["hold"];
        let lease = &document["lease"];
        let windows = document["snapshot"]["windows"].as_array();
        let week = windows.into_iter().flatten().find(|window| window["id"] == "seven_day");
        Self {
            is_record: document.get("snapshot").is_some(),
            version: version.number(),
            revision: unsigned(&document["revision"]),
            fence: unsigned(&document["fence"]),
            forgotten_ms: number(&document["forgotten_ms"]),
            login: text(&document["login_id"]),
            owner: text(&document["owner_id"]),
            succeeded: document["succeeded"]["fence"].as_u64(),
            cleared_fence: unsigned(&document["cleared_fence"]),
            plan: text(&document["snapshot"]["plan"]["value"]),
            serial: week.and_then(|week| u32::try_from(unsigned(&week["used_bp"])).ok()),
            lease: lease.is_object().then(|| (unsigned(&lease["fence"]), number(&lease["until_ms"]))),
            hold: hold.is_object().then(|| HoldFacts {
                since_ms: number(&hold["since_ms"]),
                until_ms: number(&hold["until_ms"]),
                fingerprints: hold["calls"]["fingerprints"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(text)
                    .collect(),
                fence: unsigned(&hold["calls"]["fence"]),
                has_retry_after: hold.get("retry_after_ms").is_some(),
            }),
        }
    }
}
