//! A provider whose refresh tokens work once; one that comes again ends its login, and is counted.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::{Clock, ProviderId, Secret, TokenError, TokenRefresher, Tokens};

#[derive(Debug)]
pub(crate) struct Provider {
    clock: Clock,
    /// What each refresh token is: good, or spent, of which login.
    tokens: Mutex<HashMap<String, (String, bool)>>,
    number: AtomicU64,
    pub(crate) takes: Mutex<Duration>,
    pub(crate) fails: Mutex<Option<TokenError>>,
    pub(crate) breaks: Mutex<bool>,
    pub(crate) asked: AtomicU64,
    pub(crate) reuses: AtomicU64,
    at_once: AtomicU64,
    pub(crate) most_at_once: AtomicU64,
}

impl Provider {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            tokens: Mutex::default(),
            number: AtomicU64::new(0),
            takes: Mutex::default(),
            fails: Mutex::default(),
            breaks: Mutex::default(),
            asked: AtomicU64::new(0),
            reuses: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            most_at_once: AtomicU64::new(0),
        }
    }

    /// An access and a refresh token of a new login.
    pub(crate) fn log_in(&self, name: &str) -> (String, String) {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let refresh = format!("refresh-{name}-{number}");
        self.tokens.lock().unwrap().insert(refresh.clone(), (name.to_owned(), true));
        (format!("access-{name}-{number}"), refresh)
    }

    pub(crate) fn set_takes(&self, span: Duration) {
        *self.takes.lock().unwrap() = span;
    }

    pub(crate) fn set_fails(&self, error: Option<TokenError>) {
        *self.fails.lock().unwrap() = error;
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self, token: &str) -> Result<Tokens, TokenError> {
        if let Some(error) = self.fails.lock().unwrap().clone() {
            return Err(error);
        }
        let name = match self.tokens.lock().unwrap().get_mut(token) {
            Some((name, is_good @ true)) => {
                *is_good = false;
                name.clone()
            }
            _ => {
                self.reuses.fetch_add(1, Ordering::SeqCst);
                return Err(TokenError::invalid_grant("its refresh token is not accepted any more"));
            }
        };
        let (access, refresh) = self.log_in(&name);
        let lives = Duration::from_secs(8 * 3600);
        Ok(Tokens::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_in(lives))
    }
}

#[async_trait]
impl TokenRefresher for Provider {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        // Spent when it arrives; the answer takes a while.
        let answer = self.answer(refresh_token.expose());
        let takes = *self.takes.lock().unwrap();
        self.clock.sleep(takes).await;
        assert!(!*self.breaks.lock().unwrap(), "this exchange was told to break");
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}
