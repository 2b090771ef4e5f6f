//! The client of the store. Every call has a timeout, and fails immediately while the store is unavailable. `sync`
//! decides what happens without the store.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::events::{Event, EventSender};
use super::store_metrics::{StoreMetrics, StoreOp, StoreStats};
use super::tasks::{OnPanic, Tasks, wait_until};
use crate::clock::{Clock, Instant};
use crate::store::update::{Trips, twice};
use crate::store::{CasOutcome, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};
use crate::time;

/// The store with its availability and an estimate of its clock.
#[derive(Debug)]
pub(crate) struct StoreClient {
    store: Arc<dyn QuotaStore>,
    clock: Clock,
    timeout: Duration,
    /// How far the store's clock is ahead of this process's clock, in milliseconds.
    offset_ms: AtomicI64,
    clock_sample: Mutex<Option<ClockSample>>,
    is_unavailable: AtomicBool,
    /// Whether a write has succeeded since the store became available.
    write_confirmed: AtomicBool,
    probe_state: Mutex<ProbeState>,
    store_available: Notify,
    store_unavailable: Notify,
    metrics: StoreMetrics,
    tasks: Arc<Tasks>,
    events: EventSender,
}

impl Trips for Arc<StoreClient> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        StoreClient::read(self, key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        StoreClient::compare_and_swap(self, key, expected, body, ttl).await
    }
}

/// When the store last reported its time, by both clocks of this process.
#[derive(Debug, Clone, Copy)]
struct ClockSample {
    wall_ms: i64,
    instant: Instant,
}

/// The state of the probes.
#[derive(Debug, Clone, Copy, Default)]
struct ProbeState {
    probe_backoff: Duration,
    available_at: Option<Instant>,
}

/// If the wall clock and the monotonic clock drift apart by more than this since a sample, the sample is not used.
const DRIFT_MS: i64 = 2_000;

impl StoreClient {
    pub(crate) fn new(
        store: Arc<dyn QuotaStore>,
        clock: Clock,
        timeout: Duration,
        tasks: Arc<Tasks>,
        events: EventSender,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            timeout,
            offset_ms: AtomicI64::new(0),
            clock_sample: Mutex::default(),
            is_unavailable: AtomicBool::new(false),
            write_confirmed: AtomicBool::new(false),
            probe_state: Mutex::default(),
            store_available: Notify::new(),
            store_unavailable: Notify::new(),
            metrics: StoreMetrics::default(),
            tasks,
            events,
        })
    }

    pub(crate) async fn read(self: &Arc<Self>, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let reading = self.attempt(key, StoreOp::Read, || self.store.read(key)).await?;
        self.metrics.succeeded(key, StoreOp::Read);
        self.record_sample(&reading);
        Ok(reading)
    }

    /// Writes a document with compare-and-swap. Retries once after a transient error, so a conflict may report this write itself.
    pub(crate) async fn compare_and_swap(
        self: &Arc<Self>,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let outcome = self
            .attempt(key, StoreOp::Swap, || self.store.compare_and_swap(key, expected, body.clone(), ttl))
            .await?;
        match &outcome {
            CasOutcome::Applied(_) => {
                self.metrics.succeeded(key, StoreOp::Swap);
                self.write_confirmed.store(true, Ordering::Relaxed);
            }
            CasOutcome::Conflict(reading) => self.record_sample(reading),
        }
        Ok(outcome)
    }

    /// Waits until the document may have another version than `seen`. During an outage, waits for its end.
    pub(crate) async fn wait_for_change(
        &self,
        key: &StoreKey,
        seen: Option<Version>,
    ) -> Result<Notice, StoreError> {
        if self.is_unavailable() {
            self.wait_available().await;
            return Ok(Notice::default());
        }
        self.store.wait_for_change(key, seen).await
    }

    /// Waits until the store is available. Ready immediately if it already is.
    pub(crate) async fn wait_available(&self) {
        wait_until(&self.store_available, || !self.is_unavailable()).await;
    }

    /// Waits until the store is unavailable. Ready immediately if it already is.
    pub(crate) async fn wait_unavailable(&self) {
        wait_until(&self.store_unavailable, || self.is_unavailable()).await;
    }

    /// The store's time now; `None` if there is no usable sample, so the store must be read. Setting this process's clock makes a
    /// sample unusable.
    pub(crate) fn now_if_trusted(&self) -> Option<Timestamp> {
        let clock_sample = (*self.clock_sample.lock())?;
        let by_wall = self.clock.now_ms().saturating_sub(clock_sample.wall_ms);
        let by_instant = self.clock.instant().saturating_since(clock_sample.instant).as_millis();
        let drift = by_wall.saturating_sub(i64::try_from(by_instant).unwrap_or(i64::MAX));
        (drift.abs() <= DRIFT_MS).then(|| self.now_estimate())
    }

    /// An estimate of the store's time now, without a store access.
    pub(crate) fn now_estimate(&self) -> Timestamp {
        time::from_ms(self.clock.now_ms().saturating_add(self.offset_ms()))
    }

    pub(crate) fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// Sends an event; there may be no subscriber.
    pub(crate) fn emit(&self, event: Event) {
        self.events.emit(event);
    }

    pub(crate) fn metrics(&self) -> StoreStats {
        self.metrics.stats()
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        self.is_unavailable.load(Ordering::Acquire)
    }

    async fn attempt<T, F>(
        self: &Arc<Self>,
        key: &StoreKey,
        kind: StoreOp,
        call: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if self.is_unavailable() {
            return Err(StoreError::unavailable(
                WriteState::NotApplied,
                "the store is unavailable and has not recovered yet",
            ));
        }
        self.metrics.called(kind);
        let timed_out = || StoreError::unavailable(WriteState::Unknown, "the store timed out");
        let result = self.clock.bounded(self.timeout, twice(call)).await.unwrap_or_else(|| Err(timed_out()));
        if let Err(error) = &result {
            self.metrics.failed(key, kind, error, self.clock.instant());
            if error.is_transient() {
                self.mark_unavailable(key, error);
            }
        }
        result
    }

    /// Counts a document that cannot be decoded.
    pub(crate) fn note_unusable(&self, key: &StoreKey, error: &StoreError) {
        self.metrics.failed(key, StoreOp::Read, error, self.clock.instant());
    }

    /// Records the time that the store has just reported.
    fn record_sample(&self, reading: &StoreRead) {
        let (wall_ms, instant) = (self.clock.now_ms(), self.clock.instant());
        let offset_ms = reading.now.as_millisecond().saturating_sub(wall_ms);
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
        *self.clock_sample.lock() = Some(ClockSample { wall_ms, instant });
    }

    /// Marks the store unavailable, so that no caller waits for it. One task probes it until the failed key can be read.
    fn mark_unavailable(self: &Arc<Self>, key: &StoreKey, error: &StoreError) {
        if self.is_unavailable.swap(true, Ordering::AcqRel) {
            return;
        }
        self.store_unavailable.notify_waiters();
        self.metrics.lost();
        let (probe_backoff, is_relapse) = self.next_probe_backoff();
        // A locked file accepts every probe and no write, so these relapses are one outage. Warn only once.
        if is_relapse && !self.write_confirmed.load(Ordering::Relaxed) {
            tracing::debug!(%error, "store unavailable again after a short recovery");
        } else {
            tracing::warn!(%error, "store unavailable, running standalone");
        }
        self.emit(Event::StoreUnavailable);
        // If the store panics in the probe, or the runtime shuts down, the next call tries the store again.
        let recovery = OnPanic(Arc::downgrade(self), |store_client| {
            if !store_client.tasks.is_closed() {
                store_client.mark_available();
            }
        });
        let key = key.clone();
        let (tasks, clock, timeout) = (Arc::clone(&self.tasks), self.clock.clone(), self.timeout);
        let store = Arc::clone(&self.store);
        self.tasks.spawn(async move {
            let probe = async {
                loop {
                    let pause = PROBE_INTERVAL.start
                        + (PROBE_INTERVAL.end - PROBE_INTERVAL.start).mul_f64(fastrand::f64());
                    clock.sleep(pause + probe_backoff.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                    match clock.bounded(timeout, store.read(&key)).await {
                        Some(Ok(reading)) => return Some(reading),
                        // The store is reachable. The rejection of this key is a separate error.
                        Some(Err(error)) if !error.is_transient() => return None,
                        Some(Err(_)) | None => {}
                    }
                }
            };
            if let Some(reading) = tasks.until_closing(probe).await
                && let Some(store_client) = recovery.0.upgrade()
            {
                if let Some(reading) = reading {
                    store_client.record_sample(&reading);
                }
                store_client.mark_available();
            }
            recovery.ended();
        });
    }

    /// The additional delay before each probe, and whether this outage is a relapse.
    ///
    /// The delay doubles with each relapse. Otherwise a store that accepts only probes would become available and unavailable
    /// twice a second.
    fn next_probe_backoff(&self) -> (Duration, bool) {
        let mut probe_state = self.probe_state.lock();
        let now = self.clock.instant();
        let is_relapse = probe_state.available_at.is_some_and(|at| now.saturating_since(at) < RELAPSE_WINDOW);
        probe_state.probe_backoff = if is_relapse {
            (probe_state.probe_backoff * 2).clamp(MIN_PROBE_BACKOFF, MAX_PROBE_BACKOFF)
        } else {
            Duration::ZERO
        };
        (probe_state.probe_backoff, is_relapse)
    }

    /// Lets the next call try the store despite the outage. If that call fails, the store is unavailable again.
    pub(crate) fn try_again(&self) {
        self.is_unavailable.store(false, Ordering::Release);
    }

    fn mark_available(&self) {
        self.probe_state.lock().available_at = Some(self.clock.instant());
        self.write_confirmed.store(false, Ordering::Relaxed);
        self.is_unavailable.store(false, Ordering::Release);
        tracing::debug!("store available again");
        self.emit(Event::StoreAvailable);
        self.store_available.notify_waiters();
    }
}

/// The range of the random delay before each probe. A recovered store is used again within a second, and many processes do not
/// reconnect at the same time.
///
/// The minimum exceeds the pause of `quota-redis` after a failed connection. A probe within that pause fails without an attempt, and
/// delays the recovery by another interval. The maximum leaves a tenth of a second to connect.
const PROBE_INTERVAL: Range<Duration> = Duration::from_millis(200)..Duration::from_millis(900);

/// An outage within this time after the previous one is a relapse.
const RELAPSE_WINDOW: Duration = Duration::from_secs(10);
const MIN_PROBE_BACKOFF: Duration = Duration::from_millis(400);
const MAX_PROBE_BACKOFF: Duration = Duration::from_secs(10);
