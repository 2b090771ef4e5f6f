//! One parsed report about an account: readings, coverage and owner.
//! `snapshot` and `record` merge it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Credits, LoginId, OwnerId, Scope, Source, WindowId, WindowReading};

/// A parsed provider response, or a set of response headers.
///
/// ```
/// use quota_core::{Percent, UsageReport, WindowId, WindowReading};
///
/// let used = Percent::from_percent(12.5).unwrap();
/// let usage = UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]);
/// assert_eq!(usage.windows.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UsageReport {
    /// The windows that could be parsed.
    pub windows: Vec<WindowReading>,
    /// The coverage of the report. A window that is covered but not reported is removed.
    pub coverage: Coverage,
    /// The status that the provider reported per window, in addition to the numbers.
    pub window_statuses: Vec<WindowStatus>,
    /// The plan of the account, as the provider names it.
    pub plan: Option<String>,
    /// The credits: money beyond the windows.
    pub credits: Option<Credits>,
    /// The fields of the response that the parser skipped. They replace those of the previous response.
    pub ignored: Vec<IgnoredField>,
    /// The owner that the provider named.
    pub owner_id: Option<OwnerId>,
    /// The login whose credential was used, if known.
    pub login_id: Option<LoginId>,
    /// The source of the report.
    pub source: Source,
    /// The time that the report describes, if that differs from its arrival: the time of a delayed message, or the date
    /// of a file.
    pub observed_at: Option<Timestamp>,
    /// Whether the provider rate limited a part of the call, such as the second of two requests. The readings are stored, and the account
    /// is put on hold as after a failed call.
    pub throttled: Option<Throttled>,
}

/// A rate limit that a provider applied to a part of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throttled {
    /// The wait that the provider requested.
    pub retry_after: Option<Duration>,
}

impl Throttled {
    /// Creates a rate limit with or without a requested wait.
    #[must_use]
    pub fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after }
    }
}

impl UsageReport {
    /// Creates a report from a complete response of a usage endpoint. Windows that it does not report are removed.
    #[must_use]
    pub fn polled(windows: impl IntoIterator<Item = WindowReading>) -> Self {
        Self::new(windows, Coverage::complete(), Source::Poll)
    }

    /// Creates a report from the headers of an ordinary response. They cover only the windows that they report.
    #[must_use]
    pub fn from_headers(windows: impl IntoIterator<Item = WindowReading>) -> Self {
        Self::new(windows, Coverage::Reported, Source::Headers)
    }

    /// Creates a report that another program on this machine wrote at `observed_at`.
    #[must_use]
    pub fn from_local(windows: impl IntoIterator<Item = WindowReading>, observed_at: Timestamp) -> Self {
        Self { observed_at: Some(observed_at), ..Self::new(windows, Coverage::Reported, Source::Local) }
    }

    /// Creates a report without a timestamp that arrived at `arrived_at`, such as a statusline or a file without a date.
    ///
    /// It may repeat readings that are hours old, so it only raises a window; see [`Source::Statusline`].
    #[must_use]
    pub fn from_statusline(windows: impl IntoIterator<Item = WindowReading>, arrived_at: Timestamp) -> Self {
        Self { observed_at: Some(arrived_at), ..Self::new(windows, Coverage::Reported, Source::Statusline) }
    }

    fn new(windows: impl IntoIterator<Item = WindowReading>, coverage: Coverage, source: Source) -> Self {
        Self {
            windows: windows.into_iter().collect(),
            coverage,
            window_statuses: Vec::new(),
            plan: None,
            credits: None,
            ignored: Vec::new(),
            owner_id: None,
            login_id: None,
            source,
            observed_at: None,
            throttled: None,
        }
    }

    /// Sets that the provider rate limited a part of the call.
    #[must_use]
    pub fn throttled(mut self, throttled: impl Into<Option<Throttled>>) -> Self {
        self.throttled = throttled.into();
        self
    }

    /// Sets the coverage of the report.
    #[must_use]
    pub fn coverage(mut self, coverage: Coverage) -> Self {
        self.coverage = coverage;
        self
    }

    /// Adds the statuses of windows.
    #[must_use]
    pub fn window_statuses(mut self, window_statuses: impl IntoIterator<Item = WindowStatus>) -> Self {
        self.window_statuses.extend(window_statuses);
        self
    }

    /// Sets the plan of the account.
    #[must_use]
    pub fn plan(mut self, plan: impl Into<Option<String>>) -> Self {
        self.plan = plan.into();
        self
    }

    /// Sets the credits.
    #[must_use]
    pub fn credits(mut self, credits: impl Into<Option<Credits>>) -> Self {
        self.credits = credits.into();
        self
    }

    /// Sets the fields of the response that the parser skipped.
    #[must_use]
    pub fn ignored(mut self, fields: impl IntoIterator<Item = IgnoredField>) -> Self {
        self.ignored = fields.into_iter().collect();
        self
    }

    /// Sets the owner that the provider named.
    #[must_use]
    pub fn owner_id(mut self, owner_id: impl Into<Option<OwnerId>>) -> Self {
        self.owner_id = owner_id.into();
        self
    }

    /// Sets the login whose credential was used.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }

    /// Sets the time that the report describes.
    #[must_use]
    pub fn observed_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.observed_at = at.into();
        self
    }

    /// Whether the report contains no data. Such a response is malformed and replaces no readings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let no_plan = self.plan.as_ref().is_none_or(String::is_empty);
        let no_money = self.credits.as_ref().is_none_or(|credits| *credits == Credits::default());
        self.windows.is_empty() && no_plan && no_money
    }
}

/// A field of a response that a parser skipped: its name and the reason, never its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IgnoredField {
    /// The path of the field, such as `limits[2]`.
    pub field: String,
    /// Why it was skipped.
    pub reason: String,
}

impl IgnoredField {
    /// Creates a field with the reason for which it was skipped.
    #[must_use]
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// The coverage of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// The report covers only its own content.
    Reported,
    /// Every window and the credits of the account, except what could not be parsed.
    Complete {
        /// Windows that were present but could not be parsed. Their readings stay.
        except: Vec<WindowId>,
        /// Whether the credits could be parsed, or were absent.
        credits: bool,
    },
}

impl Coverage {
    /// Creates the coverage of everything that the account has.
    #[must_use]
    pub fn complete() -> Self {
        Self::Complete { except: Vec::new(), credits: true }
    }

    /// Creates the coverage of everything except these windows, which could not be parsed.
    #[must_use]
    pub fn complete_except(windows: impl IntoIterator<Item = WindowId>) -> Self {
        Self::Complete { except: windows.into_iter().collect(), credits: true }
    }
}

impl Coverage {
    /// Adds windows that could not be parsed, if the coverage is complete.
    pub(crate) fn except_also<'a>(&mut self, windows: impl Iterator<Item = &'a WindowId>) {
        if let Self::Complete { except, .. } = self {
            except.extend(windows.cloned());
        }
    }
}

/// The status of a window: requests are allowed, allowed with a warning, or rejected.
///
/// It is separate from the numbers: a window that rejects requests is not necessarily at 100 %.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowStatus {
    /// The window.
    pub window: WindowId,
    /// The scope of the window; `None` for the whole account. A status for one model does not affect others.
    pub scope: Option<Scope>,
    /// The status.
    pub status: LimitStatus,
    /// When the window resets, if that was stated.
    pub resets_at: Option<Timestamp>,
}

impl WindowStatus {
    /// Creates a status of `window`.
    #[must_use]
    pub fn new(window: WindowId, status: LimitStatus) -> Self {
        Self { window, scope: None, status, resets_at: None }
    }

    /// Sets the scope of the window.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Sets when the window resets.
    #[must_use]
    pub fn resets_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.resets_at = at.into();
        self
    }
}

/// Whether a window allows requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitStatus {
    /// Requests are allowed.
    Allowed,
    /// Requests are allowed, and the window is nearly exhausted.
    Warning,
    /// Requests are rejected.
    Rejected,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Percent, WindowReading};

    #[test]
    fn a_report_with_a_window_a_plan_or_credits_is_not_empty() {
        let mut credits = Credits::default();
        credits.enabled = Some(false);

        assert!(!UsageReport::polled([WindowReading::new(WindowId::monthly(), Percent::ZERO)]).is_empty());
        assert!(!UsageReport::polled([]).plan("free".to_owned()).is_empty());
        assert!(!UsageReport::polled([]).credits(credits).is_empty());
    }

    #[test]
    fn a_report_without_data_is_empty() {
        assert!(UsageReport::polled([]).is_empty());
        assert!(UsageReport::polled([]).plan(String::new()).is_empty());
        assert!(UsageReport::polled([]).credits(Credits::default()).is_empty());
    }
}
