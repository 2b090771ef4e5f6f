//! Credentials that are rejected, missing or replaced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::routing::Reason;
use quota_accounts::{
    FallbackAccountManager, Limits, Request, RequestOutcome, RetryAdvice, RoutingMode, RoutingPolicy,
};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, OwnerId};
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource, Secret, UsageReport};

use crate::support::*;

/// Logins that change while the program runs.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<HashMap<AccountId, (Option<u64>, &'static str)>>);

impl Logins {
    pub(crate) fn set(&self, name: &str, token: Option<u64>, login_id: &'static str) {
        self.0.lock().unwrap_or_else(|error| error.into_inner()).insert(id(name), (token, login_id));
    }
}

#[async_trait]
impl CredentialSource for Logins {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let logins = self.0.lock().unwrap_or_else(|error| error.into_inner());
        // The other accounts have logins of their own: accounts of one login share its readings.
        let default = if account.name() == "main" { "someone" } else { account.name() };
        let (token, login_id) = logins.get(account).copied().unwrap_or((Some(1), default));
        let token = token.ok_or_else(|| CredentialError::not_logged_in("log in with `example login`"))?;
        let login =
            LoginInfo::new(LoginId::new(login_id)).fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(Secret::new(format!("n33dle-{token}"))).login(login))
    }
}

pub(crate) async fn logged_in(kind: Kind) -> (Env, Arc<Logins>, FallbackAccountManager) {
    let env = env(kind);
    let logins = Arc::new(Logins::default());
    let source: Arc<dyn CredentialSource> = logins.clone();
    let accounts = env.builder_with(source).response_parser(ExampleParser);
    let accounts = accounts.build().expect("a valid configuration");
    accounts.refresh_quota_for_due_accounts().await;
    (env, logins, accounts)
}

pub(crate) fn unauthorized() -> RequestOutcome {
    RequestOutcome::from_response(401, [("a", "b")])
}

pub(crate) async fn next(accounts: &FallbackAccountManager) -> AccountId {
    accounts.route(Request::new()).await.expect("an account is available").account().clone()
}

#[tokio::test(start_paused = true)]
async fn a_route_carries_its_accounts_credential() {
    for kind in BOTH {
        let (_env, logins, accounts) = logged_in(kind).await;
        logins.set("main", Some(7), "someone");

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.credential().unwrap().secret.expose(), "n33dle-7", "{kind:?}");
        assert!(!format!("{route:?}").contains("n33dle"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_without_a_login_is_skipped() {
    for kind in BOTH {
        let (_env, logins, accounts) = logged_in(kind).await;
        logins.set("main", None, "someone");

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!(route.skipped()[0].reason, Reason::LoginRejected, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_login_the_error_says_so() {
    for kind in BOTH {
        let (_env, logins, accounts) = logged_in(kind).await;
        ["main", "b", "c"].iter().for_each(|name| logins.set(name, None, "someone"));

        let error = accounts.route(Request::new()).await.unwrap_err();

        assert_eq!(error.retry_after(), None, "{kind:?} {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_is_retried_with_a_changed_credential() {
    for kind in BOTH {
        let (_env, logins, accounts) = logged_in(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        logins.set("main", Some(2), "someone");

        let report = accounts.report(&route, unauthorized()).await.unwrap();

        assert_eq!((report.next, next(&accounts).await), (RetryAdvice::SameAccount, id("main")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_is_skipped_until_there_is_a_new_one() {
    for kind in BOTH {
        let (env, logins, accounts) = logged_in(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, unauthorized()).await.unwrap();
        assert_eq!((report.next, next(&accounts).await), (RetryAdvice::OtherAccount, id("b")), "{kind:?}");
        minutes(&env.clock, 60).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        logins.set("main", Some(2), "someone");
        minutes(&env.clock, 1).await;
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_ends_the_block_of_the_old_one_on_disk_too() {
    for kind in BOTH {
        let (env, logins, accounts) = logged_in(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, unauthorized()).await.unwrap();
        assert!(env.stored().contains("unauthorized"), "{kind:?}");
        logins.set("main", Some(2), "someone");
        minutes(&env.clock, 1).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
        accounts.flush().await.unwrap();

        assert!(!env.stored().contains("unauthorized"), "{kind:?} {}", env.stored());
    }
}

/// A source that takes a second to renew a token before it returns it.
#[derive(Debug)]
struct Slow(Clock);

#[async_trait]
impl CredentialSource for Slow {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        self.0.sleep(Duration::from_secs(1)).await;
        Ok(Credential::new(Secret::new("n33dle")))
    }
}

pub(crate) fn stop_at(left: f64) -> RoutingPolicy {
    RoutingPolicy::default().killswitch(Limits::of(percent(left)))
}

#[tokio::test(start_paused = true)]
async fn readings_that_arrive_during_a_renewal_count_for_the_request() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = stop_at(5.0);
        let source = Arc::new(Slow(env.clock.clone()));
        let accounts = env.builder_with(source).response_parser(ExampleParser).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;
        let other = accounts.route(Request::new()).await.unwrap();

        let falls = async {
            env.clock.sleep(Duration::from_millis(500)).await;
            let outcome = RequestOutcome::from_response(200, [("x-ratelimit-used", "96")]);
            accounts.report(&other, outcome).await.unwrap()
        };
        let (route, _) = tokio::join!(accounts.route(Request::new()), falls);

        let route = route.unwrap();
        assert_eq!((other.account(), route.account()), (&id("main"), &id("b")), "{kind:?}");
        assert_eq!(route.skipped()[0].reason, Reason::BelowKillswitch, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_killswitch_counts_for_every_source_and_login() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = stop_at(5.0);
        // A source of one token that states no login.
        let vault = Arc::new(quota_credentials::StaticCredential::new(Secret::new("n33dle")));
        let accounts = env.builder_with(vault).build().unwrap();
        let set_usage = |used: f64, whose: &str| {
            let usage = UsageReport::polled([env.five_hour(used)]).owner_id(OwnerId::new(whose));
            env.provider.answer(usage);
        };
        set_usage(97.0, "org-1");
        accounts.refresh_quota_for_due_accounts().await;
        let before = accounts.route(Request::new()).await;
        minutes(&env.clock, 6).await;

        set_usage(5.0, "org-2");
        let after = next(&accounts).await;

        assert!(before.is_err(), "{kind:?}: all are below the killswitch");
        assert_eq!((after, used(&accounts, "main")), (id("main"), Some(5.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_ends_the_block_of_the_old_one_once() {
    for kind in BOTH {
        let (env, logins, accounts) = logged_in(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, unauthorized()).await.unwrap();
        logins.set("main", Some(2), "someone");
        minutes(&env.clock, 1).await;
        let route = accounts.route(Request::new()).await.unwrap();
        assert_eq!(route.account(), &id("main"), "{kind:?}");

        // The new token is rejected too. It is not retried just because it differs from the first.
        let report = accounts.report(&route, unauthorized()).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!((report.next, next(&accounts).await), (RetryAdvice::OtherAccount, id("b")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn late_headers_of_an_old_login_are_dropped() {
    for kind in BOTH {
        let (env, logins, accounts) = logged_in(kind).await;
        logins.set("main", Some(1), "old");
        env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("old"))));
        minutes(&env.clock, 6).await;
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.unwrap();
        // The login changes while the request is in flight.
        logins.set("main", Some(2), "new");
        env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("new"))));
        minutes(&env.clock, 6).await;
        env.set_usage(5.0);
        accounts.refresh_quota_for_due_accounts().await;

        let _ = accounts
            .report(&route, RequestOutcome::from_response(200, [("x-ratelimit-used", "99")]))
            .await
            .unwrap();

        assert_eq!(used(&accounts, "main"), Some(5.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_is_stored() {
    for kind in BOTH {
        let (env, _logins, accounts) = logged_in(kind).await;
        let route = accounts.route(Request::new().with_session("n33dle").with_model("big")).await.unwrap();
        let _ = accounts.report(&route, unauthorized().body(b"n33dle")).await.unwrap();
        accounts.flush().await.unwrap();

        assert!(!env.stored().contains("n33dle") && !env.stored().is_empty(), "{kind:?}");
        assert!(!format!("{accounts:?}").contains("n33dle"));
    }
}

#[tokio::test(start_paused = true)]
async fn decide_agrees_with_route_about_credentials() {
    for kind in BOTH {
        let env = env(kind);
        let logins = Arc::new(Logins::default());
        logins.set("main", None, "someone");
        let accounts = env.builder_with(logins.clone()).build().expect("a valid configuration");

        let decision = accounts.decide(&Request::new()).await;

        let rules: Vec<_> = decision.accounts().iter().map(|evaluated| evaluated.reason).collect();
        assert_eq!(decision.chosen().map(|chosen| &chosen.account), Some(&id("b")), "{kind:?}");
        assert_eq!(
            rules[..2],
            [Reason::LoginRejected, Reason::Available],
            "{kind:?}: the other account was refreshed"
        );
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn decide_remembers_no_session() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        let request = Request::new().with_session("s");
        let stored = || env.stored_sessions();

        let decided = accounts.decide(&request).await.chosen().map(|chosen| chosen.account.clone());
        accounts.flush().await.expect("the file can be written");
        assert!(!stored().contains("\"session\""), "{kind:?}: {}", stored());

        let routed = accounts.route(request).await.expect("all are available");
        accounts.flush().await.expect("the file can be written");
        assert!(stored().contains("\"session\""), "{kind:?}: {}", stored());
        assert_eq!(decided.as_ref(), Some(routed.account()), "{kind:?}");
    }
}
