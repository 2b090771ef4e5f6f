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
enum Step {
    Credential,
    Fetch,
    Renew,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Hangs,
    Panics,
}

/// Hangs or panics for the main account while `is_faulty`, and otherwise works.
#[derive(Debug)]
struct Faulty {
    step: Step,
    fault: Fault,
    is_faulty: AtomicBool,
    provider: FakeProvider,
}

impl Faulty {
    async fn fail(&self, account: &AccountId, step: Step) {
        if step != self.step || *account != id("main") || !self.is_faulty.load(Ordering::Relaxed) {
            return;
        }
        match self.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Panics => panic!("panics on purpose"),
        }
    }
}

#[async_trait]
impl UsageFetcher for Faulty {
    fn provider(&self) -> ProviderId {
        self.provider.provider()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        self.fail(account, Step::Fetch).await;
        if self.step == Step::Renew && *account == id("main") && self.is_faulty.load(Ordering::Relaxed) {
            return Err(FetchError::Unauthorized);
        }
        self.provider.fetch(account, credential).await
    }
}

#[async_trait]
impl CredentialSource for Faulty {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.fail(account, Step::Credential).await;
        Ok(Credential::new(Secret::new("n33dle")))
    }

    async fn renew(
        &self,
        account: &AccountId,
        _rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        self.fail(account, Step::Renew).await;
        self.credential(account).await
    }
}

fn faulty(env: &Env, step: Step, fault: Fault) -> (Arc<Faulty>, FallbackAccountManager) {
    let provider = env.provider.clone();
    let fetcher = Arc::new(Faulty { step, fault, is_faulty: AtomicBool::new(true), provider });
    let builder = match env.kind {
        Kind::Without => env.builder().fetcher(fetcher.clone()).credentials(fetcher.clone()),
        Kind::With => {
            let quota = QuotaManager::builder(MemoryStore::with_clock(env.clock.clone()))
                .provider(fetcher.clone(), fetcher.clone())
                .clock(env.clock.clone())
                .policy(env.usage_policy.clone());
            env.builder().quota_manager(quota.build().expect("a valid policy"))
        }
    };
    (fetcher, builder.build().expect("a valid configuration"))
}

fn all_faults() -> impl Iterator<Item = (Kind, Step, Fault)> {
    let steps = [Step::Credential, Step::Fetch, Step::Renew];
    let faults = steps.into_iter().flat_map(|step| [(step, Fault::Hangs), (step, Fault::Panics)]);
    faults.flat_map(|(step, fault)| BOTH.map(|kind| (kind, step, fault)))
}

#[tokio::test(start_paused = true)]
async fn a_faulty_fetcher_delays_a_request_at_most_by_its_timeout() {
    for (kind, step, fault) in all_faults() {
        let env = env(kind);
        let (_fetcher, accounts) = faulty(&env, step, fault);
        let began = env.clock.now();

        let route = accounts.route(Request::new()).await.expect("an account may serve");

        // A step that hangs uses up the time for refreshes, so an account is used without readings.
        let rule = match (step, fault) {
            (Step::Fetch, _) | (_, Fault::Hangs) => Reason::UnknownAllowed,
            (_, Fault::Panics) => Reason::Available,
        };
        assert_eq!(route.reason(), rule, "{kind:?} {step:?} {fault:?}");
        let took = env.clock.now().duration_since(began);
        let timeout = match step {
            Step::Credential => env.policy.credential_timeout,
            Step::Fetch | Step::Renew => env.usage_policy.fetch_timeout,
        };
        assert!(took <= timeout.try_into().unwrap(), "{kind:?} {step:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repaired_fetcher_is_called_again() {
    for (kind, step, fault) in all_faults() {
        let env = env(kind);
        let (fetcher, accounts) = faulty(&env, step, fault);
        accounts.refresh_quota_for_due_accounts().await;
        let before = used(&accounts, "main");
        minutes(&env.clock, 6).await;

        fetcher.is_faulty.store(false, Ordering::Relaxed);
        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!((before, used(&accounts, "main")), (None, Some(40.0)), "{kind:?} {step:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_the_wait_for_a_hanging_source() {
    for kind in BOTH {
        let env = env(kind);
        let (_fetcher, accounts) = faulty(&env, Step::Credential, Fault::Hangs);
        let began = env.clock.now();

        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let accounts = accounts.clone();
            requests.spawn(async move { accounts.route(Request::new()).await.map(|route| route.reason()) });
        }
        let rules = requests.join_all().await;

        // The source uses up the time for refreshes, so the next account is used without readings.
        let is_served = |rule: &Result<Reason, _>| *rule.as_ref().unwrap() == Reason::UnknownAllowed;
        assert!(rules.iter().all(is_served), "{kind:?} {rules:?}");
        let took = env.clock.now().duration_since(began);
        assert!(took <= env.policy.credential_timeout.try_into().unwrap(), "{kind:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_background_refresh_saves_its_hold() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.set_usage(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}: stale readings admit it");
        minutes(&env.clock, 1).await;

        assert!(env.stored().contains("rate_limited"), "{kind:?} {}", env.stored());
    }
}

// As documented: only a given quota manager has limits across accounts.
#[tokio::test(start_paused = true)]
async fn without_a_quota_manager_a_429_holds_only_its_account() {
    let env = env(Kind::Without);
    env.provider.then_fail(FetchError::throttled(None));

    let reports = env.accounts().refresh_quota_for_due_accounts().await;

    let failed = reports.iter().filter(|report| report.error.is_some()).count();
    assert_eq!((failed, env.provider.calls(), env.provider.max_in_flight()), (1, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn settings_that_conflict_with_a_quota_manager_are_rejected() {
    let env = env(Kind::With);
    let results = [
        env.builder().fetcher(env.provider.clone()),
        env.builder().usage_policy(env.usage_policy.clone()),
        env.builder().credentials(env.provider.clone()),
        env.builder().clock(env.clock.clone()),
    ]
    .map(|builder| builder.build().map(drop));

    let no_effect = |result: &Result<(), BuildError>| match result {
        Err(BuildError::NoEffect { setting, .. }) => *setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(results.each_ref().map(no_effect), ["fetcher", "usage_policy", "credentials", "clock"]);
}

#[tokio::test(start_paused = true)]
async fn cancelled_requests_share_one_call() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.provider.then_hang();
        for _ in 0..100 {
            let route = accounts.route(Request::new());
            assert!(env.clock.bounded(Duration::from_millis(1), route).await.is_none(), "{kind:?}");
        }

        assert_eq!(env.provider.calls(), 1, "{kind:?}");
    }
}
