//! What one answer of a provider says about an account: readings, what they cover, and whose they are.
//! How it is joined to what was known before is in `snapshot` and `record`.

use jiff::Timestamp;

use crate::{Credits, LoginId, OwnerId, Scope, Source, WindowId, WindowReading};

/// What a fetch, or a set of response headers, says about an account.
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
    /// The windows that were reported in a form that could be read.
    pub windows: Vec<WindowReading>,
    /// What the answer speaks about: a window that is covered and not reported is gone.
    pub coverage: Coverage,
    /// What the provider decided per window, beside its numbers.
    pub window_statuses: Vec<WindowStatus>,
    /// The plan of the account, in the provider's word.
    pub plan: Option<String>,
    /// Money beyond the windows.
    pub credits: Option<Credits>,
    /// Who the provider said the account belongs to.
    pub owner_id: Option<OwnerId>,
    /// The login whose credential was used, where the fetcher knows it.
    pub login_id: Option<LoginId>,
    /// Where this comes from.
    pub source: Source,
    /// When it was true, where that is known better than by when it arrived: a delayed message, a file's own date.
    pub observed_at: Option<Timestamp>,
}

impl UsageReport {
    /// A whole answer of a usage endpoint: it covers everything, so what it does not report is gone.
    #[must_use]
    pub fn polled(windows: impl IntoIterator<Item = WindowReading>) -> Self {
        Self::new(windows, Coverage::complete(), Source::Poll)
    }

    /// Headers of an ordinary answer: they speak only about what they report.
    #[must_use]
    pub fn from_headers(windows: impl IntoIterator<Item = WindowReading>) -> Self {
        Self::new(windows, Coverage::Reported, Source::Headers)
    }

    /// What another program of this machine wrote down at `observed_at`.
    #[must_use]
    pub fn from_local(windows: impl IntoIterator<Item = WindowReading>, observed_at: Timestamp) -> Self {
        Self { observed_at: Some(observed_at), ..Self::new(windows, Coverage::Reported, Source::Local) }
    }

    /// What a source without a time of its own reports, arrived at `arrived_at`: a statusline, or a file without a date.
    ///
    /// It may repeat what was true hours ago. It therefore only ever raises a window; see [`Source::Statusline`].
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
            owner_id: None,
            login_id: None,
            source,
            observed_at: None,
        }
    }

    /// Says what the answer speaks about.
    #[must_use]
    pub fn coverage(mut self, coverage: Coverage) -> Self {
        self.coverage = coverage;
        self
    }

    /// Adds what the provider decided.
    #[must_use]
    pub fn window_statuses(mut self, window_statuses: impl IntoIterator<Item = WindowStatus>) -> Self {
        self.window_statuses.extend(window_statuses);
        self
    }

    /// Says which plan the account has.
    #[must_use]
    pub fn plan(mut self, plan: impl Into<Option<String>>) -> Self {
        self.plan = plan.into();
        self
    }

    /// Says what money there is.
    #[must_use]
    pub fn credits(mut self, credits: impl Into<Option<Credits>>) -> Self {
        self.credits = credits.into();
        self
    }

    /// Says who the provider named.
    #[must_use]
    pub fn owner_id(mut self, owner_id: impl Into<Option<OwnerId>>) -> Self {
        self.owner_id = owner_id.into();
        self
    }

    /// Says whose credential was used.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }

    /// Says when it was true.
    #[must_use]
    pub fn observed_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.observed_at = at.into();
        self
    }

    /// Whether it says nothing at all: such an answer is malformed, and never replaces what was known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let no_plan = self.plan.as_ref().is_none_or(String::is_empty);
        let no_money = self.credits.as_ref().is_none_or(|credits| *credits == Credits::default());
        self.windows.is_empty() && no_plan && no_money
    }
}

/// What an answer speaks about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// Only what it reports.
    Reported,
    /// Every window and the money of the account, save what stood there and could not be read.
    Complete {
        /// Windows that stood there and could not be read: what was known of them stays.
        except: Vec<WindowId>,
        /// Whether the money could be read, or was absent.
        credits: bool,
    },
}

impl Coverage {
    /// Everything the account has.
    #[must_use]
    pub fn complete() -> Self {
        Self::Complete { except: Vec::new(), credits: true }
    }

    /// Everything but these windows, which stood there and could not be read.
    #[must_use]
    pub fn complete_except(windows: impl IntoIterator<Item = WindowId>) -> Self {
        Self::Complete { except: windows.into_iter().collect(), credits: true }
    }
}

impl Coverage {
    /// Says that these windows were there and could not be read, if this is about everything.
    pub(crate) fn except_also<'a>(&mut self, windows: impl Iterator<Item = &'a WindowId>) {
        if let Self::Complete { except, .. } = self {
            except.extend(windows.cloned());
        }
    }
}

/// What the provider decided about a window: a request was let through, warned about, or turned away.
///
/// It is apart from the numbers because it is no number: a window that turns requests away is not said to be at 100 %.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowStatus {
    /// The window that decided.
    pub window: WindowId,
    /// What it counts, if not everything: a verdict on one model leaves the others alone.
    pub scope: Option<Scope>,
    /// What was decided.
    pub status: LimitStatus,
    /// Until when, if that was said.
    pub resets_at: Option<Timestamp>,
}

impl WindowStatus {
    /// A verdict on `window`.
    #[must_use]
    pub fn new(window: WindowId, status: LimitStatus) -> Self {
        Self { window, scope: None, status, resets_at: None }
    }

    /// Says what the window counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Says until when the verdict stands.
    #[must_use]
    pub fn resets_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.resets_at = at.into();
        self
    }
}

/// How a provider rules on requests against a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitStatus {
    /// Requests pass.
    Allowed,
    /// Requests pass, and the window is nearly used up.
    Warning,
    /// Requests are turned away.
    Rejected,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Percent, WindowReading};

    #[test]
    fn an_answer_with_a_window_a_plan_or_money_says_something() {
        let mut spent = Credits::default();
        spent.enabled = Some(false);

        assert!(!UsageReport::polled([WindowReading::new(WindowId::monthly(), Percent::ZERO)]).is_empty());
        assert!(!UsageReport::polled([]).plan("free".to_owned()).is_empty());
        assert!(!UsageReport::polled([]).credits(spent).is_empty());
    }

    #[test]
    fn an_answer_without_any_of_them_says_nothing() {
        assert!(UsageReport::polled([]).is_empty());
        assert!(UsageReport::polled([]).plan(String::new()).is_empty());
        assert!(UsageReport::polled([]).credits(Credits::default()).is_empty());
    }
}
