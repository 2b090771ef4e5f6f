//! What can be changed on an account while the script plays.
//! The changes take effect in `running`.

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
    EndTokens,
    Login { token: String, refresh_token: String },
    Used { window: Window, percent: f64 },
}

impl Change {
    /// From now on every call is answered like this, whatever the script says.
    #[must_use]
    pub fn answer(answer: Answer) -> Self {
        Self(Action::Answer { answer, lasting: None })
    }

    /// For so much simulated time every call is answered like this, then as the script says.
    #[must_use]
    pub fn answer_for(answer: Answer, span: Duration) -> Self {
        Self(Action::Answer { answer, lasting: Some(span) })
    }

    /// The script decides again.
    #[must_use]
    pub fn follow_script() -> Self {
        Self(Action::FollowScript)
    }

    /// The account is opened by another token, as after a rotation; the old one opens nothing any more.
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self(Action::Token(token.into()))
    }

    /// The access tokens that were given so far open nothing any more; the refresh token is as good as before.
    #[must_use]
    pub fn end_tokens() -> Self {
        Self(Action::EndTokens)
    }

    /// Replaces the login: these tokens are valid from now on, those of the previous login are not.
    #[must_use]
    pub fn login(token: impl Into<String>, refresh_token: impl Into<String>) -> Self {
        Self(Action::Login { token: token.into(), refresh_token: refresh_token.into() })
    }

    /// So much of a window is used now: of the account's window of the same kind and model.
    #[must_use]
    pub fn used(window: Window, percent: f64) -> Self {
        Self(Action::Used { window: window.used(percent), percent })
    }
}

/// Why a change was not made; everything is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The script has no such account.
    #[error("the script has no account of this name")]
    NoAccount,
    /// The account has no such window.
    #[error("the account has no such window")]
    NoWindow,
    /// A countdown needs an end to count to.
    #[error("a countdown needs an end; use Change::answer_for")]
    NoEnd,
    /// Another account is opened by this token.
    #[error("another account has this token")]
    TokenTaken,
    /// The value means nothing.
    #[error("{why}")]
    #[non_exhaustive]
    Unusable {
        /// What is wrong with it.
        why: &'static str,
    },
}
