//! The JSON report of `quota parse`: the parsed usage, and the names of skipped fields.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use quota::model::{Coverage, LimitStatus, OwnerId, Scope, WindowStatus};
use quota::{UsageReport, WindowId};
use serde::Serialize;

use crate::format::rfc3339;
use crate::view::account_json::{CreditsJson, ScopeJson};
use crate::view::json;

/// The result of parsing a response.
#[derive(Debug)]
pub(super) struct ParseReport {
    pub(super) kind: &'static str,
    pub(super) usage: UsageReport,
    /// The user, if the response names one in addition to the owner.
    pub(super) user: Option<String>,
    /// The time of the readings, if the response states one.
    pub(super) observed_at: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
    pub(super) ignored: Vec<(String, &'static str)>,
}

impl ParseReport {
    /// Creates a report of this kind.
    pub(super) fn new(kind: &'static str, usage: UsageReport) -> Self {
        Self { kind, usage, user: None, observed_at: None, retry_after: None, ignored: Vec::new() }
    }

    /// Removes implausible values from a response that was saved before `now`, and lists them as ignored.
    pub(super) fn without_implausible(mut self, now: Timestamp) -> Self {
        let rejected = self.usage.reject_implausible_saved(now);
        self.ignored.extend(rejected.iter().map(|rejected| (rejected.field(), rejected.reason)));
        self
    }

    /// Whether the response contains neither usage nor an owner.
    pub(super) fn is_empty(&self) -> bool {
        let usage = &self.usage;
        let has_no_usage = usage.is_empty() && usage.window_statuses.is_empty() && usage.owner_id.is_none();
        has_no_usage && self.user.is_none() && self.retry_after.is_none()
    }

    /// Renders the JSON with a final line break.
    pub(super) fn render(&self) -> String {
        let usage = &self.usage;
        let document = ParseJson {
            kind: self.kind,
            windows: self.windows(),
            window_statuses: usage.window_statuses.iter().map(WindowStatusJson::of).collect(),
            plan: usage.plan.as_deref(),
            credits: usage.credits.as_ref().map(CreditsJson::of),
            owner_id: usage.owner_id.as_ref().map(OwnerId::as_str),
            user: self.user.as_deref(),
            observed_at: self.observed_at.map(rfc3339),
            retry_after_seconds: self.retry_after.map(|wait| wait.as_secs_f64()),
            ignored: self.ignored.iter().map(|(field, reason)| IgnoredJson { field, reason }).collect(),
        };
        json::pretty(&document)
    }

    /// The windows with a reading, then those with only a status, then those that could not be parsed.
    fn windows(&self) -> Vec<ParsedWindowJson<'_>> {
        let usage = &self.usage;
        let status_of = |id: &WindowId| usage.window_statuses.iter().find(|status| status.window == *id);
        let mut listed = BTreeSet::new();
        let mut windows = Vec::new();
        for window in &usage.windows {
            listed.insert(&window.id);
            windows.push(ParsedWindowJson {
                id: &window.id,
                used_percent: (!window.is_unlimited).then(|| window.used.as_f64()),
                unlimited: window.is_unlimited,
                resets_at: window.resets_at.map(rfc3339),
                scope: window.scope.as_ref().map(ScopeJson::of),
                length_seconds: window.length.map(|length| length.as_secs()),
                status: status_of(&window.id).map(|status| word(status.status)),
            });
        }
        for status in &usage.window_statuses {
            if listed.insert(&status.window) {
                windows.push(ParsedWindowJson {
                    resets_at: status.resets_at.map(rfc3339),
                    scope: status.scope.as_ref().map(ScopeJson::of),
                    status: Some(word(status.status)),
                    ..ParsedWindowJson::unknown(&status.window)
                });
            }
        }
        if let Coverage::Complete { except, .. } = &usage.coverage {
            windows.extend(except.iter().filter(|id| listed.insert(id)).map(ParsedWindowJson::unknown));
        }
        windows
    }
}

#[derive(Serialize)]
struct ParseJson<'a> {
    kind: &'static str,
    windows: Vec<ParsedWindowJson<'a>>,
    window_statuses: Vec<WindowStatusJson<'a>>,
    plan: Option<&'a str>,
    credits: Option<CreditsJson<'a>>,
    owner_id: Option<&'a str>,
    user: Option<&'a str>,
    observed_at: Option<String>,
    retry_after_seconds: Option<f64>,
    ignored: Vec<IgnoredJson<'a>>,
}

#[derive(Serialize)]
struct ParsedWindowJson<'a> {
    id: &'a WindowId,
    used_percent: Option<f64>,
    /// Present only if the window has no limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unlimited: bool,
    resets_at: Option<String>,
    scope: Option<ScopeJson<'a>>,
    length_seconds: Option<u64>,
    status: Option<&'static str>,
}

impl<'a> ParsedWindowJson<'a> {
    fn unknown(id: &'a WindowId) -> Self {
        Self {
            id,
            used_percent: None,
            unlimited: false,
            resets_at: None,
            scope: None,
            length_seconds: None,
            status: None,
        }
    }
}

#[derive(Serialize)]
struct WindowStatusJson<'a> {
    window: &'a WindowId,
    status: &'static str,
    resets_at: Option<String>,
    scope: Option<ScopeJson<'a>>,
}

impl<'a> WindowStatusJson<'a> {
    fn of(status: &'a WindowStatus) -> Self {
        Self {
            window: &status.window,
            status: word(status.status),
            resets_at: status.resets_at.map(rfc3339),
            scope: status.scope.as_ref().map(|scope: &Scope| ScopeJson::of(scope)),
        }
    }
}

#[derive(Serialize)]
struct IgnoredJson<'a> {
    field: &'a str,
    reason: &'static str,
}

/// The provider's names for the limit statuses.
fn word(status: LimitStatus) -> &'static str {
    match status {
        LimitStatus::Allowed => "allowed",
        LimitStatus::Warning => "allowed_warning",
        LimitStatus::Rejected => "rejected",
        _ => "other",
    }
}
