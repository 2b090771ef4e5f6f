//! The journal on a store: of many who look, one finds a happening new.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{
    Ask, AttemptId, Begin, Freshness, MemoryStore, Percent, Policy, Usage, WindowId, WindowReading,
};

use super::*;

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

/// Shares a reading, as a manager would.
async fn share(store: &dyn QuotaStore, percent: f64) {
    let key = StoreKey::account(&account());
    let reading = store.read(&key).await.expect("memory can be read");
    let mut record = reading.document.as_ref().map_or_else(Record::default, |document| {
        Record::decode(&document.body).expect("a record was written")
    });
    let ask = Ask::new(AttemptId::random(), Freshness::Since(reading.now + Duration::from_millis(1)));
    let policy = Policy::default();
    // What was read in this very millisecond is asked for again.
    let Begin::Granted(lease) = record.begin(reading.now, &ask, &policy) else { panic!("it may be asked") };
    let used = Percent::from_percent(percent).expect("a number");
    let usage = Usage::polled([WindowReading::new(WindowId::five_hour(), used)]);
    let _ = record.commit(reading.now, &lease, &usage);
    let swap = store.swap(&key, reading.version(), record.encode(), policy.keep).await;
    assert!(matches!(swap, Ok(Swap::Applied(_))), "nobody else writes: {swap:?}");
}

fn kinds(new: &[Happening]) -> Vec<&'static str> {
    new.iter().map(|happening| happening.what.kind()).collect()
}

#[tokio::test(start_paused = true)]
async fn of_an_account_that_nobody_has_asked_about_nothing_is_written() {
    let store = MemoryStore::new();

    let looked = look(&store, &account(), &Rules::default()).await.unwrap();

    assert!(looked.new.is_empty());
    assert_eq!(looked.versions, (None, None));
}

#[tokio::test(start_paused = true)]
async fn of_twenty_who_look_at_once_one_finds_it_new() {
    let store = MemoryStore::new();
    share(&store, 10.0).await;
    look(&store, &account(), &Rules::default()).await.unwrap();
    share(&store, 80.0).await;

    let mut told = Vec::new();
    let mut all = tokio::task::JoinSet::new();
    let store: Arc<dyn QuotaStore> = Arc::new(store);
    for _ in 0..20 {
        let store = Arc::clone(&store);
        all.spawn(async move { look(store.as_ref(), &account(), &Rules::default()).await });
    }
    while let Some(looked) = all.join_next().await {
        told.extend(looked.unwrap().unwrap().new);
    }

    let thresholds = kinds(&told).into_iter().filter(|kind| *kind == "threshold").count();
    assert_eq!(thresholds, 2, "{told:?}");
}

/// A store on a disk that is full.
#[derive(Debug)]
struct Full(MemoryStore);

#[async_trait]
impl QuotaStore for Full {
    async fn read(&self, key: &StoreKey) -> Result<Reading, StoreError> {
        self.0.read(key).await
    }

    async fn swap(
        &self,
        _: &StoreKey,
        _: Option<Version>,
        _: Bytes,
        _: Duration,
    ) -> Result<Swap, StoreError> {
        Err(StoreError::refused("the disk is full"))
    }

    async fn changed(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.0.changed(key, seen).await
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_written_what_is_there_is_shown_and_no_hook_runs() {
    let store = MemoryStore::new();
    share(&store, 10.0).await;
    look(&store, &account(), &Rules::default()).await.unwrap();
    share(&store, 80.0).await;

    let looked = look(&Full(store), &account(), &Rules::default()).await.unwrap();

    assert!(looked.new.is_empty(), "{:?}", looked.new);
    let shown: Vec<_> = looked.book.happenings().map(|(_, happening)| happening.what.kind()).collect();
    assert!(shown.contains(&"threshold"), "{shown:?}");
    assert_eq!(looked.record.snapshot().windows()[0].used(), Percent::from_percent(80.0).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_replaced_by_a_new_one() {
    let store = MemoryStore::new();
    share(&store, 10.0).await;
    let key = StoreKey::beside(&account(), "journal");
    let _ = store.swap(&key, None, "torn".into(), KEEP).await.unwrap();

    let looked = look(&store, &account(), &Rules::default()).await.unwrap();

    assert!(looked.damage.journal && !looked.damage.record);
    let body = store.read(&key).await.unwrap().document.unwrap().body;
    assert_eq!(Book::decode(&body).unwrap(), looked.book);
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_any_form_is_removed() {
    for body in ["torn", r#"{"format":2}"#, r#"{"format":1}"#] {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let store = MemoryStore::with_clock(clock.clone());
        let key = StoreKey::beside(&account(), "journal");
        let _ = store.swap(&key, None, body.into(), KEEP).await.unwrap();

        forget(&store, &account()).await.unwrap();

        let left = store.read(&key).await.unwrap().document.map(|document| document.body);
        assert!(left.is_none_or(|body| body == Book::default().encode()), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn removing_a_journal_that_is_not_there_writes_nothing() {
    let store = MemoryStore::new();

    forget(&store, &account()).await.unwrap();

    assert_eq!(store.read(&StoreKey::beside(&account(), "journal")).await.unwrap().document, None);
}

#[test]
fn thresholds_of_hooks_are_added_to_the_usual_ones() {
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
