//! The JSON of an event, for hooks and for readers of `quota events --json`. docs/events.md describes it.

use jiff::Timestamp;
use quota_core::AccountId;
use quota_core::record::{HoldReason, LastFailureKind};
use serde::Serialize;

use crate::event::{EventKind, JournalEvent};

const VERSION: u32 = 2;

/// The JSON of an event. Every field is always present.
#[derive(Debug, Clone, Serialize)]
pub struct HookPayload<'a> {
    version: u32,
    id: String,
    account: &'a str,
    at: String,
    kind: &'static str,
    window: Option<&'a str>,
    used_percent: Option<f64>,
    threshold_percent: Option<f64>,
    direction: Option<&'static str>,
    until: Option<String>,
    reason: Option<Reason>,
}

/// The reason for a hold, or the kind of a failed call.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Reason {
    Hold(HoldReason),
    Failure(LastFailureKind),
}

impl<'a> HookPayload<'a> {
    /// Creates the payload for an event of this account.
    #[must_use]
    pub fn new(account: &'a AccountId, event: &'a JournalEvent) -> Self {
        let percent = |basis_points: u32| f64::from(basis_points) / 100.0;
        let mut payload = Self {
            version: VERSION,
            id: format!("{account}:{}", event.id()),
            account: account.as_str(),
            at: rfc3339(event.at),
            kind: event.kind.as_str(),
            window: event.kind.window(),
            used_percent: None,
            threshold_percent: None,
            direction: None,
            until: None,
            reason: None,
        };
        match &event.kind {
            EventKind::Threshold { threshold_bp, used_bp, direction, .. } => {
                payload.used_percent = Some(percent(*used_bp));
                payload.threshold_percent = Some(percent(*threshold_bp));
                payload.direction = Some(direction.as_str());
            }
            EventKind::Throttled { until } => {
                payload.until = Some(rfc3339(*until));
                payload.reason = Some(Reason::Hold(HoldReason::RateLimited));
            }
            EventKind::Held { until, reason } => {
                payload.until = Some(rfc3339(*until));
                payload.reason = Some(Reason::Hold(*reason));
            }
            EventKind::Failing { reason } => payload.reason = Some(Reason::Failure(*reason)),
            _ => {}
        }
        payload
    }

    /// Returns one line of JSON, without a line break.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("all keys are strings")
    }

    /// Returns the payload as environment variables for a command.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![
            ("QUOTA_EVENT", self.kind.to_owned()),
            ("QUOTA_EVENT_ID", self.id.clone()),
            ("QUOTA_ACCOUNT", self.account.to_owned()),
            ("QUOTA_AT", self.at.clone()),
            ("QUOTA_WINDOW", text(self.window)),
            ("QUOTA_USED_PERCENT", number(self.used_percent)),
            ("QUOTA_THRESHOLD_PERCENT", number(self.threshold_percent)),
            ("QUOTA_DIRECTION", text(self.direction)),
            ("QUOTA_UNTIL", text(self.until.as_deref())),
        ]
    }
}

/// The time in UTC, in whole seconds.
fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
