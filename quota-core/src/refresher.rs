//! Exchanging a refresh token for new tokens: the trait that does it, and what can come of it.
//! Whose tokens they are, when to exchange them and where the new ones are kept is not decided here.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{OwnerId, ProviderId, Secret};

/// Exchanges a refresh token for new tokens.
///
/// A refresh token mostly works once, and to send it again may end the login. So implementations send it once: they never
/// retry and never wait. Whoever calls sees to it that nobody else sends the same one, and keeps what comes back.
#[async_trait]
pub trait TokenRefresher: fmt::Debug + Send + Sync + 'static {
    /// The provider whose tokens this exchanges.
    fn provider(&self) -> ProviderId;

    /// Sends the token once.
    ///
    /// Dropping the future does not take back what was sent: the token may be spent, and the new one lost. Whoever started
    /// it should let it end.
    ///
    /// # Errors
    ///
    /// [`TokenError`] sorts failures by what follows from them.
    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError>;
}

/// What a refresh token was exchanged for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// The token to send with requests.
    pub access_token: Secret,
    /// The token of the next exchange; `None` if the one that was sent stays good.
    pub refresh_token: Option<Secret>,
    /// How long the access token is accepted, if that was said.
    pub expires_in: Option<Duration>,
    /// Whose login the provider says it is, if it does.
    pub owner_id: Option<OwnerId>,
}

impl Tokens {
    /// An access token of which nothing else was said.
    #[must_use]
    pub fn new(access_token: Secret) -> Self {
        Self { access_token, refresh_token: None, expires_in: None, owner_id: None }
    }

    /// Says what the next exchange is made with.
    #[must_use]
    pub fn refresh_token(mut self, token: impl Into<Option<Secret>>) -> Self {
        self.refresh_token = token.into();
        self
    }

    /// Says how long the access token is accepted.
    #[must_use]
    pub fn expires_in(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.expires_in = span.into();
        self
    }

    /// Says whose login it is.
    #[must_use]
    pub fn owner_id(mut self, owner_id: impl Into<Option<OwnerId>>) -> Self {
        self.owner_id = owner_id.into();
        self
    }
}

/// Why there are no new tokens, sorted by what follows from it.
///
/// The texts never hold a token, and never a provider's body.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The provider will never accept this token again: somebody has to log in. It says nothing about any other token.
    #[error("the login is no longer good: {reason}")]
    #[non_exhaustive]
    InvalidGrant {
        /// What the provider said, in words that are ours.
        reason: Cow<'static, str>,
    },
    /// The provider does not accept who asks, whatever the token: a setting has to be changed. The token is as good as before.
    #[error("logins cannot be renewed: {reason}")]
    #[non_exhaustive]
    InvalidClient {
        /// What was refused, and what to do.
        reason: Cow<'static, str>,
    },
    /// The provider could not be reached, failed, or was not understood. The token may be sent again later.
    #[error("the login could not be renewed for now: {reason}")]
    #[non_exhaustive]
    Transient {
        /// What happened.
        reason: Cow<'static, str>,
        /// How long the provider wants to be left alone, if it said.
        retry_after: Option<Duration>,
        /// The failure underneath, if there was one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl TokenError {
    /// The token will never be accepted again.
    #[must_use]
    pub fn invalid_grant(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidGrant { reason: reason.into() }
    }

    /// Who asks is not accepted, whatever the token.
    #[must_use]
    pub fn invalid_client(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidClient { reason: reason.into() }
    }

    /// It did not work this time.
    #[must_use]
    pub fn transient(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Transient { reason: reason.into(), retry_after: None, source: None }
    }

    /// Says how long the provider wants to be left alone, where waiting helps.
    #[must_use]
    pub fn with_retry_after(mut self, span: impl Into<Option<Duration>>) -> Self {
        if let Self::Transient { retry_after, .. } = &mut self {
            *retry_after = span.into();
        }
        self
    }

    /// Keeps the failure underneath, where there can be one.
    #[must_use]
    pub fn with_source(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        if let Self::Transient { source, .. } = &mut self {
            *source = Some(Arc::new(cause));
        }
        self
    }

    /// How long the provider wants to be left alone, if it said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether sending the same token later may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let tokens = Tokens::new(Secret::new("n33dle")).refresh_token(Secret::new("n33dle"));

        assert!(!format!("{tokens:?}").contains("n33dle"));
    }

    #[test]
    fn only_what_may_pass_says_when_to_come_back() {
        let minute = Duration::from_secs(60);

        assert_eq!(TokenError::transient("status 503").with_retry_after(minute).retry_after(), Some(minute));
        assert_eq!(TokenError::invalid_grant("refused").with_retry_after(minute).retry_after(), None);
        assert!(!TokenError::invalid_client("unknown client").is_transient());
    }
}
