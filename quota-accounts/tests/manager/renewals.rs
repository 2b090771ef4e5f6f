//! Credentials that their source renews, and pending renewals.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::routing::Reason;
use quota_accounts::{
    FallbackAccountManager, Idempotency, Request, RequestOutcome, RetryAdvice, Route, RouteError,
};
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, Secret};

use crate::same_login::router;
use crate::support::*;

/// A source that renews a rejected credential at most `max_renewals` times, and counts the calls.
#[derive(Debug)]
struct Renewing {
    token: AtomicU64,
    renewals: AtomicU64,
    max_renewals: u64,
}

#[async_trait]
impl CredentialSource for Renewing {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let token = self.token.load(Ordering::SeqCst);
        if token == 0 {
            return Err(CredentialError::temporarily_unavailable(
                "it is being renewed",
                Some(Duration::from_secs(40)),
            ));
        }
        let login = LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(Secret::new(format!("token-{token}"))).login(login))
    }

    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let renewals = self.renewals.fetch_add(1, Ordering::SeqCst) + 1;
        if renewals <= self.max_renewals
            && rejected == Some(CredentialFingerprint::from_hash(self.token.load(Ordering::SeqCst)))
        {
            self.token.fetch_add(1, Ordering::SeqCst);
        }
        self.credential(account).await
    }
}

async fn manager(kind: Kind, token: u64) -> (Env, Arc<Renewing>, FallbackAccountManager) {
    let env = env(kind);
    let source = Arc::new(Renewing { token: token.into(), renewals: 0.into(), max_renewals: 1 });
    let accounts = env.builder_with(source.clone()).build().expect("a valid configuration");
    accounts.refresh_quota_for_due_accounts().await;
    (env, source, accounts)
}

fn rejected() -> RequestOutcome {
    RequestOutcome::from_response(401, [("a", "b")])
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_renewed_once_then_a_login_is_needed() {
    for kind in BOTH {
        let (_env, source, accounts) = manager(kind, 1).await;

        let first = accounts.route(Request::new()).await.unwrap();
        let once = accounts.report(&first, rejected()).await.unwrap();
        let second = accounts.route(Request::new()).await.unwrap();
        let twice = accounts.report(&second, rejected()).await.unwrap();

        assert_eq!((second.account(), once.next), (&id("main"), RetryAdvice::SameAccount), "{kind:?}");
        assert_eq!(second.credential().unwrap().secret.expose(), "token-2");
        assert_eq!(twice.next, RetryAdvice::OtherAccount, "{kind:?}");
        let next = accounts.route(Request::new()).await.unwrap();
        assert_eq!(next.account(), &id("b"), "{kind:?}");
        assert_eq!(source.renewals.load(Ordering::SeqCst), 2, "once for each rejection");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_with_a_pending_renewal_is_skipped_until_then() {
    for kind in BOTH {
        let (_env, _source, accounts) = manager(kind, 0).await;

        let error = accounts.route(Request::new()).await.unwrap_err();

        let RouteError::NoAccountAvailable { retry_after, skipped, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(40)), "{kind:?}");
        assert!(skipped.iter().all(|skipped| skipped.reason == Reason::LoginRenewing), "{skipped:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_retried_with_a_renewed_token_then_elsewhere() {
    for kind in BOTH {
        for (repeat, statuses, names, end) in [
            (Idempotency::Idempotent, &[401, 200][..], &["main", "main"][..], 200),
            (Idempotency::Idempotent, &[401], &["main", "main", "b", "c"], 401),
            (Idempotency::NotIdempotent, &[401, 200], &["main"], 401),
        ] {
            let (_env, _, accounts) = manager(kind, 1).await;
            let tried = RefCell::new(Vec::new());
            let send = |route: &Route| {
                let mut tried = tried.borrow_mut();
                let status = statuses[tried.len().min(statuses.len() - 1)];
                tried.push(route.account().name().to_owned());
                async move { (status, RequestOutcome::from_response(status, [("a", "b")])) }
            };

            let (got, _) =
                accounts.send_with_retry(Request::new(), repeat, send).await.expect("a valid configuration");

            assert_eq!(
                (tried.into_inner(), got),
                (names.iter().map(|name| (*name).to_owned()).collect(), end),
                "{kind:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_under_another_name_does_not_allow_another_retry() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        logins.set("again", Some(2), "one");
        accounts.refresh_quota_for_due_accounts().await;
        let route = async |name: &str| {
            let route = accounts.route(Request::new()).await.expect("an account is available");
            assert_eq!(route.account(), &id(name), "{kind:?}");
            route
        };
        let report = async |route: Route, status: u16| {
            let outcome = RequestOutcome::from_response(status, [("a", "b")]);
            accounts.report(&route, outcome).await.expect("the route is of this manager").next
        };
        let first = route("main").await;
        logins.set("main", Some(4), "one");
        assert_eq!(report(first, 401).await, RetryAdvice::SameAccount, "{kind:?}");
        assert_eq!(report(route("main").await, 401).await, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(report(route("again").await, 200).await, RetryAdvice::Done, "{kind:?}");

        logins.set("main", Some(5), "one");
        env.clock.sleep(Duration::from_secs(10)).await;
        let last = route("main").await;
        logins.set("main", Some(6), "one");

        assert_eq!(report(last, 401).await, RetryAdvice::OtherAccount, "{kind:?}");
    }
}

/// A source with a pending renewal of the main account for another 40 seconds.
#[derive(Debug)]
struct MainIsNotYet;

#[async_trait]
impl CredentialSource for MainIsNotYet {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        if *account == id("main") {
            return Err(CredentialError::temporarily_unavailable(
                "it is being renewed",
                Some(Duration::from_secs(40)),
            ));
        }
        Ok(Credential::new(Secret::new("a-token")))
    }
}

#[tokio::test(start_paused = true)]
async fn decide_agrees_with_route_during_a_renewal() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.builder_with(Arc::new(MainIsNotYet)).build().expect("a valid configuration");
        accounts.refresh_quota_for_due_accounts().await;

        let decision = accounts.decide(&Request::new()).await;
        let (decided, verdict) = (&decision.chosen().unwrap().account, &decision.accounts()[0]);
        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!((decided, route.account()), (&id("b"), &id("b")), "{kind:?}");
        let skipped = &route.skipped()[0];
        assert_eq!((verdict.reason, verdict.retry_at), (skipped.reason, skipped.retry_at), "{kind:?}");
        assert_eq!(verdict.reason, Reason::LoginRenewing, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn decide_has_the_wait_of_route_if_all_logins_are_renewing() {
    for kind in BOTH {
        let (_env, _, accounts) = manager(kind, 0).await;

        let decided = accounts.decide(&Request::new()).await.retry_after();
        let routed = accounts.route(Request::new()).await.unwrap_err().retry_after();

        assert_eq!(
            (decided, routed),
            (Some(Duration::from_secs(40)), Some(Duration::from_secs(40))),
            "{kind:?}"
        );
    }
}
