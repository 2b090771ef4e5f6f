//! Unreadable credentials: the account becomes available again without a new login.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use quota_accounts::routing::Reason;
use quota_accounts::{FallbackAccountManager, Request, RetryAdvice, RoutingMode, RoutingPolicy};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, Secret};

use crate::logins::{next, unauthorized};
use crate::support::*;

const NAMES: [&str; 3] = ["main", "b", "c"];

/// The behavior of a source for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behavior {
    Reads,
    CannotRead,
    Renews,
    /// Takes longer than a refresh waits, and less long than a request.
    IsSlow,
    Hangs,
    Panics,
}

/// A source with a scripted behavior for each account.
#[derive(Debug, Default)]
struct ScriptedSource(Mutex<HashMap<AccountId, Behavior>>);

impl ScriptedSource {
    fn set(&self, name: &str, behavior: Behavior) {
        self.0.lock().expect("no thread panics").insert(id(name), behavior);
    }
}

#[async_trait]
impl CredentialSource for ScriptedSource {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let behavior =
            self.0.lock().expect("no thread panics").get(account).copied().unwrap_or(Behavior::Reads);
        if behavior == Behavior::IsSlow {
            quota_core::Clock::system().sleep(Duration::from_secs(15)).await;
        }
        match behavior {
            Behavior::Reads | Behavior::IsSlow => {
                // Each account has a login and a token of its own.
                let token = account.name().bytes().map(u64::from).sum();
                let login = LoginInfo::new(LoginId::new(account.name()))
                    .fingerprint(CredentialFingerprint::from_hash(token));
                Ok(Credential::new(Secret::new("n33dle")).login(login))
            }
            Behavior::CannotRead => {
                let locked = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
                Err(CredentialError::unreadable("the keychain is locked", locked))
            }
            Behavior::Hangs => std::future::pending().await,
            Behavior::Panics => panic!("panics on purpose"),
            Behavior::Renews => Err(CredentialError::temporarily_unavailable(
                "a renewal is in progress",
                Some(Duration::from_secs(5)),
            )),
        }
    }
}

fn all_faults() -> impl Iterator<Item = (Kind, Behavior)> {
    [Behavior::Hangs, Behavior::Panics].into_iter().flat_map(|behavior| BOTH.map(|kind| (kind, behavior)))
}

fn accounts_of(env: &Env) -> (Arc<ScriptedSource>, FallbackAccountManager) {
    let source = Arc::new(ScriptedSource::default());
    let accounts = env.builder_with(source.clone()).build().expect("a valid configuration");
    (source, accounts)
}

#[tokio::test(start_paused = true)]
async fn an_account_with_an_unreadable_credential_is_skipped() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", Behavior::CannotRead);

        let route = accounts.route(Request::new()).await.expect("another is available");

        let until = env.clock.now() + env.policy.throttle_cooldown;
        let skipped = &route.skipped()[0];
        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!(
            (skipped.reason, skipped.retry_at),
            (Reason::CredentialUnavailable, Some(until)),
            "{kind:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_readable_credential_the_error_has_a_wait() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        NAMES.iter().for_each(|name| source.set(name, Behavior::CannotRead));

        let error = accounts.route(Request::new()).await.expect_err("none can be read");
        let decided = accounts.decide(&Request::new()).await.retry_after();

        assert_eq!(error.retry_after(), Some(env.policy.throttle_cooldown), "{kind:?} {error:?}");
        assert_eq!(decided, error.retry_after(), "{kind:?}: the decision agrees");
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_readable_again_is_used_within_a_second() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", Behavior::CannotRead);
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        source.set("main", Behavior::Reads);
        env.clock.sleep(Duration::from_secs(1)).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_returns_once_the_credential_is_readable() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let (source, accounts) = accounts_of(&env);
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_session("s");
        let routed = async || accounts.route(request()).await.expect("one can be read").account().clone();
        let own = routed().await;

        source.set(own.name(), Behavior::CannotRead);
        let then = routed().await;
        source.set(own.name(), Behavior::Reads);
        env.clock.sleep(Duration::from_secs(1)).await;

        assert_ne!(own, then, "{kind:?}: it behavior not wait");
        assert_eq!(routed().await, own, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn decide_agrees_with_route_about_unreadable_credentials() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", Behavior::CannotRead);
        source.set("b", Behavior::Renews);

        let decision = accounts.decide(&Request::new()).await;

        let rules: Vec<_> = decision.accounts().iter().map(|evaluated| evaluated.reason).collect();
        assert_eq!(rules[..2], [Reason::CredentialUnavailable, Reason::LoginRenewing], "{kind:?}");
        assert_eq!(decision.chosen().map(|chosen| &chosen.account), Some(&next(&accounts).await), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_faulty_source_delays_a_request_at_most_by_its_timeout() {
    for (kind, behavior) in all_faults() {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", behavior);
        let began = env.clock.now();

        let route = accounts.route(Request::new()).await.expect("another can be read");

        let took = env.clock.now().duration_since(began);
        assert!(took <= env.policy.credential_timeout.try_into().unwrap(), "{kind:?} {behavior:?} {took:?}");
        let until = env.clock.now() + env.policy.throttle_cooldown;
        let skipped = &route.skipped()[0];
        assert_eq!(route.account(), &id("b"), "{kind:?} {behavior:?}");
        assert_eq!(
            (skipped.reason, skipped.retry_at),
            (Reason::CredentialUnavailable, Some(until)),
            "{kind:?} {behavior:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_timed_out_is_skipped_for_the_cooldown() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", Behavior::Hangs);
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        let began = env.clock.now();

        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        assert_eq!(env.clock.now(), began, "{kind:?}: no request waits for it again");
        let explained = accounts.explain(&Request::new()).accounts()[0].reason;
        assert_eq!(explained, Reason::CredentialUnavailable, "{kind:?}");

        source.set("main", Behavior::Reads);
        minutes(&env.clock, 1).await;
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_waited_for_and_its_account_is_not_skipped() {
    for kind in BOTH {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        NAMES.iter().for_each(|name| source.set(name, Behavior::IsSlow));

        let route = accounts.route(Request::new()).await.expect("the source answers in time");

        assert_eq!((route.account(), route.skipped()), (&id("main"), &[][..]), "{kind:?}");
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_faulty_source_does_not_block_a_decision() {
    for (kind, behavior) in all_faults() {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        source.set("main", behavior);

        let decision = accounts.decide(&Request::new()).await;

        assert_eq!(decision.accounts()[0].reason, Reason::CredentialUnavailable, "{kind:?} {behavior:?}");
        assert_eq!(decision.chosen().map(|chosen| &chosen.account), Some(&id("b")), "{kind:?} {behavior:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_faulty_source_does_not_block_a_report() {
    for (kind, behavior) in all_faults() {
        let env = env(kind);
        let (source, accounts) = accounts_of(&env);
        let route = accounts.route(Request::new()).await.expect("all can be read");
        source.set("main", behavior);
        let began = env.clock.now();

        let report = accounts.report(&route, unauthorized()).await.expect("a route of this manager");
        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?} {behavior:?}");
        // The rejected credential is read again, in case it has changed.
        minutes(&env.clock, 1).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?} {behavior:?}");

        let took = env.clock.now().duration_since(began) - SignedDuration::from_mins(1);
        let twice = 2 * env.policy.credential_timeout;
        assert!(took <= twice.try_into().unwrap(), "{kind:?} {behavior:?} {took:?}");
    }
}
