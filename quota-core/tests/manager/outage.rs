//! Short-lived processes during an outage of the store: each is a manager that shares a level with the others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::model::{LoginId, LoginInfo};
use quota_core::outage::{NoTimeLeft, OutageLevel, OutageStore};
use quota_core::policy::StoreOutagePolicy;
use quota_core::record::{HoldReason, Record};
use quota_core::store::{
    CasOutcome, DocumentEntry, Notice, StoreError, StoreKey, StoreRead, Version, WriteState,
};
use quota_core::testing::{FakeProvider, ScriptedStore, Step};
use quota_core::{
    Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaManager, QuotaStore, Snapshot, WindowId,
};

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Refused,
    Frozen,
    ReadOnly,
    /// A file on a file system without file locks.
    NoLocks,
    /// Each use takes half a second.
    Slow,
}

/// The shared store, which counts its uses.
#[derive(Debug)]
struct Remote {
    inner: MemoryStore,
    fault: Mutex<Fault>,
    /// The faults of single documents.
    faults: Mutex<HashMap<StoreKey, Fault>>,
    uses: AtomicUsize,
    clock: Clock,
}

impl Remote {
    fn new(clock: Clock, fault: Fault) -> Arc<Self> {
        let (inner, fault) = (MemoryStore::with_clock(clock.clone()), Mutex::new(fault));
        Arc::new(Self { inner, fault, faults: Mutex::default(), uses: AtomicUsize::new(0), clock })
    }

    async fn check(&self, key: &StoreKey, is_write: bool) -> Result<(), StoreError> {
        self.uses.fetch_add(1, Ordering::SeqCst);
        let fault = self.faults.lock().get(key).copied().unwrap_or(*self.fault.lock());
        match fault {
            Fault::Refused => Err(StoreError::unavailable(WriteState::NotApplied, "connection refused")),
            Fault::Frozen => std::future::pending().await,
            Fault::ReadOnly if is_write => Err(StoreError::rejected("read-only replica")),
            Fault::NoLocks => {
                Err(StoreError::rejected("the file system has no locks").with_source(no_locks()))
            }
            Fault::Slow => {
                self.clock.sleep(SECOND / 2).await;
                Ok(())
            }
            Fault::None | Fault::ReadOnly => Ok(()),
        }
    }
}

#[async_trait]
impl QuotaStore for Remote {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.check(key, false).await?;
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.check(key, true).await?;
        self.inner.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.check(key, false).await?;
        self.inner.wait_for_change(key, seen).await
    }
}

/// The content of a level, which can be listed.
#[derive(Debug)]
struct File {
    inner: MemoryStore,
    keys: Mutex<BTreeSet<StoreKey>>,
}

impl File {
    fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::with_clock(clock.clone()), keys: Mutex::default() })
    }
}

#[async_trait]
impl QuotaStore for File {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.keys.lock().insert(key.clone());
        self.inner.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

/// A level in memory: the "file" that the processes of one machine share.
#[derive(Debug)]
struct Level {
    clock: Clock,
    file: Arc<Mutex<Option<Arc<File>>>>,
    /// Whether it cannot be created.
    is_broken: bool,
    /// Whether a process hangs before it removes the file.
    hangs_before_removal: Arc<Mutex<bool>>,
}

/// A handle to the file, which fails if that was removed.
#[derive(Debug)]
struct Handle {
    file: Arc<Mutex<Option<Arc<File>>>>,
    /// The clock of a file that the first write creates.
    creates: Option<Clock>,
}

impl Handle {
    fn store(&self) -> Result<Arc<File>, StoreError> {
        let mut file = self.file.lock();
        if let (None, Some(clock)) = (&*file, &self.creates) {
            *file = Some(File::new(clock));
        }
        file.clone().ok_or_else(|| StoreError::unavailable(WriteState::NotApplied, "the file is gone"))
    }
}

#[async_trait]
impl QuotaStore for Handle {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.store()?.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.store()?.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.store()?.wait_for_change(key, seen).await
    }
}

#[async_trait]
impl OutageLevel for Level {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn exists(&self) -> bool {
        self.file.lock().is_some()
    }

    fn open(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        Ok(Arc::new(Handle { file: Arc::clone(&self.file), creates: None }))
    }

    fn create(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        if self.is_broken {
            return Err(StoreError::rejected("the folder belongs to another user"));
        }
        Ok(Arc::new(Handle { file: Arc::clone(&self.file), creates: Some(self.clock.clone()) }))
    }

    async fn documents(&self) -> Result<Vec<DocumentEntry>, StoreError> {
        let Some(file) = self.file.lock().clone() else { return Ok(Vec::new()) };
        let keys = file.keys.lock().clone();
        let mut entries = Vec::new();
        for key in keys {
            if let Some(version) = file.read(&key).await?.version() {
                // Each document is about to expire.
                entries.push(DocumentEntry { key, version, ttl: SECOND });
            }
        }
        Ok(entries)
    }

    async fn remove(&self, version: Version) -> Result<(), StoreError> {
        if *self.hangs_before_removal.lock() {
            std::future::pending::<()>().await;
        }
        let file = self.file.lock().clone().expect("only the attempt removes it");
        if file.read(&StoreKey::outage()).await?.version() != Some(version) {
            return Err(StoreError::unavailable(WriteState::NotApplied, "the file has changed"));
        }
        *self.file.lock() = None;
        Ok(())
    }
}

/// One machine, its shared store, and a provider.
struct Machine {
    clock: Clock,
    remote: Arc<Remote>,
    level: Arc<Level>,
    provider: FakeProvider,
    policy: Policy,
}

impl Machine {
    fn new(fault: Fault) -> Self {
        Self::with_broken_level(fault, false)
    }

    fn with_broken_level(fault: Fault, is_broken: bool) -> Self {
        let clock = Clock::virtual_at(noon());
        let remote = Remote::new(clock.clone(), fault);
        let (file, hangs_before_removal) = (Arc::default(), Arc::default());
        let level = Arc::new(Level { clock: clock.clone(), file, is_broken, hangs_before_removal });
        let provider = FakeProvider::answering("example", 40.0);
        Self { clock, remote, level, provider, policy: no_rate_limit() }
    }

    fn set(&self, fault: Fault) {
        *self.remote.fault.lock() = fault;
    }

    /// Starts a process.
    fn process(&self) -> QuotaManager {
        QuotaManager::builder(Arc::clone(&self.remote))
            .provider(self.provider.clone(), self.provider.clone())
            .clock(self.clock.clone())
            .policy(self.policy.clone())
            .outage_store([Arc::clone(&self.level) as Arc<dyn OutageLevel>])
            .build()
            .unwrap()
    }

    /// The store of a process.
    fn store(&self) -> OutageStore {
        let level = Arc::clone(&self.level) as Arc<dyn OutageLevel>;
        OutageStore::new(Arc::clone(&self.remote), [level], SECOND).with_clock(self.clock.clone())
    }

    /// Breaks the document of one account, as a shard that is down or a rule of the server does.
    fn set_for(&self, account: &str, fault: Fault) {
        self.remote.faults.lock().insert(StoreKey::account(&id(account)), fault);
    }

    /// Runs a command that gets the usage of `main`, and returns the known use.
    async fn command(&self) -> Option<f64> {
        self.command_for("main").await
    }

    async fn command_for(&self, account: &str) -> Option<f64> {
        let process = self.process();
        let usage = process.account(&id(account)).get().await;
        process.close().await;
        usage.ok().and_then(|usage| last_read(&usage))
    }

    /// The record of `main` in the shared store.
    async fn shared_record(&self) -> Option<Record> {
        self.shared_record_of("main").await
    }

    async fn shared_record_of(&self, account: &str) -> Option<Record> {
        let reading = self.remote.inner.read(&StoreKey::account(&id(account))).await.unwrap();
        reading.document.map(|document| Record::decode(&document.body).unwrap())
    }

    /// Another host writes a reading of `main` into the shared store.
    async fn write_elsewhere(&self, used: f64) {
        let key = StoreKey::account(&id("main"));
        let found = self.remote.inner.read(&key).await.unwrap();
        let version = found.version();
        let mut record =
            found.document.map(|document| Record::decode(&document.body).unwrap()).unwrap_or_default();
        let readings = Snapshot::of(&polled(used), self.clock.now());
        let _ = record.observe(self.clock.now(), &readings, None, None);
        record.bump_revision();
        let written =
            self.remote.inner.compare_and_swap(&key, version, record.encode(), MINUTE * 60).await.unwrap();
        assert!(matches!(written, CasOutcome::Applied(_)), "{written:?}");
    }

    /// Another process writes a reading into the file.
    async fn write_into_file(&self, account: &str, used: f64) {
        let (file, key) = (self.level.file.lock().clone().unwrap(), StoreKey::account(&id(account)));
        let found = file.read(&key).await.unwrap();
        let version = found.version();
        let mut record =
            found.document.map(|document| Record::decode(&document.body).unwrap()).unwrap_or_default();
        let readings = Snapshot::of(&polled(used), self.clock.now());
        let _ = record.observe(self.clock.now(), &readings, None, None);
        let written = file.compare_and_swap(&key, version, record.encode(), MINUTE * 60).await.unwrap();
        assert!(matches!(written, CasOutcome::Applied(_)), "{written:?}");
    }

    fn calls(&self) -> usize {
        self.provider.calls()
    }

    fn uses(&self) -> usize {
        self.remote.uses.load(Ordering::SeqCst)
    }
}

const FAULTS: [Fault; 4] = [Fault::Refused, Fault::Frozen, Fault::ReadOnly, Fault::NoLocks];

/// The error of a lock on a file system without file locks.
fn no_locks() -> std::io::Error {
    #[cfg(unix)]
    let error = std::io::Error::from_raw_os_error(rustix::io::Errno::NOLCK.raw_os_error());
    #[cfg(not(unix))]
    let error = std::io::Error::from(std::io::ErrorKind::Unsupported);
    error
}

#[tokio::test(start_paused = true)]
async fn forty_commands_during_an_outage_make_one_call() {
    for fault in FAULTS {
        let machine = Machine::new(fault);

        let shown = join_all((0..40).map(|_| machine.command())).await;
        let again = join_all((0..40).map(|_| machine.command())).await;

        assert_eq!(machine.calls(), 1, "{fault:?}");
        assert!(shown.iter().chain(&again).all(|used| *used == Some(40.0)), "{fault:?}: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_armed_during_an_outage_binds_later_commands() {
    for fault in FAULTS {
        let machine = Machine::new(fault);
        machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));

        for _ in 0..10 {
            machine.command().await;
        }

        assert_eq!(machine.calls(), 1, "{fault:?}");
        machine.clock.sleep(MINUTE * 11).await;
        machine.command().await;
        assert_eq!(machine.calls(), 2, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_not_tried_before_the_stated_time() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    let uses = machine.uses();

    machine.clock.sleep(SECOND * 3).await;
    for _ in 0..10 {
        machine.command().await;
    }

    assert_eq!(machine.uses(), uses);
}

#[tokio::test(start_paused = true)]
async fn one_command_tries_the_store_while_the_others_use_the_file() {
    let machine = Machine::new(Fault::Frozen);
    machine.command().await;
    let uses = machine.uses();
    machine.clock.sleep(SECOND * 8).await;

    join_all((0..40).map(|_| machine.command())).await;

    // The trial, and the record of the file, because the trial may be in a shard that is down.
    assert_eq!(machine.uses(), uses + 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_command_that_reaches_the_store_merges_and_removes_the_file() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    machine.clock.sleep(MINUTE * 6).await;
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 2).await;

    assert_eq!(machine.command().await, Some(40.0));

    let record = machine.shared_record().await.unwrap();
    assert!(!machine.level.exists());
    assert_eq!((machine.calls(), record.calls().len()), (2, 2));
    assert_eq!(record.hold().map(|hold| hold.reason), Some(HoldReason::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_merged_document_outlives_its_remaining_time_in_the_file() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(SECOND * 8).await;
    let _ = machine.store().read(&StoreKey::account(&id("main"))).await;
    assert!(!machine.level.exists());

    machine.clock.sleep(MINUTE * 60).await;

    assert!(machine.shared_record().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_login_survives_the_merge() {
    let machine = Machine::new(Fault::Refused);
    let login = LoginId::new("user-1");
    machine.provider.set_login(&id("main"), Ok(LoginInfo::new(login.clone())));
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 2).await;
    machine.command().await;

    let key = StoreKey::login(id("main").provider(), &login);
    let document = machine.remote.inner.read(&key).await.unwrap().document.unwrap();
    let record = Record::decode(&document.body).unwrap();

    assert!(!machine.level.exists());
    assert_eq!(record.hold().map(|hold| hold.reason), Some(HoldReason::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_file_with_a_record_of_a_newer_program_stays() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    let (file, key) = (machine.level.file.lock().clone().unwrap(), StoreKey::account(&id("main")));
    let found = file.read(&key).await.unwrap().document.unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
    record["format"] = 99.into();
    let body = serde_json::to_vec(&record).unwrap().into();
    let _ = file.compare_and_swap(&key, Some(found.version), body, MINUTE * 60).await.unwrap();
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 2).await;

    machine.command().await;

    assert!(machine.level.exists());
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_program_in_the_store_ends_the_outage() {
    const NEWER: &[u8] = br#"{"format":99}"#;
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    let key = StoreKey::account(&id("main"));
    let _ = machine.remote.inner.compare_and_swap(&key, None, NEWER.into(), MINUTE * 60).await.unwrap();
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 6).await;

    machine.command().await;

    let stored = machine.remote.inner.read(&key).await.unwrap().document.unwrap();
    assert_eq!((machine.level.exists(), &*stored.body), (false, NEWER));
    assert_eq!(machine.calls(), 1, "this program makes no calls for such a record");
}

#[tokio::test(start_paused = true)]
async fn a_write_during_the_attempt_is_merged_before_the_outage_ends() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.command_for("other").await;
    machine.set(Fault::None);
    machine.set_for("main", Fault::Slow);
    machine.clock.sleep(SECOND * 8).await;
    let (store, key) = (machine.store(), StoreKey::account(&id("third")));
    let attempt = tokio::spawn(async move { store.read(&key).await });
    machine.clock.sleep(SECOND / 4).await;
    assert!(machine.shared_record_of("other").await.is_some(), "merged already");

    machine.write_into_file("other", 77.0).await;
    drop(attempt.await.unwrap().unwrap());

    let record = machine.shared_record_of("other").await.unwrap();
    assert!(!machine.level.exists());
    assert_eq!(record.snapshot().window(&WindowId::five_hour()).unwrap().used(), percent(77.0));
}

#[tokio::test(start_paused = true)]
async fn readings_of_another_host_survive_the_merge() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.clock.sleep(MINUTE).await;
    machine.write_elsewhere(55.0).await;
    machine.set(Fault::None);

    assert_eq!(machine.command().await, Some(55.0));

    assert_eq!(machine.shared_record().await.unwrap().calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn readings_of_a_read_only_store_stay_known() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    let other = machine.process();
    let _ = other.account(&id("other")).get().await;

    assert!(machine.level.exists());
    assert_eq!(machine.command().await, Some(40.0));

    assert_eq!(machine.provider.calls_for(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_read_only_store_binds_a_forced_refresh() {
    let machine = Machine::new(Fault::None);
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    machine.command().await;
    machine.clock.sleep(MINUTE * 2).await;
    machine.set(Fault::ReadOnly);

    drop(machine.process().account(&id("main")).refresh().await);

    assert_eq!(machine.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_cleared_while_the_store_is_read_only() {
    let machine = Machine::new(Fault::None);
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    machine.command().await;
    machine.set(Fault::ReadOnly);

    let cleared = machine.process().account(&id("main")).clear_hold().await;

    assert!(cleared.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_command_killed_before_the_removal_leaves_a_file_that_is_merged_again() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(SECOND * 8).await;
    *machine.level.hangs_before_removal.lock() = true;
    let store = machine.store();
    let killed = machine.clock.bounded(SECOND, store.read(&StoreKey::account(&id("main")))).await;
    assert!(killed.is_none() && machine.level.exists(), "{killed:?}");
    let merged = machine.shared_record().await.unwrap();
    *machine.level.hangs_before_removal.lock() = false;
    machine.clock.sleep(SECOND * 20).await;

    machine.command().await;

    assert!(!machine.level.exists());
    assert_eq!((machine.shared_record().await, machine.calls()), (Some(merged), 1));
}

#[tokio::test(start_paused = true)]
async fn a_file_without_its_document_is_merged_and_removed() {
    let machine = Machine::new(Fault::None);
    *machine.level.file.lock() = Some(File::new(&machine.clock));

    assert_eq!(machine.command().await, Some(40.0));

    assert!(!machine.level.exists() && machine.shared_record().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn times_in_the_file_are_those_of_the_store() {
    let mut machine = Machine::new(Fault::None);
    let ahead = Clock::virtual_at(noon() + Duration::from_secs(3600));
    machine.remote = Remote::new(ahead, Fault::None);
    let process = machine.process();
    drop(process.account(&id("other")).sync().await);
    machine.set(Fault::Refused);

    drop(process.account(&id("main")).get().await.unwrap());

    let read_at = process.account(&id("main")).peek().snapshot().complete_at().unwrap();
    assert_eq!(read_at.duration_since(noon()).as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_with_its_times_and_reason() {
    let machine = Machine::new(Fault::Refused);
    let process = machine.process();
    drop(process.account(&id("main")).get().await.unwrap());

    let outage = process.outage().unwrap();

    assert_eq!((outage.since, &*outage.reason), (noon(), "connection refused"));
    assert_eq!(outage.place.as_deref(), Some("memory"));
    let wait = outage.retry_at.unwrap().duration_since(noon());
    assert!((3..=7).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(machine.store().find_outage().await.unwrap(), Some(outage));
}

#[tokio::test(start_paused = true)]
async fn without_a_level_only_an_explicit_refresh_calls() {
    for fault in FAULTS {
        let machine = Machine::with_broken_level(fault, true);
        let process = machine.process();
        let main = process.account(&id("main"));

        let got = main.get().await;
        assert!(matches!(got, Err(QuotaError::Store { .. })), "{got:?}");
        assert_eq!((machine.calls(), process.outage().unwrap().place), (0, None), "{fault:?}");

        drop(main.refresh().await.unwrap());
        assert_eq!(machine.calls(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_level_keep_fresh_makes_no_call() {
    for fault in FAULTS {
        let machine = Machine::with_broken_level(fault, true);
        let process = machine.process();

        let kept = process.account(&id("main")).keep_fresh();
        machine.clock.sleep(MINUTE * 30).await;

        assert_eq!(machine.calls(), 0, "{fault:?}");
        drop(kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_use_without_time_begins_no_outage() {
    let untried = StoreError::unavailable(WriteState::NotApplied, "it timed out").with_source(NoTimeLeft);
    let machine = Machine::new(Fault::None);
    let remote = ScriptedStore::new(MemoryStore::new(), [Step::Fail(untried.clone()), Step::Fail(untried)]);
    let level = Arc::clone(&machine.level) as Arc<dyn OutageLevel>;
    let store = OutageStore::new(remote, [level], SECOND).with_clock(machine.clock.clone());

    let read = store.read(&StoreKey::account(&id("main"))).await;

    assert!(read.unwrap_err().is_transient() && !machine.level.exists());
}

/// A store with a limit for all uses of a process, as a statusline has.
#[derive(Debug)]
struct Limited {
    inner: Arc<Remote>,
    ends_at: Timestamp,
}

impl Limited {
    /// The outage store of a process that has this much time for the shared store.
    fn store(machine: &Machine, limit: Duration) -> OutageStore {
        let inner = Arc::clone(&machine.remote);
        let limited = Self { ends_at: inner.clock.now() + limit, inner };
        let level = Arc::clone(&machine.level) as Arc<dyn OutageLevel>;
        OutageStore::new(limited, [level], MINUTE).with_clock(machine.clock.clone())
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let clock = &self.inner.clock;
        let left = Duration::try_from(self.ends_at.duration_since(clock.now())).unwrap_or_default();
        if left.is_zero() {
            let untried = StoreError::unavailable(WriteState::NotApplied, "it timed out");
            return Err(untried.with_source(NoTimeLeft));
        }
        let late = || StoreError::unavailable(WriteState::Unknown, "it timed out");
        clock.bounded(left, call).await.unwrap_or_else(|| Err(late()))
    }
}

#[async_trait]
impl QuotaStore for Limited {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.within(self.inner.read(key)).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.within(self.inner.compare_and_swap(key, expected, body, ttl)).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_enough_time_delays_no_other() {
    // It ends in the trial write, in the read and in the write of a merge, and before the attempt.
    for limit in [750, 1250, 1750, 0].map(Duration::from_millis) {
        let machine = Machine::new(Fault::Refused);
        machine.command().await;
        machine.set(Fault::Slow);
        machine.clock.sleep(SECOND * 8).await;
        let brief = Limited::store(&machine, limit);
        for _ in 0..2 {
            let read = brief.read(&StoreKey::account(&id("main"))).await.unwrap();
            assert!(read.document.is_some(), "{limit:?}: it uses the file");
        }
        let uses = machine.uses();

        machine.set(Fault::None);
        machine.command().await;

        assert!(!machine.level.exists() && machine.uses() > uses, "{limit:?}");
        assert_eq!(machine.shared_record().await.unwrap().calls().len(), 1, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_answer_uses_the_time_of_one_process() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.set(Fault::Frozen);
    machine.clock.sleep(SECOND * 8).await;
    let key = StoreKey::account(&id("main"));
    let _ = Limited::store(&machine, SECOND).read(&key).await;
    let uses = machine.uses();

    let _ = Limited::store(&machine, SECOND).read(&key).await;

    assert_eq!(machine.uses(), uses);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_attempt_uses_the_time_of_one_brief_process() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    machine.set(Fault::Slow);
    machine.clock.sleep(SECOND * 8).await;
    let key = StoreKey::account(&id("main"));
    let mut uses = Vec::new();
    for pause in [0, 1, 5] {
        machine.clock.sleep(SECOND * pause).await;
        let before = machine.uses();
        let _ = Limited::store(&machine, SECOND).brief().read(&key).await;
        uses.push(machine.uses() > before);
    }

    assert_eq!(uses, [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_uses_no_level() {
    let mut machine = Machine::new(Fault::Refused);
    machine.policy = machine.policy.on_store_unavailable(StoreOutagePolicy::FailClosed);

    machine.command().await;

    assert_eq!((machine.calls(), machine.level.exists()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_closed_uses_no_level() {
    let machine = Machine::new(Fault::Refused);
    let closed = machine.policy.clone().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let process = QuotaManager::builder(Arc::clone(&machine.remote))
        .provider(machine.provider.clone(), machine.provider.clone())
        .clock(machine.clock.clone())
        .policy_for(id("main").provider().clone(), closed)
        .outage_store([Arc::clone(&machine.level) as Arc<dyn OutageLevel>])
        .build()
        .unwrap();

    let _ = process.account(&id("main")).get().await;

    assert_eq!((machine.calls(), machine.level.exists()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_closed_keeps_no_other_from_the_file() {
    let machine = Machine::new(Fault::Refused);
    let other = FakeProvider::answering("other", 70.0);
    let closed = machine.policy.clone().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let process = QuotaManager::builder(Arc::clone(&machine.remote))
        .provider(machine.provider.clone(), machine.provider.clone())
        .provider(other.clone(), other.clone())
        .clock(machine.clock.clone())
        .policy(machine.policy.clone())
        .policy_for(id("main").provider().clone(), closed)
        .outage_store([Arc::clone(&machine.level) as Arc<dyn OutageLevel>])
        .build()
        .unwrap();

    let failed = process.account(&id("main")).get().await;
    let got = process.account(&"other/main".parse().unwrap()).get().await;

    assert!(failed.is_err());
    assert_eq!(last_read(&got.unwrap()), Some(70.0));
    assert_eq!((machine.calls(), other.calls(), process.store_stats().outages), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_provider_with_its_own_policy_uses_the_file_if_the_others_fail_closed() {
    let machine = Machine::new(Fault::Refused);
    let closed = machine.policy.clone().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let process = QuotaManager::builder(Arc::clone(&machine.remote))
        .provider(machine.provider.clone(), machine.provider.clone())
        .clock(machine.clock.clone())
        .policy(closed)
        .policy_for(id("main").provider().clone(), machine.policy.clone())
        .outage_store([Arc::clone(&machine.level) as Arc<dyn OutageLevel>])
        .build()
        .unwrap();

    assert_eq!(last_read(&process.account(&id("main")).get().await.unwrap()), Some(40.0));

    assert!(machine.level.exists());
}

#[tokio::test(start_paused = true)]
async fn accounts_of_healthy_shards_return_to_the_store() {
    for fault in FAULTS {
        let machine = Machine::new(Fault::None);
        machine.set_for("main", fault);
        machine.command().await;
        machine.command_for("other").await;
        assert_eq!(machine.shared_record_of("other").await, None, "the outage began for all");
        machine.clock.sleep(SECOND * 8).await;

        machine.command().await;

        assert_eq!(machine.shared_record_of("other").await.unwrap().calls().len(), 1, "{fault:?}");
        assert!(machine.level.exists());
        machine.clock.sleep(MINUTE * 6).await;
        machine.command_for("other").await;
        machine.command().await;
        assert_eq!(machine.shared_record_of("other").await.unwrap().calls().len(), 2, "{fault:?}");
        assert_eq!((machine.shared_record().await, machine.calls()), (None, 4), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_shard_is_reported_as_partial_and_only_for_its_accounts() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Refused);
    let process = machine.process();
    drop(process.account(&id("main")).get().await);
    assert!(!process.outage().unwrap().is_partial);
    machine.clock.sleep(SECOND * 8).await;
    machine.command().await;

    let healthy = machine.process();
    drop(healthy.account(&id("other")).get().await.unwrap());
    let broken = machine.process();
    drop(broken.account(&id("main")).get().await.unwrap());

    assert_eq!(healthy.outage(), None);
    assert!(broken.outage().unwrap().is_partial);
    assert!(machine.store().find_outage().await.unwrap().unwrap().is_partial);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_removed_when_the_last_shard_works_again() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Refused);
    machine.command().await;
    machine.clock.sleep(SECOND * 8).await;
    machine.command().await;
    machine.set_for("main", Fault::None);
    machine.clock.sleep(MINUTE).await;

    machine.command().await;

    assert!(!machine.level.exists());
    assert_eq!((machine.shared_record().await.unwrap().calls().len(), machine.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_second_dead_shard_joins_a_partial_outage() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Refused);
    machine.command().await;
    machine.clock.sleep(SECOND * 8).await;
    machine.command().await;
    machine.set_for("other", Fault::Refused);

    for _ in 0..3 {
        assert_eq!(machine.command_for("other").await, Some(40.0));
        assert_eq!(machine.command_for("third").await, Some(40.0));
    }

    assert_eq!(machine.calls(), 3);
    assert!(machine.shared_record_of("third").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_accounts_of_a_second_dead_shard_join_a_partial_outage() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Refused);
    machine.command().await;
    machine.clock.sleep(SECOND * 8).await;
    machine.command().await;
    let accounts: Vec<_> = (0..300).map(|number| format!("n{number}")).collect();
    accounts.iter().for_each(|account| machine.set_for(account, Fault::Refused));

    for _ in 0..2 {
        let shown = join_all(accounts.iter().map(|account| machine.command_for(account))).await;

        assert_eq!(shown.iter().filter(|used| **used != Some(40.0)).count(), 0);
    }

    assert_eq!(machine.calls(), 301);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_during_a_partial_outage_is_used_for_no_account() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Refused);
    machine.command().await;
    machine.clock.sleep(SECOND * 8).await;
    machine.command().await;
    machine.set(Fault::Refused);
    machine.clock.sleep(MINUTE).await;
    machine.command().await;
    let uses = machine.uses();

    for account in ["other", "third"] {
        machine.command_for(account).await;
    }

    assert_eq!(machine.uses(), uses);
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_the_trial_document_keeps_no_account_in_the_file() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    let trial = StoreKey::account_extension(&"quota/probe".parse().unwrap(), "trial");
    machine.remote.faults.lock().insert(trial, Fault::Refused);
    machine.set(Fault::None);
    machine.clock.sleep(SECOND * 8).await;

    machine.command().await;

    assert!(!machine.level.exists() && machine.shared_record().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn readings_that_arrive_in_a_read_only_store_are_shown() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    machine.command_for("other").await;
    assert_eq!(machine.command().await, Some(40.0));
    for used in [55.0, 56.0] {
        machine.clock.sleep(SECOND).await;
        machine.write_elsewhere(used).await;

        assert_eq!(machine.command().await, Some(used));
    }

    assert_eq!(machine.provider.calls_for(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_in_a_row_read_a_read_only_store_once() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    machine.command_for("other").await;
    let (store, key) = (machine.store(), StoreKey::account(&id("main")));
    let before = machine.uses();

    for _ in 0..3 {
        assert!(store.read(&key).await.unwrap().document.is_some());
    }

    assert_eq!(machine.uses() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_follows_a_read_only_store() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    machine.command_for("other").await;
    let process = machine.process();
    let main = process.account(&id("main"));
    drop(main.get().await.unwrap());
    machine.clock.sleep(SECOND).await;

    machine.write_elsewhere(55.0).await;
    machine.clock.sleep(SECOND).await;

    assert_eq!(last_read(&main.peek()), Some(55.0));
    assert!(machine.level.exists());
}

#[tokio::test(start_paused = true)]
async fn copies_of_a_read_only_store_keep_the_calls_of_the_outage() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    machine.clock.sleep(MINUTE * 6).await;
    machine.command().await;
    machine.write_elsewhere(55.0).await;
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 2).await;

    machine.command().await;

    assert!(!machine.level.exists());
    assert_eq!((machine.shared_record().await.unwrap().calls().len(), machine.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_an_earlier_file_is_copied_into_the_next() {
    let machine = Machine::new(Fault::None);
    machine.command().await;
    machine.set(Fault::ReadOnly);
    machine.command_for("other").await;
    let (store, key) = (machine.store(), StoreKey::account(&id("main")));
    let first = store.read(&key).await.unwrap().document;
    *machine.level.file.lock() = None;
    machine.command_for("third").await;
    machine.clock.sleep(SECOND).await;

    let second = store.read(&key).await.unwrap().document;

    assert!(machine.level.exists() && first.is_some() && second.is_some(), "{first:?} {second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_during_the_attempt_is_merged_if_the_outage_becomes_partial() {
    let machine = Machine::new(Fault::None);
    machine.set_for("main", Fault::Frozen);
    machine.command().await;
    machine.command_for("other").await;
    machine.clock.sleep(SECOND * 8).await;
    let (store, key) = (machine.store(), StoreKey::account(&id("main")));
    let attempt = tokio::spawn(async move { store.read(&key).await });
    machine.clock.sleep(SECOND / 2).await;
    assert!(machine.shared_record_of("other").await.is_some(), "merged already");

    machine.write_into_file("other", 77.0).await;
    drop(attempt.await.unwrap().unwrap());

    let record = machine.shared_record_of("other").await.unwrap();
    assert!(machine.store().find_outage().await.unwrap().unwrap().is_partial);
    assert_eq!(record.snapshot().window(&WindowId::five_hour()).unwrap().used(), percent(77.0));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_shard_of_thousands_of_documents_makes_the_outage_partial() {
    let machine = Machine::new(Fault::Refused);
    machine.command().await;
    for number in 0..2_800 {
        let account = format!("n{number}");
        machine.write_into_file(&account, 10.0).await;
        if number % 3 == 0 {
            machine.set_for(&account, Fault::Frozen);
        }
    }
    machine.set(Fault::None);
    machine.clock.sleep(SECOND * 8).await;

    let _ = machine.store().read(&StoreKey::account(&id("main"))).await;

    assert!(machine.store().find_outage().await.unwrap().unwrap().is_partial);
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_begins_before_the_alias_is_written() {
    let machine = Machine::new(Fault::None);
    machine.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("user-1"))));
    let alias = StoreKey::account_extension(&id("main"), "login");
    machine.remote.faults.lock().insert(alias, Fault::Frozen);
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    let process = QuotaManager::builder(Arc::clone(&machine.remote))
        .provider(machine.provider.clone(), machine.provider.clone())
        .clock(machine.clock.clone())
        .policy(machine.policy.clone())
        .build()
        .unwrap();
    process.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;

    let _ = process.account(&id("other")).get().await;

    assert_eq!(machine.provider.called_accounts(), [id("main")]);
}

/// A machine in an outage from the start, whose clock differs from the store's by this much.
fn machine_with_wrong_clock(store_is_ahead: bool) -> Machine {
    let mut machine = Machine::new(Fault::Refused);
    let hour = Duration::from_secs(3600);
    let store_time = if store_is_ahead { noon() + hour } else { noon() - hour };
    machine.remote = Remote::new(Clock::virtual_at(store_time), Fault::Refused);
    machine
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_machine_with_a_wrong_clock_lasts_as_long_after_the_outage() {
    for store_is_ahead in [true, false] {
        let machine = machine_with_wrong_clock(store_is_ahead);
        machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
        machine.command().await;
        let armed_at = machine.remote.inner.read(&StoreKey::probe()).await.unwrap().now;
        machine.set(Fault::None);
        machine.clock.sleep(MINUTE * 2).await;
        machine.command().await;

        let record = machine.shared_record().await.unwrap();
        let ends_in = record.hold().unwrap().until.duration_since(armed_at);
        assert!((599..=610).contains(&ends_in.as_secs()), "{store_is_ahead}: {ends_in:?}");
        assert_eq!((record.calls().len(), machine.level.exists()), (1, false), "{store_is_ahead}");
        machine.clock.sleep(MINUTE * 7).await;
        machine.command().await;
        assert_eq!(machine.calls(), 1, "{store_is_ahead}");
        machine.clock.sleep(MINUTE * 2).await;
        machine.command().await;
        assert_eq!(machine.calls(), 2, "{store_is_ahead}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_by_another_clock_is_shifted_there_and_back() {
    let machine = machine_with_wrong_clock(true);
    let mut elsewhere = Machine::new(Fault::None);
    elsewhere.clock = Clock::virtual_at(noon() + Duration::from_secs(3600));
    elsewhere.remote = Arc::clone(&machine.remote);
    machine.set(Fault::None);
    elsewhere.provider.then_fail(FetchError::throttled(Some(MINUTE * 30)));
    elsewhere.command().await;
    let armed = machine.shared_record().await.unwrap();
    machine.set(Fault::Refused);
    machine.command_for("other").await;
    machine.set(Fault::ReadOnly);
    machine.clock.sleep(SECOND * 8).await;
    machine.command_for("other").await;
    machine.command().await;
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 2).await;

    machine.command().await;

    let merged = machine.shared_record().await.unwrap();
    assert!(!machine.level.exists());
    assert_eq!(machine.provider.calls_for(&id("main")), 0);
    assert_eq!((merged.calls(), merged.hold()), (armed.calls(), armed.hold()));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_merge_with_a_wrong_clock_counts_each_call_once() {
    let machine = machine_with_wrong_clock(true);
    machine.command().await;
    machine.set(Fault::None);
    *machine.level.hangs_before_removal.lock() = true;
    machine.clock.sleep(SECOND * 8).await;
    let store = machine.store();
    let killed = machine.clock.bounded(SECOND, store.read(&StoreKey::account(&id("main")))).await;
    assert!(killed.is_none() && machine.level.exists(), "{killed:?}");
    *machine.level.hangs_before_removal.lock() = false;
    machine.clock.sleep(MINUTE + Duration::from_millis(7)).await;

    drop(machine.store().read(&StoreKey::account(&id("main"))).await.unwrap());

    assert!(!machine.level.exists());
    assert_eq!(machine.shared_record().await.unwrap().calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_knows_the_offset_obeys_a_hold_of_one_that_does_not() {
    let machine = machine_with_wrong_clock(true);
    machine.set(Fault::None);
    let knows = machine.process();
    drop(knows.account(&id("other")).sync().await);
    machine.set(Fault::Refused);
    machine.provider.then_fail(FetchError::throttled(Some(MINUTE * 10)));
    machine.command().await;
    machine.clock.sleep(MINUTE).await;

    let _ = knows.account(&id("main")).get().await;

    assert_eq!(machine.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_a_newer_program_stays_and_the_next_level_is_used() {
    let machine = Machine::new(Fault::Refused);
    let file = File::new(&machine.clock);
    let newer = Bytes::from_static(br#"{"format":2,"since_ms":{"at":"noon"}}"#);
    let key = StoreKey::stored("*#outage");
    let _ = file.compare_and_swap(&key, None, newer.clone(), MINUTE * 60).await.unwrap();
    *machine.level.file.lock() = Some(Arc::clone(&file));
    let next = Machine::new(Fault::Refused);
    let levels = [Arc::clone(&machine.level), Arc::clone(&next.level)];
    let process = QuotaManager::builder(Arc::clone(&machine.remote))
        .provider(machine.provider.clone(), machine.provider.clone())
        .clock(machine.clock.clone())
        .policy(machine.policy.clone())
        .outage_store(levels.map(|level| level as Arc<dyn OutageLevel>))
        .build()
        .unwrap();

    assert_eq!(last_read(&process.account(&id("main")).get().await.unwrap()), Some(40.0));

    assert_eq!(file.read(&key).await.unwrap().document.unwrap().body, newer);
    assert_eq!(file.keys.lock().len(), 1);
    assert!(next.level.exists());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_no_outage() {
    let machine = Machine::new(Fault::None);
    let key = StoreKey::account(&id("main"));
    let _ = machine.remote.inner.compare_and_swap(&key, None, "damaged".into(), MINUTE).await;

    machine.command().await;

    assert_eq!((machine.calls(), machine.level.exists()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_outlives_the_outage_returns_to_the_store() {
    let machine = Machine::new(Fault::Refused);
    let process = machine.process();
    drop(process.account(&id("main")).get().await.unwrap());
    machine.set(Fault::None);
    machine.clock.sleep(MINUTE * 6).await;

    drop(process.account(&id("main")).get().await.unwrap());

    assert_eq!((process.outage(), machine.level.exists(), machine.calls()), (None, false, 2));
    assert_eq!(machine.shared_record().await.unwrap().calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_journal_is_never_in_the_file() {
    let machine = Machine::new(Fault::Refused);
    let store = machine.store();
    let key = StoreKey::account_extension(&id("main"), "journal");

    for _ in 0..2 {
        let written = store.compare_and_swap(&key, None, Bytes::new(), MINUTE).await;
        assert!(written.unwrap_err().is_transient());
    }

    let file = machine.level.file.lock().clone().unwrap();
    assert_eq!(file.read(&key).await.unwrap().document, None);
}

mod conformance {
    use super::*;

    quota_core::store_conformance!(outage, || async {
        let machine = Machine::new(Fault::Refused);
        let store = machine.store();
        // The first use begins the outage.
        drop(store.read(&StoreKey::probe()).await);
        store
    });
}
