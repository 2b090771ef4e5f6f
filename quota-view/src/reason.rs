//! A short reason why the usage of an account is missing or stale, for output with little space. `quota doctor`
//! suggests fixes.

use quota::manager::StaleReason;
use quota::record::{HoldReason, LastFailureKind};
use quota::{AccountUsage, FetchError, Freshness, QuotaError};

/// Why there is no usage, or no newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The provider rejected the login.
    LoginRejected,
    /// The provider forbids the call.
    Forbidden,
    /// The token is not allowed to read usage.
    MissingScope,
    /// There is no login.
    NotLoggedIn,
    /// The login cannot be read.
    LoginUnreadable,
    /// The provider limits the calls.
    RateLimited,
    /// The hourly call budget is used up.
    BudgetExhausted,
    /// The provider is unreachable.
    Offline,
    /// The provider timed out.
    TimedOut,
    /// The provider failed.
    ProviderError,
    /// Another hold.
    OnHold,
    /// The owner of the login is unknown.
    OwnerUnknown,
    /// The record has a newer version.
    UpdateNeeded,
    /// The store is unreachable.
    StoreUnreachable,
    /// The record is damaged.
    RecordDamaged,
    /// The store accepts no writes.
    StoreReadOnly,
    /// The store failed.
    StoreError,
    /// The configuration cannot be used.
    ConfigError,
    /// All accounts are disabled.
    AllDisabled,
    /// The account is disabled.
    Disabled,
    /// The provider states no windows.
    NoWindows,
    /// There is no home directory.
    NoHomeDirectory,
    /// The store is the memory of this process.
    StoreNotShared,
    /// The session of a statusline belongs to no configured account.
    UnknownAccount,
}

impl Reason {
    /// The reason for the state of an account; `None` if its usage is fresh or there was no error.
    pub fn of(usage: &AccountUsage) -> Option<Self> {
        let Freshness::Stale { reason: why, .. } = usage.freshness() else {
            return usage.snapshot().windows().is_empty().then_some(Self::NoWindows);
        };
        if usage.is_record_damaged() {
            return Some(Self::RecordDamaged);
        }
        if usage.store_unavailable_since().is_some() {
            return Some(Self::StoreUnreachable);
        }
        match usage.error() {
            Some(QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. }) => {
                return Some(Self::NotLoggedIn);
            }
            Some(QuotaError::Fetch { error: FetchError::CredentialUnavailable { .. }, .. }) => {
                return Some(Self::LoginUnreadable);
            }
            _ => {}
        }
        let (failure, hold) =
            (usage.last_failure().map(|failure| failure.kind), usage.hold().map(|hold| hold.reason));
        Self::of_record(failure, hold, why)
    }

    fn of_record(
        failure: Option<LastFailureKind>,
        hold: Option<HoldReason>,
        why: StaleReason,
    ) -> Option<Self> {
        let of_failure = failure.map(|kind| match kind {
            LastFailureKind::Unauthorized => Self::LoginRejected,
            LastFailureKind::Forbidden => Self::Forbidden,
            LastFailureKind::MissingScope => Self::MissingScope,
            LastFailureKind::Throttled => Self::RateLimited,
            LastFailureKind::Unreachable => Self::Offline,
            LastFailureKind::TimedOut => Self::TimedOut,
            _ => Self::ProviderError,
        });
        match (of_failure, hold) {
            // A problem that the user must fix takes precedence over a transient one.
            (Some(Self::LoginRejected | Self::Forbidden | Self::MissingScope), _) => of_failure,
            (_, Some(HoldReason::RateLimited | HoldReason::ProviderRateLimited)) => Some(Self::RateLimited),
            (_, Some(HoldReason::BudgetExhausted)) => Some(Self::BudgetExhausted),
            (Some(reason), _) => Some(reason),
            (None, Some(HoldReason::Failing)) => Some(Self::ProviderError),
            (None, Some(_)) => Some(Self::OnHold),
            (None, None) => match why {
                StaleReason::OwnerUnknown => Some(Self::OwnerUnknown),
                StaleReason::UnsupportedFormat => Some(Self::UpdateNeeded),
                _ => None,
            },
        }
    }

    /// The reason as text for users.
    pub fn text(self) -> &'static str {
        match self {
            Self::LoginRejected => "login rejected",
            Self::Forbidden => "forbidden",
            Self::MissingScope => "missing scope",
            Self::NotLoggedIn => "not logged in",
            Self::LoginUnreadable => "login unreadable",
            Self::RateLimited => "rate limited",
            Self::BudgetExhausted => "budget used up",
            Self::Offline => "offline",
            Self::TimedOut => "provider timed out",
            Self::ProviderError => "provider error",
            Self::OnHold => "on hold",
            Self::OwnerUnknown => "owner unknown",
            Self::UpdateNeeded => "update quota",
            Self::StoreUnreachable => "store unreachable",
            Self::RecordDamaged => "record damaged",
            Self::StoreReadOnly => "store read-only",
            Self::StoreError => "store error",
            Self::ConfigError => "config error",
            Self::AllDisabled => "all accounts disabled",
            Self::Disabled => "disabled",
            Self::NoWindows => "no windows",
            Self::NoHomeDirectory => "no home directory",
            Self::StoreNotShared => "store not shared",
            Self::UnknownAccount => "unknown account",
        }
    }

    /// The reason as a stable identifier for programs, such as `login_rejected`.
    pub fn word(self) -> String {
        match self {
            // The identifier of a hold's reason.
            Self::BudgetExhausted => "budget_exhausted".to_owned(),
            _ => self.text().replace([' ', '-'], "_"),
        }
    }

    /// The reason as a CSS class, such as `login-rejected`.
    pub fn class(self) -> String {
        self.word().replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(failure: impl Into<Option<LastFailureKind>>, hold: impl Into<Option<HoldReason>>) -> &'static str {
        Reason::of_record(failure.into(), hold.into(), StaleReason::Aged).map_or("", Reason::text)
    }

    #[test]
    fn a_failure_is_named_by_its_kind() {
        let kinds = [
            LastFailureKind::Unauthorized,
            LastFailureKind::Forbidden,
            LastFailureKind::MissingScope,
            LastFailureKind::Throttled,
            LastFailureKind::Unreachable,
            LastFailureKind::TimedOut,
            LastFailureKind::Failing,
        ];

        assert_eq!(
            kinds.map(|kind| of(kind, None)),
            [
                "login rejected",
                "forbidden",
                "missing scope",
                "rate limited",
                "offline",
                "provider timed out",
                "provider error"
            ]
        );
    }

    #[test]
    fn a_hold_is_named_by_its_reason() {
        let reasons = [
            HoldReason::RateLimited,
            HoldReason::ProviderRateLimited,
            HoldReason::BudgetExhausted,
            HoldReason::Failing,
            HoldReason::Other("eclipse".into()),
        ];

        assert_eq!(
            reasons.map(|reason| of(None, reason)),
            ["rate limited", "rate limited", "budget used up", "provider error", "on hold"]
        );
    }

    #[test]
    fn a_failure_takes_precedence_over_the_hold_it_caused() {
        assert_eq!(of(LastFailureKind::Unreachable, HoldReason::Failing), "offline");
        assert_eq!(of(LastFailureKind::TimedOut, HoldReason::ProviderRateLimited), "rate limited");
    }

    #[test]
    fn a_rejected_login_takes_precedence_over_a_hold() {
        assert_eq!(of(LastFailureKind::Unauthorized, HoldReason::ProviderRateLimited), "login rejected");
    }

    #[test]
    fn without_a_failure_or_hold_there_is_no_reason() {
        assert_eq!(Reason::of_record(None, None, StaleReason::NeverRead), None);
        assert_eq!(Reason::of_record(None, None, StaleReason::UnsupportedFormat), Some(Reason::UpdateNeeded));
    }

    #[test]
    fn identifiers_and_css_classes_have_no_spaces() {
        assert_eq!(Reason::StoreReadOnly.word(), "store_read_only");
        assert_eq!(Reason::StoreReadOnly.class(), "store-read-only");
        assert_eq!(Reason::BudgetExhausted.class(), "budget-exhausted");
    }
}
