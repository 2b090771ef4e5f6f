//! The trait that exchanges a refresh token (RFC 6749, section 6), its result and its errors.
//! The credential source that owns the login decides when to exchange, and stores the new tokens.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{OwnerId, ProviderId};
use crate::secret::Secret;

/// Exchanges a refresh token for new tokens.
///
/// Most refresh tokens work once, and sending one again can invalidate the login. An implementation therefore sends it once,
/// and never retries or waits. The caller must ensure that no other process sends the same token, and must store the result.
#[async_trait]
pub trait TokenRefresher: fmt::Debug + Send + Sync + 'static {
    /// The provider of the tokens.
    fn provider(&self) -> ProviderId;

    /// Sends the token once.
    ///
    /// Do not drop the future. The provider may already have consumed the token, and the new one would be lost.
    ///
    /// # Errors
    ///
    /// [`TokenError`]. Its variants differ in how the caller reacts.
    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError>;
}

/// The result of a token exchange.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// The token to send with requests.
    pub access_token: Secret,
    /// The token for the next exchange; `None` if the sent token stays valid.
    pub refresh_token: Option<Secret>,
    /// How long the provider accepts the access token, if it states that.
    pub expires_in: Option<Duration>,
    /// The owner of the login, if the provider states it.
    pub owner_id: Option<OwnerId>,
}

impl Tokens {
    /// Creates a result with an access token only.
    #[must_use]
    pub fn new(access_token: Secret) -> Self {
        Self { access_token, refresh_token: None, expires_in: None, owner_id: None }
    }

    /// Sets the token for the next exchange.
    #[must_use]
    pub fn refresh_token(mut self, token: impl Into<Option<Secret>>) -> Self {
        self.refresh_token = token.into();
        self
    }

    /// Sets how long the provider accepts the access token.
    #[must_use]
    pub fn expires_in(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.expires_in = lifetime.into();
        self
    }

    /// Sets the owner of the login.
    #[must_use]
    pub fn owner_id(mut self, owner_id: impl Into<Option<OwnerId>>) -> Self {
        self.owner_id = owner_id.into();
        self
    }
}

/// Why a token exchange failed.
///
/// The texts contain neither a token nor any part of the provider's response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The provider will never accept this token again, so the user must log in. Other tokens stay valid.
    #[error("the login is no longer valid: {reason}")]
    #[non_exhaustive]
    InvalidGrant {
        /// The reason that the provider reported, in quota's own words.
        reason: Cow<'static, str>,
    },
    /// The provider rejects this client with any token, so the user must change a setting. The token stays valid.
    #[error("could not renew the login: {reason}")]
    #[non_exhaustive]
    InvalidClient {
        /// The rejected setting, and how to fix it.
        reason: Cow<'static, str>,
    },
    /// The provider was unreachable, failed, or sent a malformed response. The caller can send the token again later.
    #[error("could not renew the login yet: {reason}")]
    #[non_exhaustive]
    Transient {
        /// The failure.
        reason: Cow<'static, str>,
        /// The wait that the provider requested.
        retry_after: Option<Duration>,
        /// The cause, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl TokenError {
    /// Creates an error for a token that the provider will never accept again.
    #[must_use]
    pub fn invalid_grant(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidGrant { reason: reason.into() }
    }

    /// Creates an error for a rejected client.
    #[must_use]
    pub fn invalid_client(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidClient { reason: reason.into() }
    }

    /// Creates an error for an exchange that can succeed later.
    #[must_use]
    pub fn transient(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Transient { reason: reason.into(), retry_after: None, source: None }
    }

    /// Sets the wait that the provider requested, on a transient error.
    #[must_use]
    pub fn with_retry_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        if let Self::Transient { retry_after, .. } = &mut self {
            *retry_after = wait.into();
        }
        self
    }

    /// Sets the cause of a transient error.
    #[must_use]
    pub fn with_source(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        if let Self::Transient { source, .. } = &mut self {
            *source = Some(Arc::new(cause));
        }
        self
    }

    /// The wait that the provider requested.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether sending the same token later can succeed without the user acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_token() {
        let tokens = Tokens::new(Secret::new("n33dle")).refresh_token(Secret::new("n33dle"));

        assert!(!format!("{tokens:?}").contains("n33dle"));
    }

    #[test]
    fn only_a_transient_error_has_a_retry_after() {
        let minute = Duration::from_secs(60);

        assert_eq!(TokenError::transient("status 503").with_retry_after(minute).retry_after(), Some(minute));
        assert_eq!(TokenError::invalid_grant("refused").with_retry_after(minute).retry_after(), None);
        assert!(!TokenError::invalid_client("unknown client").is_transient());
    }
}
