//! Unreadable credentials: they need no new login, and the account is available again by itself.

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

/// What a source does when it is asked about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Reads,
    CannotRead,
    Renews,
    Hangs,
    Breaks,
}

/// A source that does as it is told, and reads unless it is told otherwise.
#[derive(Debug, Default)]
struct Moody(Mutex<HashMap<AccountId, Does>>);

impl Moody {
    fn set(&self, name: &str, does: Does) {
        self.0.lock().expect("no thread panics").insert(id(name), does);
    }
}

#[async_trait]
impl CredentialSource for Moody {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let does = self.0.lock().expect("no thread panics").get(account).copied().unwrap_or(Does::Reads);
        match does {
            Does::Reads => {
                let login =
                    LoginInfo::new(LoginId::new("someone")).fingerprint(CredentialFingerprint::from_hash(1));
                Ok(Credential::new(Secret::new("n33dle")).login(login))
            }
            Does::CannotRead => {
                let locked = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
                Err(CredentialError::unreadable("the keychain is locked", locked))
            }
            Does::Hangs => std::future::pending().await,
            Does::Breaks => panic!("a source that breaks on purpose"),
            Does::Renews => {
                Err(CredentialError::temporarily_unavailable("it is renewed", Some(Duration::from_secs(5))))
            }
        }
    }
}

fn all_faults() -> impl Iterator<Item = (Kind, Does)> {
    [Does::Hangs, Does::Breaks].into_iter().flat_map(|does| BOTH.map(|kind| (kind, does)))
}

fn accounts_of(world: &World) -> (Arc<Moody>, FallbackAccountManager) {
    let source = Arc::new(Moody::default());
    let accounts = world.builder_with(source.clone()).build().expect("there are accounts");
    (source, accounts)
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_credential_cannot_be_read_is_passed_over_for_a_pause() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", Does::CannotRead);

        let route = accounts.route(Request::new()).await.expect("another has room");

        let until = world.clock.now() + world.policy.throttle_cooldown;
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
async fn where_no_credential_can_be_read_the_answer_says_when_to_come_back() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        NAMES.iter().for_each(|name| source.set(name, Does::CannotRead));

        let error = accounts.route(Request::new()).await.expect_err("none can be read");
        let decided = accounts.decide(&Request::new()).await.retry_after();

        assert_eq!(error.retry_after(), Some(world.policy.throttle_cooldown), "{kind:?} {error:?}");
        assert_eq!(decided, error.retry_after(), "{kind:?}: a decision says the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_can_be_read_again_is_used_at_once() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", Does::CannotRead);
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");

        source.set("main", Does::Reads);

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_comes_back_to_its_account_once_the_credential_can_be_read() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let (source, accounts) = accounts_of(&world);
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_session("s");
        let routed = async || accounts.route(request()).await.expect("one can be read").account().clone();
        let own = routed().await;

        source.set(own.name(), Does::CannotRead);
        let then = routed().await;
        source.set(own.name(), Does::Reads);

        assert_ne!(own, then, "{kind:?}: it is not kept waiting");
        assert_eq!(routed().await, own, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_of_credentials_that_are_not_there_yet_is_what_a_route_would_do() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", Does::CannotRead);
        source.set("b", Does::Renews);

        let decision = accounts.decide(&Request::new()).await;

        let rules: Vec<_> = decision.accounts().iter().map(|evaluated| evaluated.reason).collect();
        assert_eq!(rules[..2], [Reason::CredentialUnavailable, Reason::LoginRenewing], "{kind:?}");
        assert_eq!(decision.chosen().map(|chosen| &chosen.account), Some(&next(&accounts).await), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_or_breaks_holds_no_request_up() {
    for (kind, does) in all_faults() {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", does);
        let began = world.clock.now();

        let route = accounts.route(Request::new()).await.expect("another can be read");

        let took = world.clock.now().duration_since(began);
        assert!(took <= world.policy.credential_timeout.try_into().unwrap(), "{kind:?} {does:?} {took:?}");
        let until = world.clock.now() + world.policy.throttle_cooldown;
        let skipped = &route.skipped()[0];
        assert_eq!(route.account(), &id("b"), "{kind:?} {does:?}");
        assert_eq!(
            (skipped.reason, skipped.retry_at),
            (Reason::CredentialUnavailable, Some(until)),
            "{kind:?} {does:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hung_is_asked_again_after_a_pause_and_not_before() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", Does::Hangs);
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        let began = world.clock.now();

        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        assert_eq!(world.clock.now(), began, "{kind:?}: no request waits for it again");
        let explained = accounts.explain(&Request::new()).accounts()[0].reason;
        assert_eq!(explained, Reason::CredentialUnavailable, "{kind:?}");

        source.set("main", Does::Reads);
        minutes(&world.clock, 1).await;
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_held_up_by_no_source_that_hangs_or_breaks() {
    for (kind, does) in all_faults() {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", does);

        let decision = accounts.decide(&Request::new()).await;

        assert_eq!(decision.accounts()[0].reason, Reason::CredentialUnavailable, "{kind:?} {does:?}");
        assert_eq!(decision.chosen().map(|chosen| &chosen.account), Some(&id("b")), "{kind:?} {does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_held_up_by_no_source_that_hangs_or_breaks() {
    for (kind, does) in all_faults() {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        let route = accounts.route(Request::new()).await.expect("all can be read");
        source.set("main", does);
        let began = world.clock.now();

        let report = accounts.report(&route, unauthorized()).await.expect("it is our route");
        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?} {does:?}");
        // The refused credential is looked at, in case there is another by now.
        minutes(&world.clock, 1).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?} {does:?}");

        let took = world.clock.now().duration_since(began) - SignedDuration::from_mins(1);
        let twice = 2 * world.policy.credential_timeout;
        assert!(took <= twice.try_into().unwrap(), "{kind:?} {does:?} {took:?}");
    }
}
