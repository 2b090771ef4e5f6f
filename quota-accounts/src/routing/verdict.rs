//! What is found of one account: whether it may serve, and the rule that says so.
//! How it is found is in `judge`.

use std::fmt;

use jiff::Timestamp;

/// Whether an account may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It may.
    Open,
    /// It may, if no account is open: less is left than the policy wants.
    Low,
    /// It may not.
    Refused,
}

impl Standing {
    /// The standing as a stable word for programs, such as `low`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Low => "low",
            Self::Refused => "refused",
        }
    }
}

/// The rule that let an account pass or refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// All windows that count have room.
    HasRoom,
    /// A window is not known, and the policy is to use the account all the same.
    NotKnown,
    /// Less is left of a window than the policy's minimum.
    BelowMinimum,
    /// The user has switched the account off.
    Disabled,
    /// It cannot be told whose the account is, and the policy is not to use what is not known.
    IdentityUnknown,
    /// The login is refused: somebody has to log in again.
    LoginDead,
    /// The credential has run out and could not be renewed yet.
    LoginNotYet,
    /// The credential could not be read for the moment, such as while a keychain is locked: nobody has to log in.
    NotReadable,
    /// Somebody's policy does not allow it.
    NotAllowed,
    /// Less is left of a window than the killswitch lets be used.
    Killed,
    /// Nothing is left of a window.
    Exhausted,
    /// The provider has turned a request away because a window is spent.
    QuotaSpent,
    /// The provider has asked for a pause.
    Throttled,
    /// What is left of a window is reserved by requests under way.
    Reserved,
    /// A window is not known, and the policy is not to use what is not known.
    UnknownClosed,
    /// The provider has turned a request away for a reason that only a newer program knows.
    Other,
}

impl Rule {
    /// Whether something is not known of the account, whatever follows from that.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::NotKnown | Self::UnknownClosed | Self::IdentityUnknown)
    }

    /// The rule as a stable word for programs, such as `below_minimum`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HasRoom => "has_room",
            Self::NotKnown => "not_known",
            Self::BelowMinimum => "below_minimum",
            Self::Disabled => "disabled",
            Self::IdentityUnknown => "identity_unknown",
            Self::LoginDead => "login_dead",
            Self::LoginNotYet => "login_not_yet",
            Self::NotReadable => "not_readable",
            Self::NotAllowed => "not_allowed",
            Self::Killed => "killed",
            Self::Exhausted => "exhausted",
            Self::QuotaSpent => "quota_spent",
            Self::Throttled => "throttled",
            Self::Reserved => "reserved",
            Self::UnknownClosed => "unknown_closed",
            Self::Other => "other",
        }
    }
}

/// For people: the same in words.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HasRoom => "has room",
            Self::NotKnown => "not known yet",
            Self::BelowMinimum => "less left than the minimum",
            Self::Disabled => "disabled",
            Self::IdentityUnknown => "cannot tell whose it is",
            Self::LoginDead => "log in again",
            Self::LoginNotYet => "login not renewed yet",
            Self::NotReadable => "login cannot be read for now",
            Self::NotAllowed => "not allowed by policy",
            Self::Killed => "less left than may be used",
            Self::Exhausted => "nothing left",
            Self::QuotaSpent => "turned away: quota spent",
            Self::Throttled => "asked for a pause",
            Self::Reserved => "reserved by requests under way",
            Self::UnknownClosed => "not known, so not used",
            Self::Other => "turned away",
        })
    }
}

/// What was found of an account, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether it may serve.
    pub standing: Standing,
    /// The rule that says so.
    pub rule: Rule,
    /// When a refusal ends by itself; `None` if it does not, or it cannot be told when.
    pub until: Option<Timestamp>,
    /// The window that the rule is about, by its place among the account's windows.
    pub(super) window: Option<u32>,
}

impl Verdict {
    pub(crate) fn open(rule: Rule) -> Self {
        Self { standing: Standing::Open, rule, until: None, window: None }
    }

    pub(crate) fn refused(rule: Rule, until: Option<Timestamp>) -> Self {
        Self { standing: Standing::Refused, rule, until, window: None }
    }

    /// Whether it is sure that the account has nothing for the request, or is no account for it any more: a session that was
    /// its own moves for good. A pause, or what is not known, is no reason to.
    pub(crate) fn is_gone(&self) -> bool {
        self.standing == Standing::Refused
            && matches!(
                self.rule,
                Rule::Exhausted
                    | Rule::QuotaSpent
                    | Rule::Killed
                    | Rule::NotAllowed
                    | Rule::Disabled
                    | Rule::LoginDead
            )
    }

    /// Whether it is refused because something is not known of it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.standing == Standing::Refused && matches!(self.rule, Rule::UnknownClosed | Rule::IdentityUnknown)
    }

    /// Whether readings do not tell of it: it is about the account's credential, or that there is none.
    pub(crate) fn is_of_no_reading(&self) -> bool {
        self.is_unknown() || matches!(self.rule, Rule::LoginDead | Rule::LoginNotYet | Rule::NotReadable)
    }

    pub(super) fn at(mut self, place: usize) -> Self {
        self.window = u32::try_from(place).ok();
        self
    }
}
