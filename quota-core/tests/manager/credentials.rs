//! The manager reads the credential of an account from its source and passes it to the fetcher.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, FetchError, MemoryStore, Policy,
    ProviderId, QuotaError, QuotaManager, Secret, UsageFetcher, UsageReport,
};

use crate::support::*;

/// Records the secret of each call.
#[derive(Debug, Default, Clone)]
struct Recorder {
    secrets: Arc<Mutex<Vec<String>>>,
    delay: Duration,
}

impl Recorder {
    fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }
}

#[async_trait]
impl UsageFetcher for Recorder {
    fn provider(&self) -> ProviderId {
        ProviderId::new("example").unwrap()
    }

    async fn fetch(&self, _account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        self.secrets.lock().unwrap().push(credential.secret.expose().to_owned());
        tokio::time::sleep(self.delay).await;
        Ok(polled(40.0))
    }
}

/// Returns the credentials in order, and then repeats the last one.
#[derive(Debug, Clone)]
struct Source(Arc<Mutex<VecDeque<Result<Credential, CredentialError>>>>);

impl Source {
    fn of(credentials: impl IntoIterator<Item = Credential>) -> Self {
        Self(Arc::new(Mutex::new(credentials.into_iter().map(Ok).collect())))
    }
}

#[async_trait]
impl CredentialSource for Source {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let mut credentials = self.0.lock().unwrap();
        if credentials.len() > 1 { credentials.pop_front().unwrap() } else { credentials[0].clone() }
    }
}

/// Returns a credential at the first read. Later reads hang.
#[derive(Debug, Default)]
struct HangsLater(AtomicBool);

#[async_trait]
impl CredentialSource for HangsLater {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        if self.0.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(credential("first", 1))
    }
}

#[derive(Debug)]
struct PanickingSource;

#[async_trait]
impl CredentialSource for PanickingSource {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        panic!("a test makes this source panic")
    }
}

fn credential(secret: &str, hash: u64) -> Credential {
    Credential::new(Secret::new(secret))
        .login(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(hash)))
}

fn manager(fetcher: Recorder, source: impl CredentialSource) -> QuotaManager {
    let clock = Clock::virtual_at(noon());
    let store = MemoryStore::with_clock(clock.clone());
    QuotaManager::builder(store).provider(fetcher, source).clock(clock).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_fetcher_receives_the_credential_of_the_source() {
    let fetcher = Recorder::default();
    let quota = manager(fetcher.clone(), Source::of([credential("one", 1)]));

    drop(quota.account(&id("main")).get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn an_accounts_own_source_takes_precedence() {
    let fetcher = Recorder::default();
    let quota = manager(fetcher.clone(), Source::of([credential("of the provider", 1)]));
    let main = quota.account(&id("main"));
    main.set_credentials(Source::of([credential("own", 2)]));

    drop(main.get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["own"]);
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_without_a_source_receives_an_empty_credential() {
    let fetcher = Recorder::default();
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(fetcher.clone()).build().unwrap();

    drop(quota.account(&id("main")).get().await.unwrap());

    assert_eq!(fetcher.secrets(), [""]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_reads_a_replaced_credential_again() {
    let fetcher = Recorder { delay: Duration::from_secs(3), ..Recorder::default() };
    let quota = manager(
        fetcher.clone(),
        Source::of([credential("busy", 1), credential("old", 2), credential("new", 3)]),
    );
    quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;

    drop(quota.account(&id("main")).get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["busy", "new"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_switches_to_a_replaced_login() {
    let login = |name: &str| Credential::new(Secret::new(name)).login(LoginInfo::new(LoginId::new(name)));
    let fetcher = Recorder { delay: Duration::from_secs(3), ..Recorder::default() };
    let quota = manager(fetcher.clone(), Source::of([login("busy"), login("old"), login("new")]));
    quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;

    let usage = quota.account(&id("main")).get().await.unwrap();

    assert_eq!((fetcher.secrets().pop(), usage.login_id()), (Some("new".into()), Some(&LoginId::new("new"))));
}

#[tokio::test(start_paused = true)]
async fn the_report_gets_the_login_and_the_plan_of_the_credential() {
    let source =
        Source::of([credential("one", 1).login(LoginInfo::new(LoginId::new("a"))).plan("max".to_owned())]);
    let quota = manager(Recorder::default(), source);

    let usage = quota.account(&id("main")).get().await.unwrap();

    assert_eq!((usage.login_id(), usage.snapshot().plan()), (Some(&LoginId::new("a")), Some("max")));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_fails_the_refresh_and_makes_no_call() {
    let fetcher = Recorder::default();
    let quota = manager(fetcher.clone(), PanickingSource);

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Panicked { .. }), "{error}");
    assert!(fetcher.secrets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_a_credential_from_the_same_source() {
    let quota = manager(Recorder::default(), Source::of([credential("one", 1)]));

    let credential = quota.account(&id("main")).credential(SECOND * 10).await.unwrap().unwrap();

    assert_eq!(credential.secret.expose(), "one");
}

#[tokio::test(start_paused = true)]
async fn an_account_without_a_source_has_no_credential() {
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(Recorder::default()).build().unwrap();
    let main = quota.account(&id("main"));

    assert!(!main.has_credentials());
    assert!(main.credential(SECOND * 10).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_that_hangs_or_panics_is_an_error() {
    let env = env_with(Policy::default());
    let main = env.quota.account(&id("main"));
    env.provider.then_hang_credential();
    let late = main.credential(SECOND * 10).await.unwrap_err();
    main.set_credentials(PanickingSource);

    let panicked = main.credential(SECOND * 10).await.unwrap_err();

    assert!(late.is_timeout(), "{late}");
    assert!(matches!(panicked, CredentialError::Unreadable { .. }) && !panicked.is_timeout(), "{panicked}");
}

fn of_login(name: &str) -> Credential {
    Credential::new(name).login(LoginInfo::new(LoginId::new(name)))
}

#[tokio::test(start_paused = true)]
async fn the_builder_sets_the_source_of_one_account() {
    let fetcher = Recorder::default();
    let quota = QuotaManager::builder(MemoryStore::new())
        .provider(fetcher.clone(), Source::of([credential("of the provider", 1)]))
        .credentials_for(id("main"), Source::of([credential("own", 2)]))
        .build()
        .unwrap();

    drop(quota.account(&id("main")).get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["own"]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_second_read_keeps_the_first_credential() {
    let fetcher = Recorder { delay: Duration::from_secs(3), ..Recorder::default() };
    let quota = manager(fetcher.clone(), Source::of([credential("busy", 9)]));
    let main = quota.account(&id("main"));
    main.set_credentials(HangsLater::default());
    quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;

    drop(main.get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["busy", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_second_read_hides_no_readings() {
    let fetcher = Recorder { delay: Duration::from_secs(3), ..Recorder::default() };
    let source = Source(Arc::new(Mutex::new(VecDeque::from([
        Ok(of_login("a")),
        Ok(of_login("a")),
        Err(CredentialError::not_logged_in("logged out")),
    ]))));
    let quota = manager(fetcher, Source::of([credential("busy", 9)]));
    let main = quota.account(&id("main"));
    main.set_credentials(source);
    drop(main.get().await.unwrap());
    tokio::time::sleep(MINUTE * 6).await;
    quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;

    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.error.is_some());
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_account_loses_its_own_source() {
    let fetcher = Recorder::default();
    let quota = manager(fetcher.clone(), Source::of([credential("of the provider", 1)]));
    quota.account(&id("main")).set_credentials(Source::of([credential("own", 2)]));
    quota.forget(&id("main")).await.unwrap();

    drop(quota.account(&id("main")).get().await.unwrap());

    assert_eq!(fetcher.secrets(), ["of the provider"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_report_is_an_error_even_with_a_plan() {
    let env = env();
    let plan = Credential::new("n33dle").plan("max".to_owned());
    env.provider.answer(UsageReport::polled([]));
    let main = env.quota.account(&id("main"));
    main.set_credentials(Source::of([plan]));

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::Malformed { .. }, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn another_logins_credential_clears_readings_without_a_fetcher() {
    let quota = QuotaManager::builder(MemoryStore::new()).build().unwrap();
    let main = quota.account(&id("main"));
    main.set_credentials(Source::of([of_login("a"), of_login("b")]));
    drop(main.credential(SECOND).await.unwrap());
    let _ = main.observe(&headers(99.0).login_id(LoginId::new("a"))).unwrap();

    drop(main.credential(SECOND).await.unwrap());

    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_does_not_undo_a_requests_login_change() {
    let fetcher = Recorder { delay: Duration::from_millis(900), ..Recorder::default() };
    let quota = manager(fetcher.clone(), Source::of([credential("busy", 9)]));
    let main = quota.account(&id("main"));
    let _ = main.observe(&headers(10.0).login_id(LoginId::new("a"))).unwrap();
    main.set_credentials(Source::of([of_login("a"), of_login("b")]));
    quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;
    main.refresh_in_background();
    run_ready_tasks().await;

    drop(main.credential(SECOND).await.unwrap());
    tokio::time::sleep(SECOND * 5).await;

    assert!(!fetcher.secrets().contains(&"a".to_owned()), "{:?}", fetcher.secrets());
    assert_eq!(main.peek().login_id(), Some(&LoginId::new("b")));
}
