//! Changes to an account while the script runs. `account_sim` applies them.

use std::time::Duration;

use crate::script::{Answer, Window};

/// A change to one account of a running simulator.
///
/// ```
/// use std::time::Duration;
/// use quota_sim::{Answer, Change, Window};
///
/// let expired = Change::answer(Answer::Unauthorized);
/// let blocked = Change::answer_for(Answer::ThrottleUntilEnd, Duration::from_secs(600));
/// let exhausted = Change::used(Window::five_hour(), 100.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Change(pub(crate) Action);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Answer { answer: Answer, lasting: Option<Duration> },
    FollowScript,
    Token(String),
    ExpireTokens,
    Login { token: String, refresh_token: String },
    Used { window: Window, percent: f64 },
}

impl Change {
    /// Answers every call this way instead of following the script.
    #[must_use]
    pub fn answer(answer: Answer) -> Self {
        Self(Action::Answer { answer, lasting: None })
    }

    /// Answers every call this way for this long in simulated time. Then the script applies again.
    #[must_use]
    pub fn answer_for(answer: Answer, duration: Duration) -> Self {
        Self(Action::Answer { answer, lasting: Some(duration) })
    }

    /// Follows the script again.
    #[must_use]
    pub fn follow_script() -> Self {
        Self(Action::FollowScript)
    }

    /// Replaces the access token, as in a rotation. The old one becomes invalid.
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self(Action::Token(token.into()))
    }

    /// Expires all access tokens issued so far. The refresh token stays valid.
    #[must_use]
    pub fn expire_tokens() -> Self {
        Self(Action::ExpireTokens)
    }

    /// Replaces the login, so that only these tokens are valid.
    #[must_use]
    pub fn login(token: impl Into<String>, refresh_token: impl Into<String>) -> Self {
        Self(Action::Login { token: token.into(), refresh_token: refresh_token.into() })
    }

    /// Sets the usage of the account's window of the same kind and model.
    #[must_use]
    pub fn used(window: Window, percent: f64) -> Self {
        Self(Action::Used { window: window.used(percent), percent })
    }
}

/// Why a change was rejected. A rejected change has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The script has no such account.
    #[error("the script has no account with this name")]
    NoAccount,
    /// The account has no such window.
    #[error("the account has no such window")]
    NoWindow,
    /// A countdown needs an end to count down to.
    #[error("a countdown needs an end; use Change::answer_for")]
    NoEnd,
    /// The token belongs to another account.
    #[error("another account has this token")]
    TokenInUse,
    /// The value is invalid.
    #[error("{reason}")]
    #[non_exhaustive]
    Invalid {
        /// The problem with the value.
        reason: &'static str,
    },
}
