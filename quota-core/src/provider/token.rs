//! The trait that exchanges a refresh token (RFC 6749, section 6), its result and its errors.
//! When to exchange, and where the new tokens are stored, is decided by the credential source that owns the login.

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
/// Most refresh tokens work once, and sending one again can end the login. So an implementation sends it once, and never retries or
/// waits. The caller makes sure that no other process sends the same token, and stores the result.
#[async_trait]
pub trait TokenRefresher: fmt::Debug + Send + Sync + 'static {
    /// The provider whose tokens this exchanges.
    fn provider(&self) -> ProviderId;

    /// Sends the token once.
    ///
    /// Do not drop the future: the provider may have used the token up, and the new one would be lost.
    ///
    /// # Errors
    ///
    /// [`TokenError`]; its variants differ in what the caller does next.
    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError>;
}

/// The result of a token exchange.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// The token to send with requests.
    pub access_token: Secret,
    /// The token for the next exchange; `None` if the one that was sent stays valid.
    pub refresh_token: Option<Secret>,
    /// How long the provider accepts the access token, if it states that.
    pub expires_in: Option<Duration>,
    /// The owner of the login, if the provider states it.
    pub owner_id: Option<OwnerId>,
}

impl Tokens {
    /// An access token alone.
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

    /// Says how long the access token is accepted.
    #[must_use]
    pub fn expires_in(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.expires_in = lifetime.into();
        self
    }

    /// Says whose login it is.
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
    /// The provider will never accept this token again, so the user must log in. Other tokens are not affected.
    #[error("the login is no longer good: {reason}")]
    #[non_exhaustive]
    InvalidGrant {
        /// What the provider reported, in our own words.
        reason: Cow<'static, str>,
    },
    /// The provider rejects this client, whatever the token, so a setting must change. The token stays valid.
    #[error("logins cannot be renewed: {reason}")]
    #[non_exhaustive]
    InvalidClient {
        /// What the provider rejected, and what to do.
        reason: Cow<'static, str>,
    },
    /// The provider could not be reached, failed, or sent a malformed response. The token can be sent again later.
    #[error("the login could not be renewed for now: {reason}")]
    #[non_exhaustive]
    Transient {
        /// What happened.
        reason: Cow<'static, str>,
        /// The wait that the provider requested.
        retry_after: Option<Duration>,
        /// The cause, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl TokenError {
    /// The provider will never accept the token again.
    #[must_use]
    pub fn invalid_grant(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidGrant { reason: reason.into() }
    }

    /// The provider rejects this client.
    #[must_use]
    pub fn invalid_client(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidClient { reason: reason.into() }
    }

    /// The exchange can succeed later.
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
