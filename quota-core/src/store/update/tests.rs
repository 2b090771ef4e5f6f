use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::model::AccountId;
use crate::store::MemoryStore;
use crate::testing::{FlakyStore, ScriptedStore, Step};

const TTL: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_millis(250);

/// The names that the writers added. Adding a name twice changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
struct Names(Vec<String>);

impl Names {
    fn add(&mut self, name: &str) -> usize {
        if !self.0.iter().any(|other| other == name) {
            self.0.push(name.into());
        }
        self.0.len()
    }
}

impl DocumentBody for Names {
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        let text =
            std::str::from_utf8(body).map_err(|error| StoreError::corrupt("no text").with_source(error))?;
        Ok(Self(text.split(' ').map(Into::into).collect()))
    }

    fn encode(&self) -> Bytes {
        self.0.join(" ").into()
    }
}

fn key() -> StoreKey {
    StoreKey::account(&"anthropic/main".parse::<AccountId>().unwrap())
}

fn scripted(script: impl IntoIterator<Item = Step>) -> ScriptedStore<MemoryStore> {
    ScriptedStore::new(MemoryStore::new(), script)
}

async fn add(
    store: &dyn QuotaStore,
    start: Start<Names>,
    name: &str,
) -> Result<Updated<Names, usize>, StoreError> {
    update(store, &key(), start, TTL, TIMEOUT, |names: &mut Names, _| names.add(name)).await
}

async fn stored(store: &impl QuotaStore) -> Option<String> {
    let document = store.read(&key()).await.unwrap().document?;
    Some(String::from_utf8(document.body.to_vec()).unwrap())
}

async fn write(store: &impl QuotaStore, body: &'static str) -> Version {
    let expected = store.read(&key()).await.unwrap().version();
    match store.compare_and_swap(&key(), expected, body.into(), TTL).await.unwrap() {
        CasOutcome::Applied(version) => version,
        CasOutcome::Conflict(_) => panic!("no other writer"),
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn known(names: &[&str], version: Option<Version>) -> Start<Names> {
    let document = Arc::new(Names(names.iter().map(|name| (*name).into()).collect()));
    Start::Known { document, version, now: now() }
}

#[tokio::test(start_paused = true)]
async fn an_update_from_a_read_makes_two_calls() {
    let store = scripted([]);

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!((updated.value, updated.outcome), (1, Outcome::Applied));
    assert_eq!((store.reads(), store.swaps()), (1, 1));
    assert_eq!(stored(store.inner()).await.as_deref(), Some("a"));
    assert_eq!(updated.version, store.inner().read(&key()).await.unwrap().version());
}

#[tokio::test(start_paused = true)]
async fn an_update_from_a_cached_document_makes_one_call() {
    let store = scripted([]);
    let version = write(store.inner(), "a").await;

    let updated = add(&store, known(&["a"], Some(version)), "b").await.unwrap();

    assert_eq!(updated.value, 2);
    assert_eq!((store.reads(), store.swaps()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_outdated_cached_document_continues_with_the_conflict() {
    let store = scripted([]);
    let version = write(store.inner(), "a").await;
    write(store.inner(), "a b").await;

    let updated = add(&store, known(&["a"], Some(version)), "c").await.unwrap();

    assert_eq!(updated.document.0, ["a", "b", "c"]);
    assert_eq!((store.reads(), store.swaps()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_assumed_absent_document_is_written_in_one_call() {
    let store = scripted([]);

    let updated = add(&store, Start::AssumeAbsent { now: now() }, "a").await.unwrap();

    assert_eq!(updated.outcome, Outcome::Applied);
    assert_eq!((store.reads(), store.swaps()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_assumption_continues_with_the_conflict_without_a_pause() {
    let store = scripted([]);
    write(store.inner(), "a").await;
    let began_at = Clock::system().instant();

    let updated = add(&store, Start::AssumeAbsent { now: now() }, "b").await.unwrap();

    assert_eq!(updated.document.0, ["a", "b"]);
    assert_eq!((store.reads(), store.swaps()), (0, 2));
    assert_eq!(Clock::system().instant().saturating_since(began_at), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_assumption_without_a_change_is_verified_by_a_read() {
    let store = scripted([]);
    write(store.inner(), "a").await;

    let decide = |names: &mut Names, _| names.0.len();
    let start = Start::AssumeAbsent { now: now() };
    let updated = update(&store, &key(), start, TTL, TIMEOUT, decide).await.unwrap();

    assert_eq!((updated.value, updated.outcome), (1, Outcome::Unchanged));
    assert_eq!((store.reads(), store.swaps()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_changes_nothing_writes_nothing() {
    let store = scripted([]);
    let version = write(store.inner(), "a").await;

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!((updated.outcome, updated.version), (Outcome::Unchanged, Some(version)));
    assert_eq!((store.reads(), store.swaps()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_decision_gets_the_stores_time() {
    let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let store = MemoryStore::with_clock(clock);

    let decide = |_: &mut Names, now| now;
    let updated = update(&store, &key(), Start::Read, TTL, TIMEOUT, decide).await.unwrap();

    assert_eq!((updated.value, updated.now), (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
}

#[tokio::test(start_paused = true)]
async fn a_decision_after_a_pause_gets_the_time_after_it() {
    let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let conflicts = (0..10).map(|_| Step::WriteFirst("x".into()));
    let script = std::iter::once(Step::Answer).chain(conflicts);
    let store = ScriptedStore::new(MemoryStore::with_clock(clock.clone()), script);
    let mut times = Vec::new();

    let decide = |names: &mut Names, now: Timestamp| {
        times.push((now, clock.now()));
        names.add("a")
    };
    update(&store, &key(), Start::Read, TTL, TIMEOUT, decide).await.unwrap();

    assert_eq!(times.len(), 11);
    assert!(times.iter().all(|(given, true_time)| given == true_time), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_decides_on_the_other_writers_document() {
    let store = scripted([Step::Answer, Step::WriteFirst("b".into())]);

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!((updated.value, updated.outcome), (2, Outcome::Applied));
    assert_eq!(stored(store.inner()).await.as_deref(), Some("b a"));
    assert_eq!((store.reads(), store.swaps()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn conflicts_end_after_the_last_attempt() {
    let conflicts = (0..=MAX_CAS_ATTEMPTS).map(|number| Step::WriteFirst(format!("other{number}").into()));
    let store = scripted(std::iter::once(Step::Answer).chain(conflicts));

    let error = add(&store, Start::Read, "a").await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::NotApplied, .. }), "{error:?}");
    assert_eq!(store.swaps(), usize::try_from(MAX_CAS_ATTEMPTS).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_swap_with_a_lost_request_is_retried() {
    let store = scripted([Step::Answer, Step::LoseRequest]);

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!(updated.outcome, Outcome::Applied);
    assert_eq!(store.swaps(), 2);
    assert_eq!(stored(store.inner()).await.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_swap_with_a_lost_response_is_recognized() {
    let store = scripted([Step::Answer, Step::LoseAnswer]);

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!((updated.value, updated.outcome), (1, Outcome::AlreadyApplied));
    assert_eq!(store.swaps(), 2);
    assert_eq!(updated.version, store.inner().read(&key()).await.unwrap().version());
}

#[tokio::test(start_paused = true)]
async fn an_applied_and_overwritten_swap_is_decided_again() {
    let store = scripted([Step::Answer, Step::LoseAnswer, Step::WriteFirst("a b".into())]);

    let updated = add(&store, Start::Read, "a").await.unwrap();

    assert_eq!((updated.value, updated.outcome), (2, Outcome::Unchanged));
    assert_eq!(updated.document.0, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_swap_is_retried_after_its_timeout() {
    for (hang, outcome) in [(Step::HangBefore, Outcome::Applied), (Step::HangAfter, Outcome::AlreadyApplied)]
    {
        let store = scripted([Step::Answer, hang]);

        let updated = add(&store, Start::Read, "a").await.unwrap();

        assert_eq!(updated.outcome, outcome);
        assert_eq!(stored(store.inner()).await.as_deref(), Some("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn two_hanging_swaps_end_the_update() {
    let store = scripted([Step::Answer, Step::HangBefore, Step::HangBefore]);

    let error = add(&store, Start::Read, "a").await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::Unknown, .. }), "{error:?}");
    assert_eq!(store.swaps(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_read_ends_the_update() {
    let store = scripted([Step::HangBefore]);

    assert!(add(&store, Start::Read, "a").await.unwrap_err().is_transient());
    assert_eq!((store.reads(), store.swaps()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_after_a_lost_response_has_an_unknown_write_state() {
    let unavailable = StoreError::unavailable(WriteState::NotApplied, "it is down");
    let store = scripted([Step::Answer, Step::LoseAnswer, Step::Fail(unavailable)]);

    let error = add(&store, Start::Read, "a").await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::Unknown, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_retried() {
    let store = scripted([Step::Answer, Step::Fail(StoreError::rejected("read-only"))]);

    let error = add(&store, Start::Read, "a").await.unwrap_err();

    assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
    assert_eq!(store.swaps(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_document_stays_unchanged() {
    for start in [Start::Read, Start::AssumeAbsent { now: now() }] {
        let store = scripted([]);
        let _ = store.inner().compare_and_swap(&key(), None, Bytes::from_static(b"\xff"), TTL).await.unwrap();

        let error = add(&store, start, "a").await.unwrap_err();

        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        let document = store.inner().read(&key()).await.unwrap().document.unwrap();
        assert_eq!(&document.body[..], b"\xff");
    }
}

/// Drops an update when it hangs.
async fn drop_when_it_hangs(store: &ScriptedStore<MemoryStore>) {
    let clock = Clock::system();
    let key = key();
    let hanging = update(store, &key, Start::Read, TTL, Duration::MAX, |names: &mut Names, _| names.add("a"));
    assert!(clock.bounded(TTL, hanging).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_update_is_atomic_and_can_be_repeated() {
    let cases = [
        (vec![Step::HangBefore], None),
        (vec![Step::Answer, Step::HangBefore], None),
        (vec![Step::Answer, Step::HangAfter], Some("a")),
        (vec![Step::Answer, Step::LoseAnswer, Step::HangBefore], Some("a")),
        (vec![Step::Answer, Step::WriteFirst("b".into()), Step::HangBefore], Some("b")),
        (vec![Step::Answer, Step::WriteFirst("b".into()), Step::HangAfter], Some("b a")),
    ];
    for (script, expected) in cases {
        let case = format!("{script:?}");
        let store = scripted(script);

        drop_when_it_hangs(&store).await;

        assert_eq!(stored(store.inner()).await.as_deref(), expected, "{case}");
        let again = add(&store, Start::Read, "a").await.unwrap();
        assert_eq!(again.document.0.iter().filter(|name| *name == "a").count(), 1, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_dropped_in_its_pause_writes_nothing() {
    let conflicts = (0..MAX_CAS_ATTEMPTS).map(|_| Step::WriteFirst("b".into()));
    let store = scripted(std::iter::once(Step::Answer).chain(conflicts));

    // The store answers at once, so the first wait is the pause.
    let dropped = tokio::select! {
        biased;
        _ = add(&store, Start::Read, "a") => false,
        () = std::future::ready(()) => true,
    };

    assert!(dropped);
    assert_eq!(stored(store.inner()).await.as_deref(), Some("b"));
}

async fn add_until_it_works(store: &dyn QuotaStore, name: &str) {
    while add(store, Start::Read, name).await.is_err() {}
}

#[tokio::test(start_paused = true)]
async fn forty_writers_through_a_flaky_store_are_each_written_once() {
    for seed in 0..8 {
        let store = Arc::new(FlakyStore::new(MemoryStore::new(), seed, 0.3));
        let mut writers = JoinSet::new();
        for number in 0..40 {
            let store = Arc::clone(&store);
            writers.spawn(async move { add_until_it_works(&*store, &number.to_string()).await });
        }
        writers.join_all().await;

        let updated = loop {
            if let Ok(updated) = add(&*store, Start::Read, "0").await {
                break updated;
            }
        };
        let mut names: Vec<u32> = updated.document.0.iter().map(|name| name.parse().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, (0..40).collect::<Vec<_>>(), "seed {seed}");
    }
}
