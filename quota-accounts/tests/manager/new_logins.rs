//! A new login in an account: no state of the old login applies to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::{FallbackAccountManager, Reason, Request, RequestOutcome, RetryAdvice};
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, FetchError, Secret, UsageReport};

use crate::logins::{Logins, logged_in, next, stop_at, unauthorized};
use crate::support::*;

/// Replaces the login of the main account.
fn log_in(logins: &Logins, token: u64, who: &'static str) {
    logins.set("main", Some(token), who);
}

/// An environment whose main account has the old login, used to `used`.
async fn held_by_old(kind: Kind, used: f64, stop: f64) -> (Env, Arc<Logins>, FallbackAccountManager) {
    let mut env = env(kind);
    env.policy = stop_at(stop);
    let logins = Arc::new(Logins::default());
    log_in(&logins, 1, "old");
    let source: Arc<dyn CredentialSource> = logins.clone();
    let accounts = env.builder_with(source).response_parser(ExampleParser);
    let accounts = accounts.build().expect("a valid configuration");
    env.provider.then_answer(UsageReport::polled([env.five_hour(used)]));
    accounts.refresh_quota_for_due_accounts().await;
    (env, logins, accounts)
}

#[tokio::test(start_paused = true)]
async fn a_route_refreshes_a_new_login_although_the_old_one_is_on_hold() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 100.0, 0.0).await;
        minutes(&env.clock, 6).await;
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 2).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}: the old login is exhausted");

        log_in(&logins, 2, "new");
        env.set_usage(5.0);
        minutes(&env.clock, 2).await;

        assert_eq!((next(&accounts).await, used(&accounts, "main")), (id("main"), Some(5.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_refreshed_although_the_old_one_is_on_hold() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 100.0, 0.0).await;
        minutes(&env.clock, 6).await;
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.refresh_quota_for_due_accounts().await;
        log_in(&logins, 2, "new");
        env.set_usage(5.0);
        minutes(&env.clock, 2).await;

        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!(used(&accounts, "main"), Some(5.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readings_of_the_old_login_do_not_bypass_the_killswitch() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 10.0, 5.0).await;
        minutes(&env.clock, 1).await;

        log_in(&logins, 2, "new");
        env.provider.then_answer(UsageReport::polled([env.five_hour(97.0)]));
        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!(route.skipped()[0].reason, Reason::BelowKillswitch, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readings_of_a_new_login_are_saved() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 10.0, 0.0).await;
        minutes(&env.clock, 1).await;

        log_in(&logins, 2, "new");
        env.set_usage(67.89);
        let _ = accounts.route(Request::new()).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!(env.stored().matches("6789").count(), 1, "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn stored_readings_of_an_old_login_do_not_count_for_the_new_one() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 100.0, 0.0).await;
        accounts.flush().await.unwrap();
        log_in(&logins, 2, "new");
        env.set_usage(5.0);
        minutes(&env.clock, 1).await;

        let restarted = env.restarted();
        let accounts = restarted.builder_with(logins).build().expect("a valid configuration");

        assert_eq!((next(&accounts).await, used(&accounts, "main")), (id("main"), Some(5.0)), "{kind:?}");
    }
}

// A 403 and a 429 without readings: only the rejection of the new login is stored.
#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_login_without_readings_survives_a_restart() {
    for (kind, status) in BOTH.into_iter().flat_map(|kind| [(kind, 403), (kind, 429)]) {
        let (env, logins, accounts) = held_by_old(kind, 10.0, 0.0).await;
        accounts.flush().await.unwrap();
        minutes(&env.clock, 6).await;
        log_in(&logins, 2, "new");
        env.provider.then_fail(FetchError::unavailable("it is out of service"));

        let route = accounts.route(Request::new()).await.unwrap();
        assert_eq!((route.account(), used(&accounts, "main")), (&id("main"), None), "{kind:?}");
        let rejected = RequestOutcome::from_response(status, [("retry-after", "1800")]);
        let _ = accounts.report(&route, rejected).await.unwrap();
        accounts.flush().await.unwrap();

        let restarted = env.restarted();
        let accounts = restarted.builder_with(logins).build().expect("a valid configuration");
        assert_eq!(next(&accounts).await, id("b"), "{kind:?} {status} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_ends_the_exhaustion_of_the_old_one() {
    for kind in BOTH {
        let (env, logins, accounts) = logged_in(kind).await;
        minutes(&env.clock, 1).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let exhausted = RequestOutcome::from_response(200, [("x-ratelimit-used", "100")]);
        let _ = accounts.report(&route, exhausted).await.unwrap();
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}: the old login is exhausted");

        logins.set("main", Some(2), "new");
        env.set_usage(5.0);
        minutes(&env.clock, 2).await;

        assert_eq!((next(&accounts).await, used(&accounts, "main")), (id("main"), Some(5.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_of_the_old_login_does_not_count_for_the_new_one() {
    for kind in BOTH {
        let (env, logins, accounts) = held_by_old(kind, 40.0, 0.0).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts
            .report(&route, RequestOutcome::from_response(429, [("x-ratelimit-exhausted", "account")]))
            .await;
        assert!(env.stored().contains("quota_exhausted"), "{kind:?} {}", env.stored());
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        log_in(&logins, 2, "new");
        env.set_usage(5.0);
        minutes(&env.clock, 2).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
        accounts.flush().await.unwrap();
        let accounts = env.restarted().builder_with(logins).build().expect("a valid configuration");
        assert_eq!(next(&accounts).await, id("main"), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_without_a_fingerprint_ends_when_the_login_works() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 1).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, unauthorized()).await.unwrap();
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        // After a new login the provider reports usage again.
        minutes(&env.clock, 6).await;
        accounts.refresh_quota_for_due_accounts().await;
        accounts.flush().await.unwrap();

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
        assert_eq!(next(&env.restarted().accounts()).await, id("main"), "{kind:?}: on disk too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_without_a_fingerprint_lasts_as_long_as_a_forbidden_one() {
    for kind in BOTH {
        let mut env = env(kind);
        // So that no refresh updates the login in between.
        env.usage_policy = env.usage_policy.clone().max_age(Duration::from_secs(1));
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, unauthorized()).await.unwrap();

        let blocked = |name: &str| {
            let decision = accounts.explain(&Request::new());
            decision.accounts().iter().find(|evaluated| evaluated.account == id(name)).unwrap().clone()
        };
        let until = env.clock.now() + jiff::SignedDuration::from_hours(1);
        assert_eq!(
            (blocked("main").reason, blocked("main").retry_at),
            (Reason::LoginRejected, Some(until)),
            "{kind:?}"
        );
        minutes(&env.clock, 60).await;
        assert_ne!(blocked("main").reason, Reason::LoginRejected, "{kind:?}");
    }
}

/// Returns another token at each call.
#[derive(Debug, Default)]
struct Printer(AtomicU64);

#[async_trait]
impl CredentialSource for Printer {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let token = self.0.fetch_add(1, Ordering::Relaxed);
        let login = LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(Secret::new(format!("n33dle-{token}"))).login(login))
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_with_another_credential_each_time_is_tried_twice() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.builder_with(Arc::new(Printer::default())).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;

        let mut tries = Vec::new();
        for _ in 0..20 {
            let route = accounts.route(Request::new()).await.unwrap();
            if route.account() != &id("main") {
                break;
            }
            tries.push(accounts.report(&route, unauthorized()).await.unwrap().next);
        }
        env.clock.sleep(Duration::from_secs(10)).await;

        assert_eq!(tries, [RetryAdvice::SameAccount, RetryAdvice::OtherAccount], "{kind:?}");
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}: another credential changes nothing");
    }
}
