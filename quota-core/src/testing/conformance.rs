//! What every [`QuotaStore`] must do: one test for each guarantee.
//! [`store_conformance!`](crate::store_conformance) turns it into named tests.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::model::AccountId;
use crate::store::{CasOutcome, Document, QuotaStore, StoreError, StoreKey, StoreRead, Version};

/// Makes a test of every promise a [`QuotaStore`] gives.
///
/// `store_conformance!(name, constructor)` expands to a module `name` with one `#[test]` per case. `constructor` is an
/// expression for something that, called without arguments, gives a future of a store; it is called once per test, and all
/// these stores may share one backend: every case uses keys of its own, so they can run at once.
///
/// Where a backend is expensive to start, `store_conformance!(name, constructor, in_one_test)` runs the same cases one after
/// the other on one store, in one test that prints a row for each.
///
/// ```
/// quota_core::store_conformance!(memory, || async { quota_core::MemoryStore::new() });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $constructor:expr) => {
        $crate::store_conformance! { @list cases, $name, $constructor }
    };
    ($name:ident, $constructor:expr, in_one_test) => {
        $crate::store_conformance! { @list one_test, $name, $constructor }
    };
    (@list $form:ident, $name:ident, $constructor:expr) => {
        $crate::store_conformance! {
            @$form $name, $constructor,
            an_absent_document_is_none,
            a_written_document_is_read_back,
            any_bytes_are_kept,
            a_large_document_is_kept,
            creating_twice_shows_the_first,
            a_stale_version_loses_and_learns_the_winner,
            a_version_of_an_absent_document_loses,
            every_write_has_a_version_of_its_own,
            of_many_racers_one_wins,
            racing_counters_lose_no_update,
            keys_do_not_disturb_each_other,
            an_expired_document_is_gone_and_its_versions_are_not_used_again,
            a_later_write_keeps_for_as_long_as_it_says,
            the_stores_clock_does_not_go_back,
            a_conflict_tells_the_time,
            a_change_wakes_a_waiter,
            the_first_write_wakes_a_waiter,
            a_change_that_has_happened_is_told_at_once,
            a_waiter_without_a_version_returns_at_once_if_there_is_a_document,
            a_waiter_that_stops_disturbs_no_other,
        }
    };
    (@cases $name:ident, $constructor:expr, $($case:ident),* $(,)?) => {
        mod $name {
            #[expect(unused_imports, reason = "what the constructor names is found where the macro is used")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::testing::conformance::run(async {
                        let constructor = $constructor;
                        let store = constructor().await;
                        $crate::testing::conformance::$case(&store).await;
                    });
                }
            )*
        }
    };
    (@one_test $name:ident, $constructor:expr, $($case:ident),* $(,)?) => {
        mod $name {
            #[expect(unused_imports, reason = "what the constructor names is found where the macro is used")]
            use super::*;

            #[test]
            fn keeps_every_promise() {
                $crate::testing::conformance::run(async {
                    let constructor = $constructor;
                    let store = constructor().await;
                    $(
                        $crate::testing::conformance::row(stringify!($name), stringify!($case));
                        $crate::testing::conformance::$case(&store).await;
                    )*
                });
            }
        }
    };
}

/// Says which case comes next, so that the last row is the one that failed.
#[doc(hidden)]
#[expect(clippy::print_stdout, reason = "it prints for the person who runs the test")]
pub fn row(store: &str, case: &str) {
    println!("{store}: {case}");
}

/// Runs a case on a runtime of its own. A case that does not end in time has failed.
#[doc(hidden)]
pub fn run(case: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let ended = runtime.block_on(Clock::system().bounded(BOUND, case));
    assert!(ended.is_some(), "the case did not end within {BOUND:?}");
}

const BOUND: Duration = Duration::from_secs(60);
const KEEP: Duration = Duration::from_secs(3600);

/// A key that no other case, process or earlier run uses.
fn fresh_key() -> StoreKey {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{:016x}-{}", fastrand::u64(..), COUNT.fetch_add(1, Ordering::Relaxed));
    let account: AccountId = format!("conformance/{name}").parse().expect("hexadecimal digits make a name");
    StoreKey::account(&account)
}

/// Stores may lose calls; the promises hold for those that are answered.
async fn read(store: &dyn QuotaStore, key: &StoreKey) -> StoreRead {
    loop {
        match store.read(key).await {
            Ok(reading) => return reading,
            Err(error) => must_be_transient(&error),
        }
    }
}

/// A swap that is asked until it is answered. One whose answer was lost is known by what it wrote: bodies must differ.
async fn swap(
    store: &dyn QuotaStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &Bytes,
    keep: Duration,
) -> CasOutcome {
    let mut lost = false;
    loop {
        match store.compare_and_swap(key, expected, body.clone(), keep).await {
            Ok(CasOutcome::Conflict(StoreRead { document: Some(document), .. }))
                if lost && document.body == *body =>
            {
                return CasOutcome::Applied(document.version);
            }
            Ok(swap) => return swap,
            Err(error) => must_be_transient(&error),
        }
        lost = true;
    }
}

async fn changed(store: &dyn QuotaStore, key: &StoreKey, seen: Option<Version>) {
    while let Err(error) = store.wait_for_change(key, seen).await {
        must_be_transient(&error);
    }
}

fn must_be_transient(error: &StoreError) {
    assert!(error.is_transient(), "only a passing fault is excused: {error}");
}

async fn write(
    store: &dyn QuotaStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &'static str,
) -> Version {
    match swap(store, key, expected, &Bytes::from_static(body.as_bytes()), KEEP).await {
        CasOutcome::Applied(version) => version,
        CasOutcome::Conflict(found) => panic!("no other writer of {key}, and yet there is {found:?}"),
    }
}

#[track_caller]
fn conflict(swap: CasOutcome) -> StoreRead {
    match swap {
        CasOutcome::Conflict(reading) => reading,
        CasOutcome::Applied(version) => panic!("should have lost, and was applied as {version:?}"),
    }
}

/// Waits until `done` says so; a case that waits for ever is ended by its bound.
async fn until<F: Future<Output = bool>>(done: impl Fn() -> F) {
    while !done().await {
        Clock::system().sleep(Duration::from_millis(1)).await;
    }
}

macro_rules! cases {
    ($($(#[doc = $doc:literal])* async fn $case:ident($store:ident) $body:block)*) => {
        $(
            $(#[doc = $doc])*
            #[doc(hidden)]
            pub async fn $case($store: &dyn QuotaStore) $body
        )*
    };
}

cases! {
    async fn an_absent_document_is_none(store) {
        let reading = read(store, &fresh_key()).await;

        assert_eq!(reading.document, None);
    }

    async fn a_written_document_is_read_back(store) {
        let key = fresh_key();

        let version = write(store, &key, None, "one").await;

        assert_eq!(read(store, &key).await.document, Some(Document::new(version, Bytes::from_static(b"one"))));
    }

    async fn any_bytes_are_kept(store) {
        let key = fresh_key();
        let body: Bytes = (0..=255).collect::<Vec<u8>>().into();

        let _ = swap(store, &key, None, &body, KEEP).await;

        assert_eq!(read(store, &key).await.document.map(|document| document.body), Some(body));
    }

    async fn a_large_document_is_kept(store) {
        let key = fresh_key();
        let body = Bytes::from(vec![b'x'; 256 * 1024]);

        let _ = swap(store, &key, None, &body, KEEP).await;

        assert_eq!(read(store, &key).await.document.map(|document| document.body.len()), Some(body.len()));
    }

    async fn creating_twice_shows_the_first(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "first").await;

        let lost = swap(store, &key, None, &Bytes::from_static(b"second"), KEEP).await;

        assert_eq!(conflict(lost).document, Some(Document::new(version, Bytes::from_static(b"first"))));
    }

    async fn a_stale_version_loses_and_learns_the_winner(store) {
        let key = fresh_key();
        let old = write(store, &key, None, "one").await;
        let new = write(store, &key, Some(old), "two").await;

        let lost = swap(store, &key, Some(old), &Bytes::from_static(b"three"), KEEP).await;

        assert_eq!(conflict(lost).document, Some(Document::new(new, Bytes::from_static(b"two"))));
    }

    async fn a_version_of_an_absent_document_loses(store) {
        let other = write(store, &fresh_key(), None, "other").await;

        let lost = swap(store, &fresh_key(), Some(other), &Bytes::from_static(b"x"), KEEP).await;

        assert_eq!(conflict(lost).document, None);
    }

    async fn every_write_has_a_version_of_its_own(store) {
        let key = fresh_key();
        let mut seen = vec![write(store, &key, None, "0").await];

        for body in ["1", "2", "3", "2", "1"] {
            seen.push(write(store, &key, seen.last().copied(), body).await);
        }

        let mut unique = seen.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), seen.len());
    }

    async fn of_many_racers_one_wins(store) {
        let key = fresh_key();
        let start = write(store, &key, None, "start").await;
        let bodies: Vec<Bytes> = (0..16).map(|racer| Bytes::from(format!("racer {racer}"))).collect();

        let swaps = join_all(bodies.iter().map(|body| swap(store, &key, Some(start), body, KEEP))).await;

        let winners: Vec<_> = swaps.iter().zip(&bodies).filter(|(swap, _)| matches!(swap, CasOutcome::Applied(_))).collect();
        assert_eq!(winners.len(), 1, "{swaps:?}");
        assert_eq!(read(store, &key).await.document.map(|document| document.body).as_ref(), Some(winners[0].1));
    }

    async fn racing_counters_lose_no_update(store) {
        let key = fresh_key();
        let fingerprint = |writer: usize, round: usize| format!("{writer}.{round} ");
        let count = async |writer: usize| {
            for round in 0..8 {
                let mut known = read(store, &key).await;
                loop {
                    let before = known.document.as_ref().map(|document| document.body.clone()).unwrap_or_default();
                    let body = [before.as_ref(), fingerprint(writer, round).as_bytes()].concat().into();
                    match swap(store, &key, known.version(), &body, KEEP).await {
                        CasOutcome::Applied(_) => break,
                        CasOutcome::Conflict(winner) => known = winner,
                    }
                }
            }
        };

        join_all((0..4).map(count)).await;

        let body = read(store, &key).await.document.expect("it was written").body;
        let text = String::from_utf8_lossy(&body);
        let mut marks: Vec<_> = text.split_whitespace().collect();
        marks.sort_unstable();
        marks.dedup();
        assert_eq!((marks.len(), text.split_whitespace().count()), (32, 32), "each mark once: {text}");
    }

    async fn keys_do_not_disturb_each_other(store) {
        let [one, other] = [fresh_key(), fresh_key()];
        let version = write(store, &one, None, "one").await;

        let _ = write(store, &other, None, "other").await;

        assert_eq!(read(store, &one).await.version(), Some(version));
    }

    async fn an_expired_document_is_gone_and_its_versions_are_not_used_again(store) {
        let key = fresh_key();
        let first = write(store, &key, None, "kept for long").await;
        let swapped = swap(store, &key, Some(first), &Bytes::from_static(b"kept briefly"), Duration::from_millis(1)).await;
        until(async || read(store, &key).await.document.is_none()).await;

        let reborn = write(store, &key, None, "again").await;

        assert_ne!(reborn, first);
        assert_ne!(CasOutcome::Applied(reborn), swapped);
    }

    async fn a_later_write_keeps_for_as_long_as_it_says(store) {
        let [renewed, witness] = [fresh_key(), fresh_key()];
        let briefly = Duration::from_millis(200);
        let first = swap(store, &renewed, None, &Bytes::from_static(b"kept briefly"), briefly).await;
        // If the store is so slow that the first is gone already, it is written as new: what counts is the time it is given.
        let expected = match first {
            CasOutcome::Applied(_) => read(store, &renewed).await.version(),
            CasOutcome::Conflict(found) => panic!("no other writer of {renewed}, and yet there is {found:?}"),
        };
        let version = match swap(store, &renewed, expected, &Bytes::from_static(b"kept for long"), KEEP).await {
            CasOutcome::Applied(version) => version,
            CasOutcome::Conflict(_) => write(store, &renewed, None, "kept for long").await,
        };
        let _ = swap(store, &witness, None, &Bytes::from_static(b"kept briefly"), briefly).await;
        until(async || read(store, &witness).await.document.is_none()).await;

        assert_eq!(read(store, &renewed).await.version(), Some(version));
    }

    async fn the_stores_clock_does_not_go_back(store) {
        let key = fresh_key();
        let first = read(store, &key).await.now;
        let _ = write(store, &key, None, "x").await;

        let second = read(store, &key).await.now;

        assert!(second >= first, "{second} is before {first}");
    }

    async fn a_conflict_tells_the_time(store) {
        let key = fresh_key();
        let before = read(store, &key).await.now;
        let _ = write(store, &key, None, "x").await;

        let lost = conflict(swap(store, &key, None, &Bytes::from_static(b"y"), KEEP).await);

        assert!(lost.now >= before, "{} is before {before}", lost.now);
    }

    async fn a_change_wakes_a_waiter(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;

        let wait = changed(store, &key, Some(version));
        let write = write(store, &key, Some(version), "two");

        join_all([boxed(wait), boxed(async { let _ = write.await; })]).await;
        assert_ne!(read(store, &key).await.version(), Some(version));
    }

    async fn the_first_write_wakes_a_waiter(store) {
        let key = fresh_key();

        let wait = changed(store, &key, None);
        let write = write(store, &key, None, "one");

        join_all([boxed(wait), boxed(async { let _ = write.await; })]).await;
        assert!(read(store, &key).await.document.is_some());
    }

    async fn a_change_that_has_happened_is_told_at_once(store) {
        let key = fresh_key();
        let old = write(store, &key, None, "one").await;
        let new = write(store, &key, Some(old), "two").await;

        changed(store, &key, Some(old)).await;

        assert_eq!(read(store, &key).await.version(), Some(new));
    }

    async fn a_waiter_without_a_version_returns_at_once_if_there_is_a_document(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;

        changed(store, &key, None).await;

        assert_eq!(read(store, &key).await.version(), Some(version));
    }

    async fn a_waiter_that_stops_disturbs_no_other(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;
        let given_up = Clock::system().bounded(Duration::from_millis(5), store.wait_for_change(&key, Some(version))).await;
        drop(given_up);

        let wait = changed(store, &key, Some(version));
        let write = write(store, &key, Some(version), "two");

        join_all([boxed(wait), boxed(async { let _ = write.await; })]).await;
        assert_ne!(read(store, &key).await.version(), Some(version));
    }
}

fn boxed<'a>(work: impl Future<Output = ()> + 'a) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(work)
}

/// Runs all of them at once, in this task.
async fn join_all<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|work| (Box::pin(work), None)).collect();
    std::future::poll_fn(|context| {
        for (work, output) in &mut all {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = work.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}
