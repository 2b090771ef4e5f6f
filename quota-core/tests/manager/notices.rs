//! What a follower does with a change notice: it accepts a newer record, ignores a late one, and reads if the notice does not
//! decide. A lost notice is repaired by a read within a bound.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::store::{CasOutcome, Document, Notice, StoreKey};
use quota_core::testing::ScriptedStore;
use quota_core::{Account, Clock, MemoryStore, Policy, QuotaManager, QuotaStore, Snapshot};

type Store = Arc<ScriptedStore<MemoryStore>>;

/// A manager that follows an account, on a store whose notices the test sends.
struct Followed {
    env: Env,
    store: Store,
    main: Account,
}

fn key() -> StoreKey {
    StoreKey::account(&id("main"))
}

/// The account has a record with a use of 10 percent, which the manager has read.
async fn followed() -> Followed {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(ScriptedStore::new(inner, []).with_scripted_notices());
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, Policy::default());
    let main = env.quota.account(&id("main"));
    let followed = Followed { env, store, main };
    followed.write(10.0).await;
    drop(followed.main.sync().await);
    run_ready_tasks().await;
    followed
}

impl Followed {
    /// Another process writes readings of headers. No notice is sent.
    async fn write(&self, used: f64) -> Document {
        self.change(|record, clock| {
            let readings = Snapshot::of(&headers(used), clock.now());
            let _ = record.observe(clock.now(), &readings, None, None);
        })
        .await
    }

    async fn change(&self, work: impl FnOnce(&mut Record, &Clock)) -> Document {
        let found = self.store.inner().read(&key()).await.unwrap();
        let decode = |document: &Document| Record::decode(&document.body).unwrap();
        let mut record = found.document.as_ref().map(decode).unwrap_or_default();
        work(&mut record, &self.env.clock);
        record.bump_revision();
        self.put(record.encode()).await
    }

    async fn put(&self, body: Bytes) -> Document {
        let version = self.store.inner().read(&key()).await.unwrap().version();
        let swapped = self.store.inner().compare_and_swap(&key(), version, body.clone(), MINUTE * 600).await;
        let Ok(CasOutcome::Applied(version)) = swapped else { panic!("no other writer: {swapped:?}") };
        Document::new(version, body)
    }

    /// Sends a notice, and returns how many reads follow within a second.
    async fn reads_after(&self, notice: Notice) -> usize {
        let before = self.store.reads();
        self.store.notify(&key(), notice);
        self.env.clock.sleep(SECOND).await;
        self.store.reads() - before
    }

    fn shown(&self) -> Option<f64> {
        last_read(&self.main.peek())
    }

    /// Lets time pass in which a caller reads the account, and the store confirms its notices if `confirms`.
    async fn pass(&self, time: std::time::Duration, confirms: bool) {
        let start = self.env.clock.instant();
        while self.env.clock.instant().saturating_since(start) < time {
            drop(self.main.peek());
            if confirms {
                self.store.notify(&key(), Notice::unchanged());
                self.store.notify(&StoreKey::provider(id("main").provider()), Notice::unchanged());
            }
            self.env.clock.sleep(SECOND * 30).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_record_in_a_notice_is_accepted_without_a_read() {
    let followed = followed().await;
    let written = followed.write(20.0).await;

    let reads = followed.reads_after(Notice::of_document(written.clone())).await;

    assert_eq!((followed.shown(), reads), (Some(20.0), 0));
    assert_eq!(followed.store.last_seen(&key()), Some(written.version));
}

#[tokio::test(start_paused = true)]
async fn a_late_notice_changes_nothing_and_the_next_wait_continues_from_it() {
    let followed = followed().await;
    let late = followed.write(20.0).await;
    let newer = followed.write(30.0).await;
    followed.reads_after(Notice::of_document(newer.clone())).await;
    let swaps = followed.store.swaps();

    let reads = followed.reads_after(Notice::of_document(late.clone())).await;

    assert_eq!((followed.shown(), reads), (Some(30.0), 0));
    assert_eq!(followed.store.last_seen(&key()), Some(late.version));
    assert_eq!(followed.store.swaps(), swaps, "the late notice is no lost write");
    assert_eq!(followed.reads_after(Notice::of_document(newer)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_notice_of_the_known_version_causes_no_read() {
    let followed = followed().await;
    let written = followed.write(20.0).await;
    followed.reads_after(Notice::of_document(written.clone())).await;

    let with_document = followed.reads_after(Notice::of_document(written.clone())).await;
    let without = followed.reads_after(Notice::of_version(written.version)).await;

    assert_eq!((with_document, without), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_notice_without_a_usable_document_causes_one_read() {
    let followed = followed().await;
    let written = followed.write(20.0).await;
    let with_body =
        |body: &[u8]| Notice::of_document(Document::new(written.version, Bytes::copy_from_slice(body)));
    let half = &written.body[..written.body.len() / 2];
    // The body of a cooldown decodes as a record, but without a revision.
    let cooldown = br#"{"format":2}"#;
    let newer_format = br#"{"format":99,"revision":1000}"#;
    for notice in [
        Notice::default(),
        Notice::of_version(written.version),
        with_body(half),
        with_body(b""),
        with_body(cooldown),
        with_body(newer_format),
    ] {
        let text = format!("{notice:?}");
        followed.write(20.0).await;

        assert_eq!(followed.reads_after(notice).await, 1, "{text}");

        assert_eq!(followed.shown(), Some(20.0));
        assert_eq!(followed.main.peek().store_unavailable_since(), None, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_with_a_huge_revision_is_not_restored_into_the_store() {
    for revision in [5_000, u64::MAX] {
        let followed = followed().await;
        let written = followed.write(20.0).await;
        let mut forged: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
        forged["revision"] = revision.into();
        let forged = Document::new(quota_core::store::Version::random(), forged.to_string().into());

        assert_eq!(followed.reads_after(Notice::of_document(forged)).await, 1, "{revision}");
        followed.pass(SECOND * 150, false).await;

        let stored = followed.store.inner().read(&key()).await.unwrap().document.unwrap();
        assert_eq!((stored.version, followed.shown()), (written.version, Some(20.0)), "{revision}");
    }
}

#[tokio::test(start_paused = true)]
async fn pending_readings_survive_an_accepted_notice() {
    let followed = followed().await;
    let written = followed
        .change(|record, clock| {
            let lease = LeaseRequest::new(quota_core::model::RequestId::random(), MaxStaleness::Age(SECOND));
            let granted = record.begin(clock.now(), &lease, &Policy::default());
            assert!(matches!(granted, LeaseDecision::Granted(_)), "{granted:?}");
        })
        .await;
    followed.main.observe(&headers(50.0)).unwrap();

    let reads = followed.reads_after(Notice::of_document(written)).await;
    assert_eq!((followed.shown(), reads), (Some(50.0), 0));
    followed.env.clock.sleep(SECOND * 5).await;

    let stored = followed.store.inner().read(&key()).await.unwrap().document.unwrap();
    let stored = Record::decode(&stored.body).unwrap();
    assert!(stored.lease().is_some(), "the pending write keeps the lease of the notice");
    let used = stored.snapshot().windows().iter().map(|window| window.used().as_f64()).next();
    assert_eq!(used, Some(50.0));
}

#[tokio::test(start_paused = true)]
async fn a_notice_during_standalone_operation_is_merged_by_a_read() {
    let followed = followed().await;
    followed.put(Bytes::from_static(b"damaged")).await;
    drop(followed.main.sync().await);
    assert!(followed.main.peek().store_unavailable_since().is_some());
    let repaired = Record::default();
    let repaired = followed.put(repaired.encode()).await;

    followed.store.notify(&key(), Notice::of_document(repaired));
    followed.env.clock.sleep(SECOND * 90).await;

    assert_eq!(followed.main.peek().store_unavailable_since(), None);
    assert_eq!(followed.shown(), Some(10.0), "this process restores its copy");
}

#[tokio::test(start_paused = true)]
async fn a_lost_notice_is_repaired_within_five_quarters_of_the_poll_interval() {
    let followed = followed().await;
    followed.write(20.0).await;

    followed.pass(SECOND * 75, false).await;

    assert_eq!(followed.shown(), Some(20.0));
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_account_is_not_read_each_minute() {
    let followed = followed().await;
    let before = followed.store.reads();

    followed.pass(MINUTE * 7, true).await;

    assert_eq!(followed.store.reads(), before);
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_account_is_read_within_ten_poll_intervals() {
    let followed = followed().await;
    followed.write(20.0).await;

    followed.pass(SECOND * 75 * 10, true).await;

    assert_eq!(followed.shown(), Some(20.0));
}

#[tokio::test(start_paused = true)]
async fn confirmations_do_not_postpone_the_read_after_a_late_notice() {
    let followed = followed().await;
    let late = followed.store.inner().read(&key()).await.unwrap().document.unwrap();
    let newer = followed.write(20.0).await;
    followed.reads_after(Notice::of_document(newer)).await;
    followed.pass(MINUTE * 3, true).await;
    followed.put(late.body.clone()).await;
    let lost = Document::new(quota_core::store::Version::new(1_000), late.body);

    assert_eq!(followed.reads_after(Notice::of_document(lost)).await, 0);
    followed.pass(SECOND * 75, true).await;

    let stored = followed.store.inner().read(&key()).await.unwrap().document.unwrap();
    let stored = Record::decode(&stored.body).unwrap();
    let used = stored.snapshot().windows().iter().map(|window| window.used().as_f64()).next();
    assert_eq!(used, Some(20.0), "the lost write is restored");
}

#[tokio::test(start_paused = true)]
async fn a_follower_restores_a_record_that_was_lost_before_it_started() {
    let followed = followed().await;
    followed.env.clock.sleep(MINUTE * 5).await;
    let stored = followed.store.inner().read(&key()).await.unwrap().document.unwrap();
    let version = Some(stored.version);
    drop(followed.store.inner().compare_and_swap(&key(), version, stored.body, SECOND).await);
    followed.env.clock.sleep(SECOND * 2).await;

    let _watched = followed.main.watch();
    followed.pass(MINUTE * 2, true).await;

    let restored = followed.store.inner().read(&key()).await.unwrap().document;
    assert!(restored.is_some(), "confirmations do not hide the loss");
}

#[tokio::test(start_paused = true)]
async fn an_idle_follower_ends_although_its_handle_is_held() {
    let followed = followed().await;
    followed.env.clock.sleep(MINUTE * 5).await;
    let written = followed.write(20.0).await;

    let reads = followed.reads_after(Notice::of_document(written)).await;

    assert_eq!((last_read(&followed.main.peek()), reads), (Some(10.0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_another_lease_takes_the_report_from_the_notice() {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(ScriptedStore::new(inner, []));
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, no_rate_limit());
    let provider = env.provider.clone().with_delay(SECOND);
    let other = another_process(&env.store, &env.clock, &provider, no_rate_limit()).account(&id("main"));
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    run_ready_tasks().await;
    let calling = tokio::spawn(async move { other.get().await.is_ok() });
    run_ready_tasks().await;
    let before = (store.reads(), store.swaps());

    let usage = main.get().await.unwrap();

    assert!(calling.await.unwrap());
    assert_eq!(last_read(&usage), Some(40.0));
    assert_eq!(provider.calls(), 1);
    assert_eq!(
        (store.reads(), store.swaps()),
        (before.0, before.1 + 1),
        "only the other process stored its report"
    );
}

/// Managers of this many processes, which all keep one account fresh.
fn keeping_fresh(
    store: &Store,
    env: &Env,
    processes: usize,
) -> Vec<(QuotaManager, quota_core::manager::KeepFreshGuard)> {
    let store = Arc::clone(store) as Arc<dyn QuotaStore>;
    let start = |_| {
        let quota = another_process(&store, &env.clock, &env.provider, Policy::default());
        let guard = quota.account(&id("main")).keep_fresh();
        (quota, guard)
    };
    (0..processes).map(start).collect()
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_in_many_processes_makes_no_conflicting_swaps() {
    // Two of twenty random delays are equal once in some hundred rounds.
    fastrand::seed(7);
    let clock = Clock::virtual_at(noon());
    let store = Arc::new(ScriptedStore::new(MemoryStore::with_clock(clock.clone()), []));
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, Policy::default());
    let _slow = env.provider.clone().with_delay(SECOND);
    drop(env.quota.account(&id("main")).get().await);
    let managers = keeping_fresh(&store, &env, 20);
    env.clock.sleep(MINUTE).await;
    let (swaps, calls) = (store.swaps(), env.provider.calls());

    env.clock.sleep(MINUTE * 20).await;

    let calls = env.provider.calls() - calls;
    assert!((3..=4).contains(&calls), "{calls}");
    assert_eq!(store.swaps() - swaps, 2 * calls, "the lease and the report of each call");
    drop(managers);
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_takes_over_from_a_process_that_ended_during_its_call() {
    let clock = Clock::virtual_at(noon());
    let store = Arc::new(ScriptedStore::new(MemoryStore::with_clock(clock.clone()), []));
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, Policy::default());
    drop(env.quota.account(&id("main")).get().await);
    let _managers = keeping_fresh(&store, &env, 3);
    env.provider.then_hang();

    env.clock.sleep(MINUTE * 6).await;

    assert!(!env.quota.account(&id("main")).sync().await.is_stale(), "{:?}", env.provider.calls());
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_in_a_notice_is_joined_without_a_read() {
    let followed = followed().await;
    let key = StoreKey::provider(id("main").provider());
    let until = followed.env.clock.now() + MINUTE;
    let hold = quota_core::record::Hold::new(
        followed.env.clock.now(),
        until,
        quota_core::record::HoldReason::ProviderRateLimited,
    );
    let mut cooldown = quota_core::record::ProviderCooldown::default();
    cooldown.extend(followed.env.clock.now(), &hold);
    let document = Document::new(quota_core::store::Version::new(77), cooldown.encode());
    let before = followed.store.reads();

    followed.store.notify(&key, Notice::of_document(document));
    run_ready_tasks().await;

    assert_eq!(followed.store.reads(), before);
    assert_eq!(followed.main.peek().hold().map(|hold| hold.until), Some(until));
    assert_eq!(followed.store.last_seen(&key), Some(quota_core::store::Version::new(77)));
}
