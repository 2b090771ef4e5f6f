//! The journal in a store: only one of many concurrent updates records an event.

use std::sync::Arc;

use async_trait::async_trait;
use quota_core::model::RequestId;
use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness};
use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
use quota_core::{MemoryStore, Percent, Policy, UsageReport, WindowId, WindowReading};

use super::*;

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

/// Writes a reading into the record, as a manager does.
async fn write_reading(store: &dyn QuotaStore, percent: f64) {
    let key = StoreKey::account(&account());
    let reading = store.read(&key).await.expect("the memory store can be read");
    let mut record = reading.document.as_ref().map_or_else(Record::default, |document| {
        Record::decode(&document.body).expect("the test has written a record")
    });
    let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
    let policy = Policy::default();
    let LeaseDecision::Granted(lease) = record.begin(reading.now, &request, &policy) else {
        panic!("the lease is free")
    };
    let used = Percent::from_percent(percent).expect("a valid percentage");
    let usage = UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]);
    let _ = record.commit(reading.now, &lease, &usage);
    let swap = store.compare_and_swap(&key, reading.version(), record.encode(), policy.record_ttl).await;
    assert!(matches!(swap, Ok(CasOutcome::Applied(_))), "the test is the only writer: {swap:?}");
}

fn kinds(new: &[JournalEvent]) -> Vec<&'static str> {
    new.iter().map(|event| event.kind.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_account_without_a_record_gets_no_journal() {
    let store = MemoryStore::new();

    let updated = update(&store, &account(), &Rules::default()).await.unwrap();

    assert!(updated.new.is_empty());
    assert_eq!(updated.versions, (None, None));
}

#[tokio::test(start_paused = true)]
async fn one_of_twenty_concurrent_updates_records_an_event() {
    let store = MemoryStore::new();
    write_reading(&store, 10.0).await;
    update(&store, &account(), &Rules::default()).await.unwrap();
    write_reading(&store, 80.0).await;

    let mut events = Vec::new();
    let mut all = tokio::task::JoinSet::new();
    let store: Arc<dyn QuotaStore> = Arc::new(store);
    for _ in 0..20 {
        let store = Arc::clone(&store);
        all.spawn(async move { update(store.as_ref(), &account(), &Rules::default()).await });
    }
    while let Some(updated) = all.join_next().await {
        events.extend(updated.unwrap().unwrap().new);
    }

    let thresholds = kinds(&events).into_iter().filter(|kind| *kind == "threshold").count();
    assert_eq!(thresholds, 2, "{events:?}");
}

/// A full disk: swaps fail.
#[derive(Debug)]
struct FullDisk;

#[async_trait]
impl StoreHooks for FullDisk {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if call.is_swap() { Err(StoreError::rejected("the disk is full")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_returns_the_journal_and_no_new_events() {
    let store = MemoryStore::new();
    write_reading(&store, 10.0).await;
    update(&store, &account(), &Rules::default()).await.unwrap();
    write_reading(&store, 80.0).await;

    let updated = update(&HookedStore::new(store, FullDisk), &account(), &Rules::default()).await.unwrap();

    assert!(updated.new.is_empty(), "{:?}", updated.new);
    let stored: Vec<_> = updated.journal.events().map(|(_, event)| event.kind.as_str()).collect();
    assert!(stored.contains(&"threshold"), "{stored:?}");
    assert_eq!(updated.record.snapshot().windows()[0].used(), Percent::from_percent(80.0).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_damaged_or_older_is_replaced() {
    for unreadable in ["torn", r#"{"format":1,"happenings":[]}"#, r#"{"format":2,"next_number":3}"#] {
        let store = MemoryStore::new();
        write_reading(&store, 10.0).await;
        let key = StoreKey::account_extension(&account(), "journal");
        let _ = store.compare_and_swap(&key, None, unreadable.into(), TTL).await.unwrap();

        let updated = update(&store, &account(), &Rules::default()).await.unwrap();

        let replaced = Damage { record: false, journal: Some(JournalDamage::Replaced) };
        assert_eq!(updated.damage, replaced, "{unreadable}");
        let body = store.read(&key).await.unwrap().document.unwrap().body;
        assert_eq!(Journal::decode(&body).unwrap(), updated.journal, "{unreadable}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_that_cannot_be_written_is_not_replaced() {
    let store = MemoryStore::new();
    write_reading(&store, 10.0).await;
    let key = StoreKey::account_extension(&account(), "journal");
    let _ = store.compare_and_swap(&key, None, "torn".into(), TTL).await.unwrap();

    let updated = update(&HookedStore::new(store, FullDisk), &account(), &Rules::default()).await.unwrap();

    assert_eq!(updated.damage.journal, Some(JournalDamage::Unreadable));
}

#[tokio::test(start_paused = true)]
async fn the_replacement_of_an_older_journal_is_reported() {
    let store = MemoryStore::new();
    write_reading(&store, 10.0).await;
    let key = StoreKey::account_extension(&account(), "journal");
    let _ = store.compare_and_swap(&key, None, r#"{"format":2}"#.into(), TTL).await.unwrap();

    let warnings = update_and_run_hooks(&store, &[&account()], &Rules::default(), &[], &[]).await;

    let text: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [format!(
            "replaced the journal of {}, which was damaged or of an older version; its past events are lost",
            account()
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn a_journal_in_any_form_is_removed() {
    for body in ["torn", r#"{"format":4}"#, r#"{"format":3}"#, r#"{"format":2}"#] {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let store = MemoryStore::with_clock(clock.clone());
        let key = StoreKey::account_extension(&account(), "journal");
        let _ = store.compare_and_swap(&key, None, body.into(), TTL).await.unwrap();

        remove(&store, &account()).await.unwrap();

        let left = store.read(&key).await.unwrap().document.map(|document| document.body);
        assert!(left.is_none_or(|body| body == Journal::default().encode()), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn removing_a_missing_journal_writes_nothing() {
    let store = MemoryStore::new();

    remove(&store, &account()).await.unwrap();

    assert_eq!(store.read(&StoreKey::account_extension(&account(), "journal")).await.unwrap().document, None);
}

#[test]
fn thresholds_of_hooks_are_added_to_the_default_ones() {
    let hook = |thresholds: &[u32]| Hook {
        on: vec!["threshold"],
        accounts: Vec::new(),
        windows: Vec::new(),
        thresholds: thresholds.to_vec(),
        action: crate::Action::Run { program: "true".into(), arguments: Vec::new() },
        timeout: Duration::from_secs(1),
    };

    let rules = Rules::new(Policy::default(), &[hook(&[9_000, 8_250]), hook(&[8_250])]);

    assert_eq!(rules.thresholds, [5_000, 7_500, 8_250, 9_000, 10_000]);
}
