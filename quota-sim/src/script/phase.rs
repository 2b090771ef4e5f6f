//! What calls and messages can be answered, and when they are.
//! The bodies and headers of the answers are in `wire`.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as span;
use serde::Deserialize;

/// A stretch of the script in which every call to the usage endpoint, or every message, is answered in one way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    #[serde(default, with = "span::required")]
    pub(crate) from: Duration,
    #[serde(default, with = "span::optional")]
    pub(crate) until: Option<Duration>,
    pub(crate) answer: Answer,
    #[serde(default)]
    pub(crate) on: Endpoint,
}

/// Where a phase is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    #[default]
    Usage,
    Messages,
    Token,
}

impl Phase {
    /// A phase from the start on, without an end.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { from: Duration::ZERO, until: None, answer, on: Endpoint::default() }
    }

    /// Sets how long after the start it begins.
    #[must_use]
    pub fn from(mut self, from: Duration) -> Self {
        self.from = from;
        self
    }

    /// Sets how long after the start it is over.
    #[must_use]
    pub fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }

    /// Has messages answered like this, and not the usage endpoint; in TOML, `on = "messages"`.
    ///
    /// Messages know [`Answer::Ok`], the throttles, and the errors with a status.
    #[must_use]
    pub fn on_messages(mut self) -> Self {
        self.on = Endpoint::Messages;
        self
    }

    /// Has exchanges of refresh tokens answered like this, and not the usage endpoint; in TOML, `on = "token"`.
    ///
    /// They know [`Answer::Ok`], the throttles, [`Answer::Unavailable`], [`Answer::Overloaded`], [`Answer::Html`], and
    /// [`Answer::Hang`]: then the token is exchanged, and the answer never comes.
    #[must_use]
    pub fn on_token(mut self) -> Self {
        self.on = Endpoint::Token;
        self
    }
}

/// One way to answer a call to the usage endpoint, or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// What the account has used, as long as its budget lasts; or the message, as long as no window is full.
    Ok,
    /// 429 with `Retry-After: 0`, which is no permission to ask again.
    ThrottleZero,
    /// 429 whose `Retry-After` counts down to the end of the phase.
    ThrottleUntilEnd,
    /// 429 that says nothing about when to come back.
    ThrottleNoHeader,
    /// 401: the login has expired. Ordinary traffic is refused as well.
    Unauthorized,
    /// 403: the organization's policy does not allow it.
    Forbidden,
    /// 403: the token lacks the scope `user:profile`.
    Scope,
    /// 503.
    Unavailable,
    /// 529: the provider has too much to do, which says nothing about the account.
    Overloaded,
    /// 200 with a page for people.
    Html,
    /// 200 with `{}`.
    Empty,
    /// 200 with JSON that is cut off.
    Garbage,
    /// Nothing, until the phase is over or the client has left; then what the script says by then.
    Hang,
    /// 200 with a body of two mebibytes that would be good but for its size.
    Huge,
}
