//! The answers to calls and messages, and when they apply. `wire` writes their bodies and headers.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as span;
use serde::Deserialize;

/// A phase of the script in which every request to one endpoint gets the same answer.
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

/// The endpoint of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    #[default]
    Usage,
    Messages,
    Token,
}

impl Phase {
    /// Creates a phase that starts with the script and has no end.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { from: Duration::ZERO, until: None, answer, on: Endpoint::default() }
    }

    /// Sets when the phase starts, measured from the start of the script.
    #[must_use]
    pub fn from(mut self, from: Duration) -> Self {
        self.from = from;
        self
    }

    /// Sets when the phase ends, measured from the start of the script.
    #[must_use]
    pub fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }

    /// Applies the phase to messages instead of the usage endpoint. In TOML: `on = "messages"`.
    ///
    /// Valid for messages: [`Answer::Ok`], the throttles, and the errors with a status.
    #[must_use]
    pub fn on_messages(mut self) -> Self {
        self.on = Endpoint::Messages;
        self
    }

    /// Applies the phase to token exchanges instead of the usage endpoint. In TOML: `on = "token"`.
    ///
    /// Valid for exchanges: [`Answer::Ok`], the throttles, [`Answer::Unavailable`], [`Answer::Overloaded`], [`Answer::Html`]
    /// and [`Answer::Hang`]. With `Hang`, the simulator exchanges the token and never responds.
    #[must_use]
    pub fn on_token(mut self) -> Self {
        self.on = Endpoint::Token;
        self
    }
}

/// The kinds of answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// The usage, within the budget; or a successful message, unless a window is full.
    Ok,
    /// 429 with `Retry-After: 0`. The client still must not call again.
    ThrottleZero,
    /// 429 whose `Retry-After` counts down to the end of the phase.
    ThrottleUntilEnd,
    /// 429 without `Retry-After`.
    ThrottleNoHeader,
    /// 401: the login has expired. Messages are rejected too.
    Unauthorized,
    /// 403: the policy of the organization does not allow the request.
    Forbidden,
    /// 403: the token lacks the scope `user:profile`.
    Scope,
    /// 503.
    Unavailable,
    /// 529: the provider is overloaded, regardless of the account.
    Overloaded,
    /// 200 with an HTML page.
    Html,
    /// 200 with `{}`.
    Empty,
    /// 200 with truncated JSON.
    Garbage,
    /// No response until the phase ends, then the answer that the script has at that time.
    Hang,
    /// 200 with a valid body of two mebibytes.
    Huge,
}
