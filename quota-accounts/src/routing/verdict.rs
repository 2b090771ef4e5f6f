//! What is found of one account: whether it may serve, and the rule that says so.
//! How it is found is in `evaluate`.

use std::fmt;

use jiff::Timestamp;

/// Whether an account may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Eligibility {
    /// It may.
    Eligible,
    /// It may, if no account is open: less is left than the policy wants.
    LastResort,
    /// It may not.
    Ineligible,
}

impl Eligibility {
    /// The standing as a stable word for programs, such as `low`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "open",
            Self::LastResort => "low",
            Self::Ineligible => "refused",
        }
    }
}

/// The rule that let an account pass or refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// All windows that count have room.
    Available,
    /// A window is not known, and the policy is to use the account all the same.
    UnknownAllowed,
    /// Less is left of a window than the policy's minimum.
    BelowMinimum,
    /// The user has switched the account off.
    Disabled,
    /// It cannot be told whose the account is, and the policy is not to use what is not known.
    OwnerUnknown,
    /// The login is refused: somebody has to log in again.
    LoginRejected,
    /// The credential has run out and could not be renewed yet.
    LoginRenewing,
    /// The credential could not be read for the moment, such as while a keychain is locked: nobody has to log in.
    CredentialUnavailable,
    /// Somebody's policy does not allow it.
    Forbidden,
    /// Less is left of a window than the killswitch lets be used.
    BelowKillswitch,
    /// Nothing is left of a window.
    Exhausted,
    /// The provider has turned a request away because a window is spent.
    QuotaExhausted,
    /// The provider has asked for a pause.
    Throttled,
    /// What is left of a window is reserved by requests under way.
    Reserved,
    /// A window is not known, and the policy is not to use what is not known.
    UnknownDenied,
    /// The provider has turned a request away for a reason that only a newer program knows.
    Other,
}

impl Reason {
    /// Whether something is not known of the account, whatever follows from that.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::UnknownAllowed | Self::UnknownDenied | Self::OwnerUnknown)
    }

    /// The rule as a stable word for programs, such as `below_minimum`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "has_room",
            Self::UnknownAllowed => "not_known",
            Self::BelowMinimum => "below_minimum",
            Self::Disabled => "disabled",
            Self::OwnerUnknown => "identity_unknown",
            Self::LoginRejected => "login_dead",
            Self::LoginRenewing => "login_not_yet",
            Self::CredentialUnavailable => "not_readable",
            Self::Forbidden => "not_allowed",
            Self::BelowKillswitch => "killed",
            Self::Exhausted => "exhausted",
            Self::QuotaExhausted => "quota_spent",
            Self::Throttled => "throttled",
            Self::Reserved => "reserved",
            Self::UnknownDenied => "unknown_closed",
            Self::Other => "other",
        }
    }
}

/// For people: the same in words.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "has room",
            Self::UnknownAllowed => "not known yet",
            Self::BelowMinimum => "less left than the minimum",
            Self::Disabled => "disabled",
            Self::OwnerUnknown => "cannot tell whose it is",
            Self::LoginRejected => "log in again",
            Self::LoginRenewing => "login not renewed yet",
            Self::CredentialUnavailable => "login cannot be read for now",
            Self::Forbidden => "not allowed by policy",
            Self::BelowKillswitch => "less left than may be used",
            Self::Exhausted => "nothing left",
            Self::QuotaExhausted => "turned away: quota spent",
            Self::Throttled => "asked for a pause",
            Self::Reserved => "reserved by requests under way",
            Self::UnknownDenied => "not known, so not used",
            Self::Other => "turned away",
        })
    }
}

/// What was found of an account, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether it may serve.
    pub eligibility: Eligibility,
    /// The rule that says so.
    pub reason: Reason,
    /// When a refusal ends by itself; `None` if it does not, or it cannot be told when.
    pub until: Option<Timestamp>,
    /// The window that the rule is about, by its place among the account's windows.
    pub(super) window: Option<u32>,
}

impl Verdict {
    pub(crate) fn eligible(reason: Reason) -> Self {
        Self { eligibility: Eligibility::Eligible, reason, until: None, window: None }
    }

    pub(crate) fn ineligible(reason: Reason, until: Option<Timestamp>) -> Self {
        Self { eligibility: Eligibility::Ineligible, reason, until, window: None }
    }

    /// Whether it is sure that the account has nothing for the request, or is no account for it any more: a session that was
    /// its own moves for good. A pause, or what is not known, is no reason to.
    pub(crate) fn ends_affinity(&self) -> bool {
        self.eligibility == Eligibility::Ineligible
            && matches!(
                self.reason,
                Reason::Exhausted
                    | Reason::QuotaExhausted
                    | Reason::BelowKillswitch
                    | Reason::Forbidden
                    | Reason::Disabled
                    | Reason::LoginRejected
            )
    }

    /// Whether it is refused because something is not known of it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.eligibility == Eligibility::Ineligible
            && matches!(self.reason, Reason::UnknownDenied | Reason::OwnerUnknown)
    }

    /// Whether readings do not tell of it: it is about the account's credential, or that there is none.
    pub(crate) fn is_credential_verdict(&self) -> bool {
        self.is_unknown()
            || matches!(
                self.reason,
                Reason::LoginRejected | Reason::LoginRenewing | Reason::CredentialUnavailable
            )
    }

    pub(super) fn at(mut self, place: usize) -> Self {
        self.window = u32::try_from(place).ok();
        self
    }
}
