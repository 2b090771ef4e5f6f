//! The JSON of an event, for hooks and for readers of `quota events --json`. docs/events.md describes it.

use jiff::Timestamp;
use quota_core::{AccountId, HoldReason, TroubleKind};
use serde::Serialize;

use crate::happening::{Happening, What};

const VERSION: u32 = 1;

/// A happening for programs. Every field is always there.
#[derive(Debug, Clone, Serialize)]
pub struct Note<'a> {
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
    why: Option<Why>,
}

/// Why nobody may ask, or what a call failed by.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Why {
    Hold(HoldReason),
    Trouble(TroubleKind),
}

impl<'a> Note<'a> {
    /// The event of this account as hooks get it.
    #[must_use]
    pub fn of(account: &'a AccountId, happening: &'a Happening) -> Self {
        let percent = |basis_points: u32| f64::from(basis_points) / 100.0;
        let mut note = Self {
            version: VERSION,
            id: format!("{account}:{}", happening.id()),
            account: account.as_str(),
            at: rfc3339(happening.at),
            kind: happening.what.kind(),
            window: happening.what.window(),
            used_percent: None,
            threshold_percent: None,
            direction: None,
            until: None,
            why: None,
        };
        match &happening.what {
            What::Threshold { threshold_bp, used_bp, direction, .. } => {
                note.used_percent = Some(percent(*used_bp));
                note.threshold_percent = Some(percent(*threshold_bp));
                note.direction = Some(direction.as_str());
            }
            What::Throttled { until } => {
                note.until = Some(rfc3339(*until));
                note.why = Some(Why::Hold(HoldReason::RateLimited));
            }
            What::Held { until, why } => {
                note.until = Some(rfc3339(*until));
                note.why = Some(Why::Hold(*why));
            }
            What::Failing { why } => note.why = Some(Why::Trouble(*why)),
            _ => {}
        }
        note
    }

    /// One line of JSON, without a line break.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("it has only text keys")
    }

    /// The same for a command's environment.
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

/// The time in UTC with whole seconds.
fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
