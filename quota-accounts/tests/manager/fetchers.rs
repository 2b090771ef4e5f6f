//! Fetchers and credential sources that hang or panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::routing::Reason;
use quota_accounts::{BuildError, FallbackAccountManager, Request};
use quota_core::model::CredentialFingerprint;
use quota_core::testing::FakeProvider;
use quota_core::{
    AccountId, Credential, CredentialError, CredentialSource, FetchError, MemoryStore, ProviderId,
    QuotaManager, Secret, UsageFetcher, UsageReport,
};

use crate::logins::next;
use crate::support::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Credential,
    Fetch,
    Renew,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Hangs,
    Breaks,
}

/// Hangs or breaks about the main account as long as it is told to, and else does what it should.
#[derive(Debug)]
struct Faulty {
    place: Place,
    fault: Fault,
    is_faulty: AtomicBool,
    provider: FakeProvider,
}

impl Faulty {
    async fn fail(&self, account: &AccountId, place: Place) {
        if place != self.place || *account != id("main") || !self.is_faulty.load(Ordering::Relaxed) {
            return;
        }
        match self.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Breaks => panic!("a fetcher that breaks on purpose"),
        }
    }
}

#[async_trait]
impl UsageFetcher for Faulty {
    fn provider(&self) -> ProviderId {
        self.provider.provider()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        self.fail(account, Place::Fetch).await;
        if self.place == Place::Renew && *account == id("main") && self.is_faulty.load(Ordering::Relaxed) {
            return Err(FetchError::Unauthorized);
        }
        self.provider.fetch(account, credential).await
    }
}

#[async_trait]
impl CredentialSource for Faulty {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.fail(account, Place::Credential).await;
        Ok(Credential::new(Secret::new("n33dle")))
    }

    async fn renew(
        &self,
        account: &AccountId,
        _rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        self.fail(account, Place::Renew).await;
        self.credential(account).await
    }
}

fn faulty(world: &World, place: Place, fault: Fault) -> (Arc<Faulty>, FallbackAccountManager) {
    let provider = world.provider.clone();
    let fetcher = Arc::new(Faulty { place, fault, is_faulty: AtomicBool::new(true), provider });
    let builder = match world.kind {
        Kind::Without => world.builder().fetcher(fetcher.clone()).credentials(fetcher.clone()),
        Kind::With => {
            let quota = QuotaManager::builder(MemoryStore::with_clock(world.clock.clone()))
                .provider(fetcher.clone(), fetcher.clone())
                .clock(world.clock.clone())
                .policy(world.usage_policy.clone());
            world.builder().quota_manager(quota.build().expect("the policy is sound"))
        }
    };
    (fetcher, builder.build().expect("there are accounts"))
}

fn all_faults() -> impl Iterator<Item = (Kind, Place, Fault)> {
    let places = [Place::Credential, Place::Fetch, Place::Renew];
    let faults = places.into_iter().flat_map(|place| [(place, Fault::Hangs), (place, Fault::Breaks)]);
    faults.flat_map(|(place, fault)| BOTH.map(|kind| (kind, place, fault)))
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_hangs_or_breaks_keeps_no_request_for_longer_than_a_call_may_take() {
    for (kind, place, fault) in all_faults() {
        let world = world(kind);
        let (_fetcher, accounts) = faulty(&world, place, fault);
        let began = world.clock.now();

        let route = accounts.route(Request::new()).await.expect("an account may serve");

        let rule = if place == Place::Fetch { Reason::UnknownAllowed } else { Reason::Available };
        assert_eq!(route.reason(), rule, "{kind:?} {place:?} {fault:?}");
        let took = world.clock.now().duration_since(began);
        assert!(took <= world.usage_policy.fetch_timeout.try_into().unwrap(), "{kind:?} {place:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_hung_or_broke_and_is_in_order_again_is_asked_again() {
    for (kind, place, fault) in all_faults() {
        let world = world(kind);
        let (fetcher, accounts) = faulty(&world, place, fault);
        accounts.refresh_quota_for_due_accounts().await;
        let before = used(&accounts, "main");
        minutes(&world.clock, 6).await;

        fetcher.is_faulty.store(false, Ordering::Relaxed);
        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!((before, used(&accounts, "main")), (None, Some(40.0)), "{kind:?} {place:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_hanging_source_wait_once() {
    for kind in BOTH {
        let world = world(kind);
        let (_fetcher, accounts) = faulty(&world, Place::Credential, Fault::Hangs);
        let began = world.clock.now();

        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let accounts = accounts.clone();
            requests.spawn(async move { accounts.route(Request::new()).await.map(|route| route.reason()) });
        }
        let rules = requests.join_all().await;

        assert!(rules.iter().all(|rule| *rule.as_ref().unwrap() == Reason::Available), "{kind:?} {rules:?}");
        let took = world.clock.now().duration_since(began);
        assert!(took <= world.usage_policy.fetch_timeout.try_into().unwrap(), "{kind:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_behind_a_requests_back_that_failed_is_written_back_too() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.answers(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}: old numbers pass");
        minutes(&world.clock, 1).await;

        assert!(world.kept().contains("rate_limited"), "{kind:?} {}", world.kept());
    }
}

// As it is documented: what is between the accounts of a provider is the quota manager's.
#[tokio::test(start_paused = true)]
async fn without_a_quota_manager_a_429_about_one_account_is_a_hold_of_that_one_alone() {
    let world = world(Kind::Without);
    world.provider.then_fail(FetchError::throttled(None));

    let reports = world.accounts().refresh_quota_for_due_accounts().await;

    let failed = reports.iter().filter(|report| report.error.is_some()).count();
    assert_eq!((failed, world.provider.calls(), world.provider.most_at_once()), (1, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_has_no_effect_beside_a_quota_manager_is_refused() {
    let world = world(Kind::With);
    let refused = [
        world.builder().fetcher(world.provider.clone()),
        world.builder().usage_policy(world.usage_policy.clone()),
        world.builder().credentials(world.provider.clone()),
        world.builder().clock(world.clock.clone()),
    ]
    .map(|builder| builder.build().map(drop));

    let no_effect = |result: &Result<(), BuildError>| match result {
        Err(BuildError::NoEffect { setting, .. }) => *setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused.each_ref().map(no_effect), ["fetcher", "usage_policy", "credentials", "clock"]);
}
