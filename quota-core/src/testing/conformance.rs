//! The guarantees of every [`QuotaStore`], with one test for each.
//! [`store_conformance!`](crate::store_conformance) creates the named tests.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub use self::notices::*;
use crate::clock::Clock;
use crate::model::AccountId;
use crate::store::{CasOutcome, Document, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version};

/// Creates a test for each guarantee of a [`QuotaStore`].
///
/// `store_conformance!(name, constructor)` expands to a module `name` with one `#[test]` per case. `constructor` is an
/// expression that can be called without arguments and returns a future of a store. Each test calls it once. All these stores
/// may share one backend, because each case uses its own keys.
///
/// If a backend is expensive to start, use `store_conformance!(name, constructor, in_one_test)`. It runs the cases in sequence on
/// one store, in one test that prints a line per case.
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
            all_byte_values_are_stored,
            a_large_document_is_stored,
            creating_twice_returns_the_first_document,
            a_stale_version_conflicts_and_returns_the_winner,
            a_version_of_an_absent_document_conflicts,
            every_write_has_a_new_version,
            one_of_many_concurrent_writers_wins,
            concurrent_counters_lose_no_update,
            a_write_to_one_key_does_not_affect_another,
            an_expired_document_is_absent_and_its_versions_are_not_reused,
            a_later_write_replaces_the_ttl,
            the_clock_of_the_store_is_monotonic,
            a_conflict_returns_the_time,
            a_change_wakes_a_waiter,
            the_first_write_wakes_a_waiter,
            a_waiter_with_an_old_version_returns_at_once,
            a_waiter_without_a_version_returns_at_once_if_there_is_a_document,
            a_cancelled_waiter_does_not_affect_others,
            the_document_of_a_notice_is_not_newer_than_a_read,
            the_version_of_a_notice_is_that_of_its_document,
            a_late_notice_does_not_look_like_a_lost_write,
        }
    };
    (@cases $name:ident, $constructor:expr, $($case:ident),* $(,)?) => {
        mod $name {
            #[expect(unused_imports, reason = "the constructor may use names of the calling module")]
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
            #[expect(unused_imports, reason = "the constructor may use names of the calling module")]
            use super::*;

            #[test]
            fn passes_every_case() {
                $crate::testing::conformance::run(async {
                    let constructor = $constructor;
                    let store = constructor().await;
                    $(
                        $crate::testing::conformance::print_case(stringify!($name), stringify!($case));
                        $crate::testing::conformance::$case(&store).await;
                    )*
                });
            }
        }
    };
}

/// Prints the next case, so that the last line names the failed case.
#[doc(hidden)]
#[expect(clippy::print_stdout, reason = "the output is for the user who runs the test")]
pub fn print_case(store: &str, case: &str) {
    println!("{store}: {case}");
}

/// Runs a case on its own runtime. A case that exceeds the timeout fails.
#[doc(hidden)]
pub fn run(case: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let ended = runtime.block_on(Clock::system().bounded(CASE_TIMEOUT, case));
    assert!(ended.is_some(), "the case did not end within {CASE_TIMEOUT:?}");
}

const CASE_TIMEOUT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(3600);

/// Returns a key that no other case, process or earlier run uses.
fn fresh_key() -> StoreKey {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{:016x}-{}", fastrand::u64(..), COUNT.fetch_add(1, Ordering::Relaxed));
    let account: AccountId = format!("conformance/{name}").parse().expect("hexadecimal digits make a name");
    StoreKey::account(&account)
}

/// Retries until the store responds. Stores may lose calls, and the guarantees cover only completed calls.
async fn read(store: &dyn QuotaStore, key: &StoreKey) -> StoreRead {
    loop {
        match store.read(key).await {
            Ok(reading) => return reading,
            Err(error) => must_be_transient(&error),
        }
    }
}

/// Retries a swap until the store responds. If a response was lost, the body identifies the swap, so bodies must differ.
async fn swap(
    store: &dyn QuotaStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &Bytes,
    ttl: Duration,
) -> CasOutcome {
    let mut lost = false;
    loop {
        match store.compare_and_swap(key, expected, body.clone(), ttl).await {
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

async fn changed(store: &dyn QuotaStore, key: &StoreKey, seen: Option<Version>) -> Notice {
    loop {
        match store.wait_for_change(key, seen).await {
            Ok(notice) => return notice,
            Err(error) => must_be_transient(&error),
        }
    }
}

fn must_be_transient(error: &StoreError) {
    assert!(error.is_transient(), "the store returned a permanent error: {error}");
}

async fn write(
    store: &dyn QuotaStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &'static str,
) -> Version {
    match swap(store, key, expected, &Bytes::from_static(body.as_bytes()), TTL).await {
        CasOutcome::Applied(version) => version,
        CasOutcome::Conflict(found) => panic!("no other writer of {key}, but the store has {found:?}"),
    }
}

#[track_caller]
fn conflict(swap: CasOutcome) -> StoreRead {
    match swap {
        CasOutcome::Conflict(reading) => reading,
        CasOutcome::Applied(version) => {
            panic!("expected a conflict, but the swap was applied as {version:?}")
        }
    }
}

/// Waits until `done` returns true. The timeout of the case bounds the wait.
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

mod notices;

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

    async fn all_byte_values_are_stored(store) {
        let key = fresh_key();
        let body: Bytes = (0..=255).collect::<Vec<u8>>().into();

        let _ = swap(store, &key, None, &body, TTL).await;

        assert_eq!(read(store, &key).await.document.map(|document| document.body), Some(body));
    }

    async fn a_large_document_is_stored(store) {
        let key = fresh_key();
        let body = Bytes::from(vec![b'x'; 256 * 1024]);

        let _ = swap(store, &key, None, &body, TTL).await;

        assert_eq!(read(store, &key).await.document.map(|document| document.body.len()), Some(body.len()));
    }

    async fn creating_twice_returns_the_first_document(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "first").await;

        let lost = swap(store, &key, None, &Bytes::from_static(b"second"), TTL).await;

        assert_eq!(conflict(lost).document, Some(Document::new(version, Bytes::from_static(b"first"))));
    }

    async fn a_stale_version_conflicts_and_returns_the_winner(store) {
        let key = fresh_key();
        let old = write(store, &key, None, "one").await;
        let new = write(store, &key, Some(old), "two").await;

        let lost = swap(store, &key, Some(old), &Bytes::from_static(b"three"), TTL).await;

        assert_eq!(conflict(lost).document, Some(Document::new(new, Bytes::from_static(b"two"))));
    }

    async fn a_version_of_an_absent_document_conflicts(store) {
        let other = write(store, &fresh_key(), None, "other").await;

        let lost = swap(store, &fresh_key(), Some(other), &Bytes::from_static(b"x"), TTL).await;

        assert_eq!(conflict(lost).document, None);
    }

    async fn every_write_has_a_new_version(store) {
        let key = fresh_key();
        let mut versions = vec![write(store, &key, None, "0").await];

        for body in ["1", "2", "3", "2", "1"] {
            versions.push(write(store, &key, versions.last().copied(), body).await);
        }

        let mut unique = versions.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), versions.len());
    }

    async fn one_of_many_concurrent_writers_wins(store) {
        let key = fresh_key();
        let start = write(store, &key, None, "start").await;
        let bodies: Vec<Bytes> = (0..16).map(|racer| Bytes::from(format!("racer {racer}"))).collect();

        let swaps = join_all(bodies.iter().map(|body| swap(store, &key, Some(start), body, TTL))).await;

        let winners: Vec<_> = swaps.iter().zip(&bodies).filter(|(swap, _)| matches!(swap, CasOutcome::Applied(_))).collect();
        assert_eq!(winners.len(), 1, "{swaps:?}");
        assert_eq!(read(store, &key).await.document.map(|document| document.body).as_ref(), Some(winners[0].1));
    }

    async fn concurrent_counters_lose_no_update(store) {
        let key = fresh_key();
        let token = |writer: usize, round: usize| format!("{writer}.{round} ");
        let count = async |writer: usize| {
            for round in 0..8 {
                let mut known = read(store, &key).await;
                loop {
                    let before = known.document.as_ref().map(|document| document.body.clone()).unwrap_or_default();
                    let body = [before.as_ref(), token(writer, round).as_bytes()].concat().into();
                    match swap(store, &key, known.version(), &body, TTL).await {
                        CasOutcome::Applied(_) => break,
                        CasOutcome::Conflict(winner) => known = winner,
                    }
                }
            }
        };

        join_all((0..4).map(count)).await;

        let body = read(store, &key).await.document.expect("it was written").body;
        let text = String::from_utf8_lossy(&body);
        let mut tokens: Vec<_> = text.split_whitespace().collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!((tokens.len(), text.split_whitespace().count()), (32, 32), "each token once: {text}");
    }

    async fn a_write_to_one_key_does_not_affect_another(store) {
        let [one, other] = [fresh_key(), fresh_key()];
        let version = write(store, &one, None, "one").await;

        let _ = write(store, &other, None, "other").await;

        assert_eq!(read(store, &one).await.version(), Some(version));
    }

    async fn an_expired_document_is_absent_and_its_versions_are_not_reused(store) {
        let key = fresh_key();
        let first = write(store, &key, None, "long TTL").await;
        let swapped = swap(store, &key, Some(first), &Bytes::from_static(b"short TTL"), Duration::from_millis(1)).await;
        until(async || read(store, &key).await.document.is_none()).await;

        let recreated = write(store, &key, None, "again").await;

        assert_ne!(recreated, first);
        assert_ne!(CasOutcome::Applied(recreated), swapped);
    }

    async fn a_later_write_replaces_the_ttl(store) {
        let [renewed, witness] = [fresh_key(), fresh_key()];
        let short_ttl = Duration::from_millis(200);
        let first = swap(store, &renewed, None, &Bytes::from_static(b"short TTL"), short_ttl).await;
        // If the store is so slow that the first document has expired, write a new one. Only the TTL of that write matters.
        let expected = match first {
            CasOutcome::Applied(_) => read(store, &renewed).await.version(),
            CasOutcome::Conflict(found) => panic!("no other writer of {renewed}, but the store has {found:?}"),
        };
        let version = match swap(store, &renewed, expected, &Bytes::from_static(b"long TTL"), TTL).await {
            CasOutcome::Applied(version) => version,
            CasOutcome::Conflict(_) => write(store, &renewed, None, "long TTL").await,
        };
        let _ = swap(store, &witness, None, &Bytes::from_static(b"short TTL"), short_ttl).await;
        until(async || read(store, &witness).await.document.is_none()).await;

        assert_eq!(read(store, &renewed).await.version(), Some(version));
    }

    async fn the_clock_of_the_store_is_monotonic(store) {
        let key = fresh_key();
        let first = read(store, &key).await.now;
        let _ = write(store, &key, None, "x").await;

        let second = read(store, &key).await.now;

        assert!(second >= first, "{second} is before {first}");
    }

    async fn a_conflict_returns_the_time(store) {
        let key = fresh_key();
        let before = read(store, &key).await.now;
        let _ = write(store, &key, None, "x").await;

        let lost = conflict(swap(store, &key, None, &Bytes::from_static(b"y"), TTL).await);

        assert!(lost.now >= before, "{} is before {before}", lost.now);
    }

    async fn a_change_wakes_a_waiter(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;

        let wait = changed(store, &key, Some(version));
        let write = write(store, &key, Some(version), "two");

        join_all([boxed(async { let _ = wait.await; }), boxed(async { let _ = write.await; })]).await;
        assert_ne!(read(store, &key).await.version(), Some(version));
    }

    async fn the_first_write_wakes_a_waiter(store) {
        let key = fresh_key();

        let wait = changed(store, &key, None);
        let write = write(store, &key, None, "one");

        join_all([boxed(async { let _ = wait.await; }), boxed(async { let _ = write.await; })]).await;
        assert!(read(store, &key).await.document.is_some());
    }

    async fn a_waiter_with_an_old_version_returns_at_once(store) {
        let key = fresh_key();
        let old = write(store, &key, None, "one").await;
        let new = write(store, &key, Some(old), "two").await;

        let _ = changed(store, &key, Some(old)).await;

        assert_eq!(read(store, &key).await.version(), Some(new));
    }

    async fn a_waiter_without_a_version_returns_at_once_if_there_is_a_document(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;

        let _ = changed(store, &key, None).await;

        assert_eq!(read(store, &key).await.version(), Some(version));
    }

    async fn a_cancelled_waiter_does_not_affect_others(store) {
        let key = fresh_key();
        let version = write(store, &key, None, "one").await;
        let cancelled = Clock::system().bounded(Duration::from_millis(5), store.wait_for_change(&key, Some(version))).await;
        drop(cancelled);

        let wait = changed(store, &key, Some(version));
        let write = write(store, &key, Some(version), "two");

        join_all([boxed(async { let _ = wait.await; }), boxed(async { let _ = write.await; })]).await;
        assert_ne!(read(store, &key).await.version(), Some(version));
    }
}

fn boxed<'a>(work: impl Future<Output = ()> + 'a) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(work)
}

/// Runs all futures concurrently in this task.
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
