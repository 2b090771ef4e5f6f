//! A machine: the clock of its processes, and the file that its commands share during an outage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::Mutex;
use quota_core::clock::Clock;
use quota_core::outage::OutageLevel;
use quota_core::store::{
    CasOutcome, DocumentEntry, Notice, StoreError, StoreKey, StoreRead, Version, WriteState,
};
use quota_core::{MemoryStore, QuotaStore};

use crate::names::START;
use crate::plan::MachinePlan;
use crate::world::{World, spawn};

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    file: Mutex<Option<Arc<Opened>>>,
}

impl Machine {
    pub(crate) fn start(world: &Arc<World>, plan: MachinePlan) -> Arc<Self> {
        let ahead = SignedDuration::from_millis(plan.clock_ahead_ms);
        let clock = Clock::virtual_at(START.checked_add(ahead).unwrap_or(START));
        if plan.clock_drift_ppm != 0 {
            spawn(drift(clock.clone(), world.clock.clone(), plan.clock_drift_ppm));
        }
        Arc::new(Self { clock, file: Mutex::default() })
    }

    /// Sets the clock forward or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        move_by(&self.clock, SignedDuration::from_millis(by_ms));
    }
}

fn move_by(clock: &Clock, by: SignedDuration) {
    clock.set(clock.now().checked_add(by).unwrap_or(START));
}

/// Repeatedly sets the clock forward or back by a small step.
async fn drift(clock: Clock, true_clock: Clock, ppm: i64) {
    loop {
        true_clock.sleep(DRIFT_STEP).await;
        move_by(&clock, SignedDuration::from_micros(ppm * DRIFT_STEP_S));
    }
}

/// The time between two steps of a drifting clock.
const DRIFT_STEP: Duration = Duration::from_secs(DRIFT_STEP_S.unsigned_abs());
const DRIFT_STEP_S: i64 = 20;

/// The outage file. After its removal, a process that has it open gets errors.
#[derive(Debug)]
struct Opened {
    store: MemoryStore,
    is_removed: AtomicBool,
    /// The keys that were written, with their TTL.
    written: Mutex<BTreeMap<StoreKey, Duration>>,
}

impl Opened {
    fn check(&self) -> Result<(), StoreError> {
        match self.is_removed.load(Ordering::Relaxed) {
            true => Err(StoreError::unavailable(WriteState::NotApplied, "a simulated file was removed")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl OutageLevel for Machine {
    fn place(&self) -> String {
        "a simulated file".to_owned()
    }

    fn exists(&self) -> bool {
        self.file.lock().is_some()
    }

    fn open(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        let file = self.file.lock().clone();
        let absent = || StoreError::unavailable(WriteState::NotApplied, "a simulated file does not exist");
        file.map(|file| file as Arc<dyn QuotaStore>).ok_or_else(absent)
    }

    fn create(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        let new = || {
            let store = MemoryStore::with_clock(self.clock.clone());
            Arc::new(Opened { store, is_removed: AtomicBool::new(false), written: Mutex::default() })
        };
        Ok(Arc::clone(self.file.lock().get_or_insert_with(new)) as Arc<dyn QuotaStore>)
    }

    async fn documents(&self) -> Result<Vec<DocumentEntry>, StoreError> {
        let Some(file) = self.file.lock().clone() else { return Ok(Vec::new()) };
        let written = file.written.lock().clone();
        let mut entries = Vec::new();
        for (key, ttl) in written {
            if let Some(version) = file.store.read(&key).await?.version() {
                entries.push(DocumentEntry { key, version, ttl });
            }
        }
        Ok(entries)
    }

    async fn remove(&self, version: Version) -> Result<(), StoreError> {
        let Some(file) = self.file.lock().clone() else { return Ok(()) };
        if file.store.read(&StoreKey::outage()).await?.version() != Some(version) {
            return Err(StoreError::unavailable(WriteState::NotApplied, "a simulated file has changed"));
        }
        file.is_removed.store(true, Ordering::Relaxed);
        self.file.lock().take_if(|current| Arc::ptr_eq(current, &file));
        Ok(())
    }
}

#[async_trait]
impl QuotaStore for Opened {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.check()?;
        self.store.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.check()?;
        self.written.lock().insert(key.clone(), ttl);
        self.store.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.check()?;
        self.store.wait_for_change(key, seen).await
    }
}
