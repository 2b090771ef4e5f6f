//! One cache in front of the credential sources: callers share reads and failures, and a rejected credential is read again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::provider::SourceVersion;
use quota_core::record::Record;
use quota_core::store::StoreKey;
use quota_core::testing::FakeProvider;
use quota_core::{
    Account, AccountId, Clock, Credential, CredentialError, CredentialSource, FetchError, MemoryStore,
    ProviderId, QuotaManager, QuotaStore, UsageFetcher, UsageReport, WindowId,
};
use tokio::sync::Notify;

use crate::support::*;

/// Whether the source notices a change.
#[derive(Debug, Clone)]
enum Version {
    EachTime,
    Undetectable,
    Files(PathBuf),
}

/// Returns the token of this test's choice, and counts its reads.
#[derive(Debug, Clone)]
struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    version: Mutex<Version>,
    /// The number of the token, which is also its fingerprint; `None` fails the read.
    token: Mutex<Option<u64>>,
    expires_at: Mutex<Option<Timestamp>>,
    reads: AtomicUsize,
    /// How long a read takes. The token is that of its start.
    delay: Mutex<Duration>,
    panics: AtomicBool,
    has_fingerprint: AtomicBool,
    fails_to_renew: AtomicBool,
    renews_to: Mutex<Option<u64>>,
    /// The reads that are running.
    running: AtomicUsize,
}

/// Counts a read while it runs.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn new(running: &'a AtomicUsize) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source {
    fn with(version: Version) -> Self {
        Self(Arc::new(Inner {
            version: Mutex::new(version),
            token: Mutex::new(Some(1)),
            expires_at: Mutex::default(),
            reads: AtomicUsize::new(0),
            delay: Mutex::default(),
            panics: AtomicBool::new(false),
            has_fingerprint: AtomicBool::new(true),
            fails_to_renew: AtomicBool::new(false),
            renews_to: Mutex::default(),
            running: AtomicUsize::new(0),
        }))
    }

    /// A source such as a command.
    fn undetectable() -> Self {
        Self::with(Version::Undetectable)
    }

    fn set(&self, token: impl Into<Option<u64>>) {
        *self.0.token.lock().unwrap() = token.into();
    }

    fn set_delay(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    fn reads(&self) -> usize {
        self.0.reads.load(Ordering::Relaxed)
    }

    fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl CredentialSource for Source {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let _running = Running::new(&self.0.running);
        let (token, delay) = (*self.0.token.lock().unwrap(), *self.0.delay.lock().unwrap());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        assert!(!self.0.panics.load(Ordering::Relaxed), "a test makes this source panic");
        let token = token.ok_or_else(|| CredentialError::not_logged_in("no token"))?;
        let has_fingerprint = self.0.has_fingerprint.load(Ordering::Relaxed);
        let login = match has_fingerprint {
            true => LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(token)),
            false => LoginInfo::unknown(),
        };
        Ok(Credential::new(format!("n33dle-{token}"))
            .login(login)
            .expires_at(*self.0.expires_at.lock().unwrap()))
    }

    async fn renew(
        &self,
        account: &AccountId,
        _rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let renewed = *self.0.renews_to.lock().unwrap();
        if self.0.fails_to_renew.load(Ordering::Relaxed) {
            tokio::time::sleep(SECOND).await;
            return Err(CredentialError::not_logged_in("log in again"));
        }
        if renewed.is_some() {
            *self.0.token.lock().unwrap() = renewed;
        }
        self.credential(account).await
    }

    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        let version = self.0.version.lock().unwrap().clone();
        match version {
            Version::EachTime => None,
            Version::Undetectable => Some(SourceVersion::undetectable()),
            Version::Files(path) => Some(SourceVersion::of_files([path]).await),
        }
    }
}

fn rejected(token: u64) -> Option<CredentialFingerprint> {
    Some(CredentialFingerprint::from_hash(token))
}

fn account(source: &Source) -> Account {
    let quota = QuotaManager::builder(MemoryStore::new()).build().unwrap();
    let main = quota.account(&id("main"));
    main.set_credentials(source.clone());
    main
}

async fn token(main: &Account) -> Option<String> {
    main.credential(MINUTE).await.ok()?.map(|credential| credential.secret.expose().to_owned())
}

async fn renewed(main: &Account, token: u64) -> Option<String> {
    let renewed = main.renew_credential(rejected(token), MINUTE).await;
    renewed.ok()?.map(|credential| credential.secret.expose().to_owned())
}

/// A file of this crate. It was last written long before this test.
fn old_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_read() {
    let source = Source::with(Version::EachTime);
    source.set_delay(SECOND);
    let main = account(&source);

    let tokens = futures_util::future::join_all((0..1_000).map(|_| token(&main))).await;

    assert!(tokens.iter().all(|token| token.as_deref() == Some("n33dle-1")));
    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_states_no_version_is_read_for_each_caller() {
    let source = Source::with(Version::EachTime);
    let main = account(&source);
    token(&main).await;
    source.set(2);

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_command_is_run_again_after_five_minutes() {
    let source = Source::undetectable();
    let main = account(&source);
    for _ in 0..10 {
        token(&main).await;
        tokio::time::sleep(SECOND * 29).await;
    }
    assert_eq!(source.reads(), 1);

    tokio::time::sleep(SECOND * 10).await;
    token(&main).await;

    assert_eq!(source.reads(), 2);
}

#[tokio::test]
async fn an_unchanged_file_is_read_once() {
    let source = Source::with(Version::Files(old_file("Cargo.toml")));
    let main = account(&source);
    for _ in 0..10 {
        token(&main).await;
    }

    assert_eq!(source.reads(), 1);
}

#[tokio::test]
async fn a_replaced_file_is_read_again() {
    let source = Source::with(Version::Files(old_file("Cargo.toml")));
    let main = account(&source);
    token(&main).await;
    *source.0.version.lock().unwrap() = Version::Files(old_file("src/lib.rs"));
    source.set(2);

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test]
async fn a_file_that_was_just_written_is_read_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("login");
    std::fs::write(&path, "1").unwrap();
    let source = Source::with(Version::Files(path));
    let main = account(&source);
    token(&main).await;
    source.set(2);

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test]
async fn a_failure_does_not_outlast_a_change_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("login");
    let source = Source::with(Version::Files(path.clone()));
    source.set(None);
    let main = account(&source);
    token(&main).await;
    std::fs::write(path, "1").unwrap();
    source.set(1);

    assert_eq!(token(&main).await.unwrap(), "n33dle-1");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_expires_soon_is_read_each_second() {
    let source = Source::undetectable();
    let expiry = Clock::system().now() + jiff::SignedDuration::from_secs(50);
    *source.0.expires_at.lock().unwrap() = Some(expiry);
    let main = account(&source);
    token(&main).await;
    token(&main).await;
    assert_eq!(source.reads(), 1);

    tokio::time::sleep(SECOND).await;
    token(&main).await;

    assert_eq!(source.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_read_once_a_second_for_all_callers() {
    let source = Source::undetectable();
    source.set(None);
    source.set_delay(Duration::from_millis(1));
    let main = account(&source);

    let found = futures_util::future::join_all((0..1_000).map(|_| token(&main))).await;
    for _ in 0..1_000 {
        token(&main).await;
    }

    assert!(found.iter().all(Option::is_none));
    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_a_second_after_a_failure_reads_again() {
    let source = Source::undetectable();
    source.set(None);
    let main = account(&source);
    token(&main).await;
    source.set(1);
    tokio::time::sleep(SECOND).await;

    assert_eq!(token(&main).await.unwrap(), "n33dle-1");
}

#[tokio::test(start_paused = true)]
async fn a_read_outlives_its_caller() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 3);
    let main = account(&source);
    let first = main.credential(SECOND).await.unwrap_err();

    let second = token(&main).await;

    assert!(!first.is_timeout(), "the source has not timed out: {first}");
    assert_eq!((second.as_deref(), source.reads()), (Some("n33dle-1"), 1));
}

#[tokio::test(start_paused = true)]
async fn another_login_gets_no_credential_of_the_previous_one() {
    let source = Source::undetectable();
    let main = account(&source);
    main.set_login(LoginId::new("a"));
    token(&main).await;
    source.set(2);

    main.set_login(LoginId::new("b"));

    assert_eq!(token(&main).await.as_deref(), Some("n33dle-2"));
}

#[tokio::test(start_paused = true)]
async fn another_login_joins_no_read_of_the_previous_one() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 3);
    let main = account(&source);
    main.set_login(LoginId::new("a"));
    let switch = async {
        run_ready_tasks().await;
        source.set(2);
        main.set_login(LoginId::new("b"));
        token(&main).await
    };

    let (_, found) = tokio::join!(token(&main), switch);

    assert_eq!(found.as_deref(), Some("n33dle-2"));
}

#[tokio::test(start_paused = true)]
async fn callers_with_short_timeouts_get_a_slow_credential_at_last() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 3);
    let main = account(&source);

    let mut found = None;
    for _ in 0..4 {
        found = main.credential(SECOND).await.ok().flatten();
    }

    assert!(found.is_some());
    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_read_again_after_the_timeout() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let main = account(&source);
    let late = main.credential(SECOND * 10).await.unwrap_err();
    source.set_delay(Duration::ZERO);
    tokio::time::sleep(SECOND).await;

    let found = token(&main).await;

    assert!(late.is_timeout(), "{late}");
    assert_eq!(found.as_deref(), Some("n33dle-1"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_shared_and_does_not_block_the_next_read() {
    let source = Source::undetectable();
    source.0.panics.store(true, Ordering::Relaxed);
    source.set_delay(SECOND);
    let main = account(&source);
    let found = futures_util::future::join_all((0..10).map(|_| token(&main))).await;
    assert!(found.iter().all(Option::is_none));
    source.0.panics.store(false, Ordering::Relaxed);
    tokio::time::sleep(SECOND).await;

    assert_eq!(token(&main).await.unwrap(), "n33dle-1");
    assert_eq!(source.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_source_replaces_a_read_in_flight() {
    let (old, new) = (Source::undetectable(), Source::undetectable());
    old.set_delay(SECOND * 5);
    new.set(2);
    let main = account(&old);
    let replace = async {
        tokio::time::sleep(SECOND).await;
        main.set_credentials(new.clone());
    };

    let (found, ()) = tokio::join!(token(&main), replace);

    assert_eq!(found.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_new_source_replaces_the_cached_credential() {
    let (old, new) = (Source::undetectable(), Source::undetectable());
    new.set(2);
    let main = account(&old);
    token(&main).await;

    main.set_credentials(new);

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_is_dropped() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    source.set(2);

    assert_eq!(renewed(&main, 1).await.unwrap(), "n33dle-2");
    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
    assert_eq!(source.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn concurrent_rejections_lead_to_one_renewal() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    *source.0.renews_to.lock().unwrap() = Some(2);
    source.set_delay(SECOND);

    let found = futures_util::future::join_all((0..1_000).map(|_| renewed(&main, 1))).await;
    let late = renewed(&main, 1).await;

    assert!(found.iter().chain([&late]).all(|token| token.as_deref() == Some("n33dle-2")));
    assert_eq!(source.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_a_rejection_does_not_restore_it() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 5);
    let main = account(&source);
    let reject = async {
        tokio::time::sleep(SECOND).await;
        source.set(2);
        renewed(&main, 1).await
    };

    let (before, after) = tokio::join!(token(&main), reject);

    assert_eq!((before.as_deref(), after.as_deref()), (Some("n33dle-2"), Some("n33dle-2")));
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn renewals_of_different_credentials_end() {
    let source = Source::undetectable();
    source.set_delay(SECOND);
    let main = account(&source);

    let found = futures_util::future::join_all((1..=20).map(|token| renewed(&main, token))).await;

    // The source has only token 1, which is rejected too, so it replaces no other.
    let is_found: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(is_found, (1..=20).map(|token| token == 1).collect::<Vec<_>>());
    assert!(source.reads() <= 3, "{}", source.reads());
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_stays_rejected_is_read_once_a_second() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    for _ in 0..100 {
        renewed(&main, 1).await;
        token(&main).await;
    }
    assert_eq!(source.reads(), 2);
    tokio::time::sleep(SECOND).await;
    source.set(2);

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_without_a_fingerprint_is_read_again_soon() {
    let source = Source::undetectable();
    source.0.has_fingerprint.store(false, Ordering::Relaxed);
    let main = account(&source);
    token(&main).await;
    let _ = main.renew_credential(None, MINUTE).await;
    assert_eq!((token(&main).await.as_deref(), source.reads()), (Some("n33dle-1"), 2));
    source.set(2);
    tokio::time::sleep(SECOND).await;

    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_does_not_fail_plain_readers() {
    for source in [Source::undetectable(), Source::with(Version::EachTime)] {
        source.0.fails_to_renew.store(true, Ordering::Relaxed);
        let main = account(&source);
        token(&main).await;

        let during = async {
            tokio::task::yield_now().await;
            token(&main).await
        };
        let (renewed, during) = tokio::join!(renewed(&main, 1), during);
        let after = token(&main).await;

        assert_eq!(renewed, None);
        assert_eq!((during.as_deref(), after.as_deref()), (Some("n33dle-1"), Some("n33dle-1")));
    }
}

#[test]
fn a_runtime_that_shuts_down_during_a_read_blocks_no_caller() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let main = account(&source);
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    first.block_on(main.credential(SECOND)).unwrap_err();
    drop(first);
    source.set_delay(Duration::ZERO);

    assert_eq!(runtime().block_on(token(&main)).unwrap(), "n33dle-1");
}

#[test]
fn a_read_on_a_stopped_runtime_is_replaced() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let main = account(&source);
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let stopped = runtime();
    stopped.block_on(main.credential(SECOND)).unwrap_err();
    source.set_delay(Duration::ZERO);

    let found = runtime().block_on(async {
        let while_it_lasts = main.credential(SECOND * 5).await;
        tokio::time::sleep(SECOND * 20).await;
        (while_it_lasts.is_err(), token(&main).await)
    });

    assert_eq!(found, (true, Some("n33dle-1".to_owned())));
    drop(stopped);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_and_a_request_share_the_credential() {
    let source = Source::undetectable();
    let provider = FakeProvider::answering("example", 40.0);
    let quota = QuotaManager::builder(MemoryStore::new()).provider(provider, source.clone()).build().unwrap();
    let main = quota.account(&id("main"));

    drop(main.get().await.unwrap());
    token(&main).await;

    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_is_repeated_with_the_rotated_credential() {
    let source = Source::undetectable();
    let provider = FakeProvider::answering("example", 40.0);
    let quota =
        QuotaManager::builder(MemoryStore::new()).provider(provider.clone(), source.clone()).build().unwrap();
    let main = quota.account(&id("main"));
    token(&main).await;
    source.set(2);
    provider.then_fail(FetchError::Unauthorized);

    drop(main.get().await.unwrap());

    assert_eq!((provider.calls(), source.reads()), (2, 2));
    assert_eq!(token(&main).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_dropped_during_the_read_leaves_nothing_behind() {
    let source = Source::undetectable();
    source.set_delay(SECOND);
    let main = account(&source);
    let stop = Notify::new();
    for _ in 0..10 {
        stop.notify_one();
        tokio::select! {
            biased;
            _ = main.credential(MINUTE) => unreachable!("the read takes a second"),
            () = stop.notified() => {}
        }
    }

    assert_eq!(token(&main).await.unwrap(), "n33dle-1");
    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_account_drops_its_cached_credential() {
    let source = Source::undetectable();
    let quota = QuotaManager::builder(MemoryStore::new())
        .provider(FakeProvider::answering("example", 40.0), source.clone())
        .build()
        .unwrap();
    token(&quota.account(&id("main"))).await;
    quota.forget(&id("main")).await.unwrap();
    source.set(2);

    assert_eq!(token(&quota.account(&id("main"))).await.unwrap(), "n33dle-2");
}

#[tokio::test(start_paused = true)]
async fn forgetting_an_account_with_a_handle_drops_its_credential() {
    let source = Source::undetectable();
    let quota = QuotaManager::builder(MemoryStore::new()).build().unwrap();
    let main = quota.account(&id("main"));
    main.set_credentials(source.clone());
    token(&main).await;

    quota.forget(&id("main")).await.unwrap();
    token(&main).await;

    assert_eq!(source.reads(), 2);
}

/// A manager whose provider answers, and an account with this source.
fn with_provider(source: &Source) -> (QuotaManager, FakeProvider, Account) {
    let provider = FakeProvider::answering("example", 40.0);
    let builder = QuotaManager::builder(MemoryStore::new()).policy(no_rate_limit());
    let quota = builder.provider(provider.clone(), source.clone()).build().unwrap();
    let main = quota.account(&id("main"));
    (quota, provider, main)
}

#[tokio::test(start_paused = true)]
async fn a_late_caller_has_its_own_time() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 15);
    let main = account(&source);
    let late = async {
        tokio::time::sleep(SECOND * 9).await;
        main.credential(SECOND * 20).await.map(|found| found.is_some())
    };

    let (first, late) = tokio::join!(main.credential(SECOND), late);

    assert!(first.is_err() && late.unwrap());
    assert_eq!(source.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_after_the_longest_time_that_its_callers_allow() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let main = account(&source);
    let clock = Clock::system();
    let began = clock.instant();
    let late = async {
        tokio::time::sleep(SECOND * 9).await;
        main.credential(SECOND * 20).await.unwrap_err()
    };

    let (_, late) = tokio::join!(main.credential(SECOND), late);

    assert!(late.is_timeout(), "{late}");
    assert_eq!(clock.instant().saturating_since(began).as_secs(), 20);
    assert_eq!(source.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ran_out_of_time_hides_no_readings() {
    let source = Source::undetectable();
    let (_quota, _, main) = with_provider(&source);
    drop(main.get().await.unwrap());
    tokio::time::sleep(MINUTE * 6).await;
    source.set_delay(SECOND * 15);
    let request = async {
        let found = main.credential(SECOND * 20).await;
        found.unwrap().unwrap().secret.expose().to_owned()
    };
    let refresh = async {
        run_ready_tasks().await;
        main.refresh().await.unwrap().error.unwrap()
    };

    let (found, error) = tokio::join!(request, refresh);

    assert_eq!((found.as_str(), source.reads()), ("n33dle-1", 2));
    assert!(error.report().contains("still being read"), "{error:?}");
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_is_not_handed_out_during_its_renewal() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    *source.0.renews_to.lock().unwrap() = Some(2);
    source.set_delay(SECOND);
    let during = async {
        tokio::task::yield_now().await;
        token(&main).await
    };

    let (renewed, during) = tokio::join!(renewed(&main, 1), during);

    assert_eq!((renewed.as_deref(), during.as_deref()), (Some("n33dle-2"), Some("n33dle-2")));
}

#[tokio::test(start_paused = true)]
async fn a_late_report_does_not_clear_a_later_rejection() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    source.set(2);
    renewed(&main, 1).await;
    renewed(&main, 2).await;

    assert_eq!(renewed(&main, 1).await, None);
    source.set(3);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(renewed(&main, 1).await.as_deref(), Some("n33dle-3"));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_replaces_no_other_rejected_one() {
    let source = Source::undetectable();
    let main = account(&source);
    token(&main).await;
    source.set(2);
    renewed(&main, 1).await;
    source.set(1);

    let error = main.renew_credential(rejected(2), MINUTE).await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_in_another_process_leads_to_a_new_read() {
    let (env, source) = (env_with(no_rate_limit()), Source::undetectable());
    let other = QuotaManager::builder(Arc::clone(&env.store)).clock(env.clock.clone());
    let other = other.provider(env.provider.clone(), source.clone()).build().unwrap();
    let (main, main_of_other) = (env.quota.account(&id("main")), other.account(&id("main")));
    main.set_credentials(source.clone());
    token(&main_of_other).await;
    env.provider.then_fail(FetchError::Unauthorized);
    drop(main.get().await);
    source.set(2);

    drop(main_of_other.get().await);

    assert_eq!(token(&main_of_other).await.as_deref(), Some("n33dle-2"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_login_is_read_less_and_less_often() {
    let source = Source::undetectable();
    source.set(None);
    let main = account(&source);
    let mut reads = Vec::new();
    for second in 0..300 {
        let before = source.reads();
        token(&main).await;
        if source.reads() > before {
            reads.push(second);
        }
        tokio::time::sleep(SECOND).await;
    }

    assert_eq!(reads, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_intervals_again() {
    let source = Source::with(Version::EachTime);
    source.set(None);
    let main = account(&source);
    for _ in 0..100 {
        token(&main).await;
        tokio::time::sleep(SECOND).await;
    }
    source.set(1);
    tokio::time::sleep(MINUTE).await;
    token(&main).await.unwrap();
    source.set(None);
    token(&main).await;
    source.set(2);
    tokio::time::sleep(SECOND).await;

    assert_eq!(token(&main).await.as_deref(), Some("n33dle-2"));
}

/// Reads a source without a login until it is read seldom.
async fn read_a_dead_login(source: &Source, main: &Account) {
    source.set(None);
    for _ in 0..100 {
        token(main).await;
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_reads_a_dead_login_at_once() {
    let source = Source::undetectable();
    let (_quota, _, main) = with_provider(&source);
    read_a_dead_login(&source, &main).await;
    source.set(1);

    assert!(main.refresh().await.unwrap().fetched);
    assert_eq!(token(&main).await.as_deref(), Some("n33dle-1"));
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_accepts_no_read_that_began_before_it() {
    let source = Source::undetectable();
    let (_quota, _, main) = with_provider(&source);
    read_a_dead_login(&source, &main).await;
    source.set_delay(SECOND * 3);
    tokio::time::sleep(MINUTE).await;
    let retry = async {
        tokio::time::sleep(SECOND).await;
        source.set(1);
        main.refresh().await.map(|refreshed| refreshed.fetched)
    };

    let (before, retried) = tokio::join!(token(&main), retry);

    assert_eq!((before, retried.unwrap()), (None, true));
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_outlives_the_failed_one_that_it_joined() {
    let source = Source::undetectable();
    let (_quota, _, main) = with_provider(&source);
    source.set(None);
    source.set_delay(SECOND * 3);
    let retry = async {
        tokio::time::sleep(SECOND).await;
        source.set(1);
        main.refresh().await.map(|refreshed| refreshed.fetched)
    };

    let (before, retried) = tokio::join!(main.get(), retry);

    assert!(before.is_err());
    assert!(retried.unwrap());
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed_however_often_a_read_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("login");
    let source = Source::with(Version::Files(path.clone()));
    source.set(None);
    let main = account(&source);
    tokio::time::pause();
    read_a_dead_login(&source, &main).await;
    tokio::time::resume();
    std::fs::write(path, "1").unwrap();
    source.set(1);

    assert_eq!(token(&main).await.as_deref(), Some("n33dle-1"));
}

#[tokio::test(start_paused = true)]
async fn closing_the_manager_ends_a_read_in_flight() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let (quota, _, main) = with_provider(&source);
    drop(main.credential(Duration::ZERO).await);
    main.refresh_in_background();
    run_ready_tasks().await;
    assert_eq!(source.running(), 1);
    let clock = Clock::system();
    let began = clock.instant();

    assert!(quota.close().await);

    assert_eq!((source.running(), clock.instant()), (0, began));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_a_read_in_flight() {
    let source = Source::undetectable();
    source.set_delay(MINUTE * 60);
    let main = account(&source);
    drop(main.credential(Duration::ZERO).await);
    assert_eq!(source.running(), 1);

    drop(main);
    run_ready_tasks().await;

    assert_eq!(source.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_close_a_read_ends_with_its_caller() {
    let source = Source::undetectable();
    source.set_delay(SECOND * 5);
    let (quota, _, main) = with_provider(&source);
    quota.close().await;

    let in_time = main.credential(SECOND * 6).await.unwrap();
    source.0.token.lock().unwrap().replace(2);
    tokio::time::sleep(MINUTE * 6).await;
    let late = main.credential(SECOND).await;

    assert!(in_time.is_some() && late.is_err());
    assert_eq!(source.running(), 0);
}

/// Reads the login in one file and the token in another, as Claude Code's source does. Both change between the two reads once.
#[derive(Debug)]
struct TwoFiles {
    folder: tempfile::TempDir,
    will_switch: AtomicBool,
}

impl TwoFiles {
    fn write(&self, name: &str) {
        for file in ["login", "token"] {
            std::fs::write(self.folder.path().join(file), name).unwrap();
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

#[async_trait]
impl CredentialSource for TwoFiles {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let login = self.read("login");
        if self.will_switch.swap(false, Ordering::Relaxed) {
            self.write("other");
        }
        let token = self.read("token");
        let fingerprint = CredentialFingerprint::from_hash(u64::from(token.as_bytes()[0]));
        Ok(Credential::new(token).login(LoginInfo::new(LoginId::new(&login)).fingerprint(fingerprint)))
    }

    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::of_files(["login", "token"].map(|file| self.folder.path().join(file))).await)
    }
}

#[tokio::test]
async fn the_login_and_the_token_come_from_one_state_of_the_files() {
    let source = TwoFiles { folder: tempfile::tempdir().unwrap(), will_switch: AtomicBool::new(true) };
    source.write("first");
    let quota = QuotaManager::builder(MemoryStore::new()).build().unwrap();
    let main = quota.account(&id("main"));
    main.set_credentials(source);

    let found = main.credential(MINUTE).await.unwrap().unwrap();

    assert_eq!((found.secret.expose(), found.login.login_id), ("other", Some(LoginId::new("other"))));
}

/// The provider of the logins `a` and `b`. Its second call completes the switch from `a` to `b`.
#[derive(Debug)]
struct TwoLogins {
    source: Arc<TwoFiles>,
    late_file: &'static str,
    /// Whether the second call fails with a rate limit.
    limits: bool,
    tokens: Mutex<Vec<String>>,
}

#[async_trait]
impl UsageFetcher for TwoLogins {
    fn provider(&self) -> ProviderId {
        ProviderId::new("example").unwrap()
    }

    async fn fetch(&self, _account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        let token = credential.secret.expose().to_owned();
        let mut tokens = self.tokens.lock().unwrap();
        tokens.push(token.clone());
        if tokens.len() == 2 {
            std::fs::write(self.source.folder.path().join(self.late_file), "b").unwrap();
            if self.limits {
                return Err(FetchError::throttled(Some(MINUTE * 10)));
            }
        }
        Ok(polled(if token == "a" { 95.0 } else { 5.0 }))
    }
}

#[tokio::test]
async fn a_call_in_the_middle_of_a_switch_mixes_no_logins() {
    for (early_file, late_file) in [("token", "login"), ("login", "token")] {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(TwoFiles { folder, will_switch: AtomicBool::new(false) });
        source.write("a");
        let store = Arc::new(MemoryStore::new());
        let fetcher =
            TwoLogins { source: Arc::clone(&source), late_file, limits: false, tokens: Mutex::default() };
        let quota = QuotaManager::builder(Arc::clone(&store)).provider(fetcher, Arc::clone(&source));
        let quota = quota.policy(no_rate_limit()).build().unwrap();
        let main = quota.account(&id("main"));
        drop(main.get().await.unwrap());
        std::fs::write(source.folder.path().join(early_file), "b").unwrap();

        drop(main.refresh().await.unwrap());

        let usage = main.peek();
        assert_eq!(
            (usage.login_id(), last_read(&usage)),
            (Some(&LoginId::new("b")), Some(5.0)),
            "{early_file}"
        );
        let key = StoreKey::login(id("main").provider(), &LoginId::new("a"));
        let stored = store.read(&key).await.unwrap().document.unwrap();
        let record = Record::decode(&stored.body).unwrap();
        let of_a = record.snapshot().window(&WindowId::five_hour()).unwrap().used();
        assert_eq!(of_a, percent(95.0), "{early_file}");
    }
}

#[tokio::test]
async fn a_rate_limit_in_the_middle_of_a_switch_holds_no_login() {
    for (early_file, late_file) in [("token", "login"), ("login", "token")] {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(TwoFiles { folder, will_switch: AtomicBool::new(false) });
        source.write("a");
        let store = Arc::new(MemoryStore::new());
        let fetcher =
            TwoLogins { source: Arc::clone(&source), late_file, limits: true, tokens: Mutex::default() };
        let quota = QuotaManager::builder(Arc::clone(&store)).provider(fetcher, Arc::clone(&source));
        let quota = quota.policy(no_rate_limit()).build().unwrap();
        let main = quota.account(&id("main"));
        drop(main.get().await.unwrap());
        std::fs::write(source.folder.path().join(early_file), "b").unwrap();

        let refreshed = main.refresh().await;

        assert!(refreshed.is_err(), "the cooldown of the provider applies: {refreshed:?}");
        for name in ["a", "b"] {
            let key = StoreKey::login(id("main").provider(), &LoginId::new(name));
            let found = store.read(&key).await.unwrap().document;
            let record = found.map(|found| Record::decode(&found.body).unwrap()).unwrap_or_default();
            assert_eq!((record.hold(), record.lease()), (None, None), "{early_file}: {name}");
        }
    }
}
