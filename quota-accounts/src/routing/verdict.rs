//! The verdict on one account: whether it may serve a request, and the reason.
//! `evaluate` has the rules.

use std::fmt;

use jiff::Timestamp;

/// Whether an account may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Eligibility {
    /// It may serve.
    Eligible,
    /// It may serve if no account is eligible, because less than its minimum remains.
    LastResort,
    /// It must not serve.
    Ineligible,
}

impl Eligibility {
    /// The eligibility as a stable identifier, such as `last_resort`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::LastResort => "last_resort",
            Self::Ineligible => "ineligible",
        }
    }
}

/// Why an account may or must not serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Enough remains of all windows that count.
    Available,
    /// The usage of a window is unknown, and the policy allows that.
    UnknownAllowed,
    /// Less remains of a window than the policy's minimum.
    BelowMinimum,
    /// The user has disabled the account.
    Disabled,
    /// The owner of the account is unknown, and the policy denies unknown usage.
    OwnerUnknown,
    /// The provider rejected the login, or there is none, so the user must log in.
    LoginRejected,
    /// The credential has expired, and its renewal is pending.
    LoginRenewing,
    /// The credential could not be read, for example while a keychain is locked. A new login does not help.
    CredentialUnavailable,
    /// A policy of the provider or of an organization forbids the request.
    Forbidden,
    /// Less remains of a window than the killswitch allows.
    BelowKillswitch,
    /// Nothing remains of a window.
    Exhausted,
    /// The provider rejected a request because a window is exhausted.
    QuotaExhausted,
    /// The provider throttled a request.
    Throttled,
    /// Requests in flight have reserved what remains of a window.
    Reserved,
    /// An earlier account holds the same login, so this account adds no quota.
    SameLogin,
    /// The usage of a window is unknown, and the policy denies that.
    UnknownDenied,
    /// The provider rejected a request for a reason that only a newer program knows.
    Other,
}

impl Reason {
    /// Whether the account's usage or its owner is unknown, regardless of the policy.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::UnknownAllowed | Self::UnknownDenied | Self::OwnerUnknown)
    }

    /// Whether the reason is the account's credential or its absence.
    #[must_use]
    pub fn is_about_credential(self) -> bool {
        matches!(self, Self::LoginRejected | Self::LoginRenewing | Self::CredentialUnavailable)
    }

    /// Whether the reason may not apply to another credential of the same login.
    pub(crate) fn may_be_about_credential(self) -> bool {
        self.is_about_credential() || self == Self::Forbidden
    }

    /// The reason as a stable identifier, such as `below_minimum`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::UnknownAllowed => "unknown_allowed",
            Self::BelowMinimum => "below_minimum",
            Self::Disabled => "disabled",
            Self::OwnerUnknown => "owner_unknown",
            Self::LoginRejected => "login_rejected",
            Self::LoginRenewing => "login_renewing",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Forbidden => "forbidden",
            Self::BelowKillswitch => "below_killswitch",
            Self::Exhausted => "exhausted",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Throttled => "throttled",
            Self::Reserved => "reserved",
            Self::SameLogin => "same_login",
            Self::UnknownDenied => "unknown_denied",
            Self::Other => "other",
        }
    }
}

/// Prints the reason in words.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "available",
            Self::UnknownAllowed | Self::UnknownDenied => "no data",
            Self::BelowMinimum => "below its minimum",
            Self::Disabled => "disabled",
            Self::OwnerUnknown => "owner unknown",
            Self::LoginRejected => "login rejected",
            Self::LoginRenewing => "login renewal pending",
            Self::CredentialUnavailable => "login unreadable",
            Self::Forbidden => "forbidden",
            Self::BelowKillswitch => "below its killswitch",
            Self::Exhausted => "exhausted",
            Self::QuotaExhausted => "exhausted (rejected by the provider)",
            Self::Throttled => "rate limited",
            Self::Reserved => "reserved by requests in flight",
            Self::SameLogin => "same login as another account",
            Self::Other => "rejected by the provider",
        })
    }
}

/// Whether an account may serve, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) eligibility: Eligibility,
    pub(crate) reason: Reason,
    /// When an exclusion ends by itself; `None` if it does not, or that is unknown.
    pub(crate) retry_at: Option<Timestamp>,
    /// The index of the window that the reason is about, among the account's windows.
    pub(super) window: Option<u32>,
}

impl Verdict {
    pub(crate) fn new(eligibility: Eligibility, reason: Reason) -> Self {
        Self { eligibility, reason, retry_at: None, window: None }
    }

    pub(crate) fn eligible(reason: Reason) -> Self {
        Self::new(Eligibility::Eligible, reason)
    }

    pub(crate) fn ineligible(reason: Reason, retry_at: Option<Timestamp>) -> Self {
        Self { retry_at, ..Self::new(Eligibility::Ineligible, reason) }
    }

    /// Whether a session leaves this account for good, because it is exhausted or no longer usable. A cooldown or unknown usage
    /// does not end the affinity.
    pub(crate) fn ends_affinity(&self) -> bool {
        use Reason::{BelowKillswitch, Disabled, Exhausted, Forbidden, LoginRejected, QuotaExhausted};
        let is_final = matches!(
            self.reason,
            Exhausted | QuotaExhausted | BelowKillswitch | Forbidden | Disabled | LoginRejected
        );
        self.eligibility == Eligibility::Ineligible && is_final
    }

    /// Whether the account is excluded because its usage or its owner is unknown.
    pub(crate) fn is_unknown(&self) -> bool {
        self.eligibility == Eligibility::Ineligible
            && matches!(self.reason, Reason::UnknownDenied | Reason::OwnerUnknown)
    }

    pub(crate) fn without_window(self) -> Self {
        Self { window: None, ..self }
    }

    pub(super) fn at(mut self, window: usize) -> Self {
        self.window = u32::try_from(window).ok();
        self
    }
}
