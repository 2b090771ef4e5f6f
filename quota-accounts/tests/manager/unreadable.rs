//! Credentials that cannot be read for the moment: nobody has to log in, and the account comes back by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::{
    Credential, CredentialError, CredentialSource, FallbackAccountManager, Mode, Request, RoutingPolicy,
    Rule, Secret, Weighed,
};
use quota_core::AccountId;

use crate::logins::next;
use crate::support::*;

const NAMES: [&str; 3] = ["main", "b", "c"];

/// What a source does when it is asked about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Reads,
    CannotRead,
    Renews,
}

/// A source that does as it is told, and reads unless it is told otherwise.
#[derive(Debug, Default)]
struct Moody(Mutex<HashMap<AccountId, Does>>);

impl Moody {
    fn set(&self, name: &str, does: Does) {
        self.0.lock().expect("nobody broke").insert(id(name), does);
    }
}

#[async_trait]
impl CredentialSource for Moody {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let does = self.0.lock().expect("nobody broke").get(account).copied().unwrap_or(Does::Reads);
        match does {
            Does::Reads => Ok(Credential::new(Secret::new("n33dle"))),
            Does::CannotRead => {
                let locked = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
                Err(CredentialError::unreadable("the keychain is locked", locked))
            }
            Does::Renews => Err(CredentialError::not_yet("it is renewed", Some(Duration::from_secs(5)))),
        }
    }
}

fn accounts_of(world: &World) -> (Arc<Moody>, FallbackAccountManager) {
    let source = Arc::new(Moody::default());
    let accounts = world.builder().credentials(source.clone()).build().expect("there are accounts");
    (source, accounts)
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_credential_cannot_be_read_is_passed_over_for_a_pause() {
    for kind in BOTH {
        let world = world(kind);
        let (source, accounts) = accounts_of(&world);
        source.set("main", Does::CannotRead);

        let route = accounts.route(Request::new()).await.expect("another has room");

        let until = world.clock.now() + world.policy.pause;
        let passed = &route.passed()[0];
        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!((passed.rule, passed.until), (Rule::NotReadable, Some(until)), "{kind:?}");
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

        assert_eq!(error.retry_after(), Some(world.policy.pause), "{kind:?} {error:?}");
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
        world.policy = RoutingPolicy::default().mode(Mode::StickyBalanced);
        let (source, accounts) = accounts_of(&world);
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().session("s");
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

        let rules: Vec<_> = decision.weighed().iter().map(|weighed| weighed.verdict().rule).collect();
        assert_eq!(rules[..2], [Rule::NotReadable, Rule::LoginNotYet], "{kind:?}");
        assert_eq!(decision.chosen().map(Weighed::id), Some(&next(&accounts).await), "{kind:?}");
    }
}
