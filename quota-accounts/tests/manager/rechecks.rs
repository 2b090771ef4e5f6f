//! Accounts that are refused anyway: a request does not wait for their credentials.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::{AccountsConfig, FallbackAccountManager, Request};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};

use crate::logins::{next, unauthorized};
use crate::support::*;

/// Returns a token, for the main account after a delay as a command does.
#[derive(Debug)]
struct Slow {
    clock: Clock,
    delay: Mutex<Duration>,
    token: AtomicU64,
    /// The reads for the main account.
    reads: AtomicUsize,
}

#[async_trait]
impl CredentialSource for Slow {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let delay = *self.delay.lock().expect("no thread panics");
        if *account == id("main") {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.clock.sleep(delay).await;
        }
        let token = self.token.load(Ordering::Relaxed);
        let login =
            LoginInfo::new(LoginId::new(account.name())).fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(format!("n33dle-{token}")).login(login))
    }
}

/// A router whose first `refused` accounts have a rejected login, and whose source now takes `delay` and returns another token.
async fn refused(env: &Env, refused: usize, delay: Duration) -> (Arc<Slow>, FallbackAccountManager) {
    let clock = env.clock.clone();
    let (delay_now, reads) = (Mutex::default(), AtomicUsize::new(0));
    let source = Arc::new(Slow { clock, delay: delay_now, token: AtomicU64::new(1), reads });
    let accounts = env.builder_with(source.clone()).build().expect("a valid configuration");
    accounts.refresh_quota_for_due_accounts().await;
    for _ in 0..refused {
        let route = accounts.route(Request::new()).await.expect("one is left");
        let _ = accounts.report(&route, unauthorized()).await.expect("the route belongs to this manager");
    }
    env.clock.sleep(Duration::from_secs(10)).await;
    source.token.store(2, Ordering::Relaxed);
    *source.delay.lock().expect("no thread panics") = delay;
    (source, accounts)
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_the_source_of_a_refused_account() {
    for kind in BOTH {
        let env = env(kind);
        let (_source, accounts) = refused(&env, 1, Duration::from_secs(3)).await;
        let began = env.clock.now();

        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        let took = Duration::try_from(env.clock.now().duration_since(began)).expect("time passes");
        assert!(took <= Duration::from_millis(100), "{kind:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_credential_from_a_slow_source_counts_for_the_next_request() {
    for kind in BOTH {
        let env = env(kind);
        let (_source, accounts) = refused(&env, 1, Duration::from_secs(3)).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        env.clock.sleep(Duration::from_secs(3)).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_available_account_waits_for_slow_sources() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main"));
        let (_source, accounts) = refused(&env, 1, Duration::from_secs(3)).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_available_account_waits_no_longer_than_its_timeout() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main"));
        let (_source, accounts) = refused(&env, 1, Duration::from_secs(8)).await;
        let began = env.clock.now();

        let error = accounts.route(Request::new()).await.expect_err("its credential is not read yet");

        let took = Duration::try_from(env.clock.now().duration_since(began)).expect("time passes");
        assert_eq!(took, Duration::from_secs(5), "{kind:?}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)), "{kind:?}");
        env.clock.sleep(Duration::from_secs(4)).await;
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}: the read has continued");
    }
}

#[tokio::test(start_paused = true)]
async fn the_refresh_of_all_accounts_does_not_wait_for_the_source_of_a_held_one() {
    // Without a quota manager, a 429 holds only its account.
    let env = env(Kind::Without);
    let (source, accounts) = refused(&env, 0, Duration::ZERO).await;
    minutes(&env.clock, 6).await;
    env.provider.then_fail(quota_core::FetchError::throttled(Some(Duration::from_secs(1800))));
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&env.clock, 6).await;
    *source.delay.lock().expect("no thread panics") = Duration::from_secs(15);
    let began = env.clock.now();

    let refreshed = accounts.refresh_quota_for_due_accounts().await;

    let took = Duration::try_from(env.clock.now().duration_since(began)).expect("time passes");
    assert_eq!(
        (refreshed.len(), took <= Duration::from_secs(5)),
        (2, true),
        "{took:?} {:?}",
        accounts.explain(&Request::new())
    );
}

#[tokio::test(start_paused = true)]
async fn many_requests_at_once_start_one_check_of_a_refused_account() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = refused(&env, 1, Duration::from_secs(3)).await;
        let before = source.reads.load(Ordering::Relaxed);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let accounts = accounts.clone();
            requests.spawn(async move { next(&accounts).await });
        }

        assert!(requests.join_all().await.iter().all(|account| *account == id("b")), "{kind:?}");

        assert_eq!(source.reads.load(Ordering::Relaxed) - before, 1, "{kind:?}");
    }
}
