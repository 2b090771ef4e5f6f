//! Credentials that their source renews: when it is asked to, and what follows if it has not done so yet.

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

use crate::support::*;

/// A source that renews a refused credential as often as it may, and counts how often it was asked to.
#[derive(Debug)]
struct Renewing {
    token: AtomicU64,
    asked: AtomicU64,
    may: u64,
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
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if asked <= self.may
            && refused == Some(CredentialFingerprint::from_hash(self.token.load(Ordering::SeqCst)))
        {
            self.token.fetch_add(1, Ordering::SeqCst);
        }
        self.credential(account).await
    }
}

async fn manager(kind: Kind, token: u64) -> (World, Arc<Renewing>, FallbackAccountManager) {
    let world = world(kind);
    let source = Arc::new(Renewing { token: token.into(), asked: 0.into(), may: 1 });
    let accounts = world.builder_with(source.clone()).build().expect("there are accounts");
    accounts.refresh_quota_for_due_accounts().await;
    (world, source, accounts)
}

fn refused() -> RequestOutcome {
    RequestOutcome::from_response(401, [("a", "b")])
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once_and_a_second_refusal_needs_a_new_login() {
    for kind in BOTH {
        let (_world, source, accounts) = manager(kind, 1).await;

        let first = accounts.route(Request::new()).await.unwrap();
        let once = accounts.report(&first, refused()).await.unwrap();
        let second = accounts.route(Request::new()).await.unwrap();
        let twice = accounts.report(&second, refused()).await.unwrap();

        assert_eq!((second.account(), once.next), (&id("main"), RetryAdvice::SameAccount), "{kind:?}");
        assert_eq!(second.credential().unwrap().secret.expose(), "token-2");
        assert_eq!(twice.next, RetryAdvice::OtherAccount, "{kind:?}");
        let next = accounts.route(Request::new()).await.unwrap();
        assert_eq!(next.account(), &id("b"), "{kind:?}");
        assert_eq!(source.asked.load(Ordering::SeqCst), 2, "once for each refusal");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_login_is_not_renewed_yet_is_passed_over_until_it_may_be() {
    for kind in BOTH {
        let (_world, _source, accounts) = manager(kind, 0).await;

        let error = accounts.route(Request::new()).await.unwrap_err();

        let RouteError::NoAccountAvailable { retry_after, skipped, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(40)), "{kind:?}");
        assert!(skipped.iter().all(|skipped| skipped.reason == Reason::LoginRenewing), "{skipped:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_tried_once_more_where_its_token_was_renewed_and_then_elsewhere() {
    for kind in BOTH {
        for (repeat, statuses, names, end) in [
            (Idempotency::Idempotent, &[401, 200][..], &["main", "main"][..], 200),
            (Idempotency::Idempotent, &[401], &["main", "main", "b", "c"], 401),
            (Idempotency::NotIdempotent, &[401, 200], &["main"], 401),
        ] {
            let (_world, _, accounts) = manager(kind, 1).await;
            let tried = RefCell::new(Vec::new());
            let send = |route: &Route| {
                let mut tried = tried.borrow_mut();
                let status = statuses[tried.len().min(statuses.len() - 1)];
                tried.push(route.account().name().to_owned());
                async move { (status, RequestOutcome::from_response(status, [("a", "b")])) }
            };

            let (got, _) =
                accounts.send_with_retry(Request::new(), repeat, send).await.expect("there are accounts");

            assert_eq!(
                (tried.into_inner(), got),
                (names.iter().map(|name| (*name).to_owned()).collect(), end),
                "{kind:?}"
            );
        }
    }
}

/// A source whose login of the main account is being renewed for another 40 seconds.
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
async fn what_is_decided_while_a_login_is_being_renewed_is_what_is_routed() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.builder_with(Arc::new(MainIsNotYet)).build().expect("there are accounts");
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
async fn when_all_logins_are_being_renewed_what_is_decided_ends_when_the_route_says() {
    for kind in BOTH {
        let (_world, _, accounts) = manager(kind, 0).await;

        let decided = accounts.decide(&Request::new()).await.retry_after();
        let routed = accounts.route(Request::new()).await.unwrap_err().retry_after();

        assert_eq!(
            (decided, routed),
            (Some(Duration::from_secs(40)), Some(Duration::from_secs(40))),
            "{kind:?}"
        );
    }
}
