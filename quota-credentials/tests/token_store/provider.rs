//! A fake provider whose refresh tokens work once. It counts reused tokens and rejects them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::provider::{TokenError, TokenRefresher, Tokens};
use quota_core::{Clock, ProviderId, Secret};

#[derive(Debug)]
pub(crate) struct Provider {
    clock: Clock,
    /// The login of each refresh token, and whether the token is unused.
    tokens: Mutex<HashMap<String, (String, bool)>>,
    next_number: AtomicU64,
    latency: Mutex<Duration>,
    error: Mutex<Option<TokenError>>,
    pub(crate) panics: Mutex<bool>,
    requests: AtomicU64,
    pub(crate) reuses: AtomicU64,
    concurrent: AtomicU64,
    pub(crate) max_concurrent: AtomicU64,
}

impl Provider {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            tokens: Mutex::default(),
            next_number: AtomicU64::new(0),
            latency: Mutex::default(),
            error: Mutex::default(),
            panics: Mutex::default(),
            requests: AtomicU64::new(0),
            reuses: AtomicU64::new(0),
            concurrent: AtomicU64::new(0),
            max_concurrent: AtomicU64::new(0),
        }
    }

    /// The access token and the refresh token of a new login.
    pub(crate) fn log_in(&self, name: &str) -> (String, String) {
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        let refresh = format!("refresh-{name}-{number}");
        self.tokens.lock().unwrap().insert(refresh.clone(), (name.to_owned(), true));
        (format!("access-{name}-{number}"), refresh)
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    pub(crate) fn set_error(&self, error: Option<TokenError>) {
        *self.error.lock().unwrap() = error;
    }

    pub(crate) fn request_count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn respond(&self, token: &str) -> Result<Tokens, TokenError> {
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        let name = match self.tokens.lock().unwrap().get_mut(token) {
            Some((name, is_unused @ true)) => {
                *is_unused = false;
                name.clone()
            }
            _ => {
                self.reuses.fetch_add(1, Ordering::SeqCst);
                return Err(TokenError::invalid_grant("the refresh token was used before"));
            }
        };
        let (access, refresh) = self.log_in(&name);
        let lifetime = Duration::from_secs(8 * 3600);
        Ok(Tokens::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_in(lifetime))
    }
}

#[async_trait]
impl TokenRefresher for Provider {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let concurrent = self.concurrent.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_concurrent.fetch_max(concurrent, Ordering::SeqCst);
        // The token counts as used when the request arrives, before the latency.
        let response = self.respond(refresh_token.expose());
        let latency = *self.latency.lock().unwrap();
        self.clock.sleep(latency).await;
        assert!(!*self.panics.lock().unwrap(), "the test makes this request panic");
        self.concurrent.fetch_sub(1, Ordering::SeqCst);
        response
    }
}
