//! Working on the shared record: read, decide, swap, and what to do when the store cannot be used.
//! What is decided is passed in; this only makes sure that it is decided on what stands.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::slot::{Slot, Standing};
use crate::{Reading, Record, StoreError, StoreKey, Swap, Version, WhenAway};

/// A state of the record that a change can be tried on.
struct Base {
    record: Arc<Record>,
    version: Option<Version>,
    /// What this process did on its own meanwhile, and has to be put back in.
    alone: Option<Arc<Record>>,
}

impl Slot {
    /// Changes the shared record by `work`, which may be run several times, and shows the result.
    ///
    /// While the store cannot be used the change is made to this process's own copy, which is joined to the shared record
    /// by the first change after.
    ///
    /// # Errors
    ///
    /// Only where the policy is to refuse without the store.
    pub(crate) async fn transact<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let _turn = self.turn.lock().await;
        let mut base = match self.base().await {
            Ok(base) => base,
            Err(error) => return self.go_alone(&error, |record, now| work(record, now)),
        };
        for tries in 0..MOST_TRIES {
            let now = self.provider.link.guess();
            let mut next = (*base.record).clone();
            if let Some(alone) = &base.alone {
                let _ = next.rejoin(now, alone);
            }
            let joined = {
                let desk = self.desk();
                desk.put_in(&mut next, now);
                desk.pending.as_ref().map(|pending| pending.count)
            };
            let done = work(&mut next, now);
            next.shrink();
            let swap = if next == *base.record { None } else { Some(self.swap(&base, &next).await) };
            match swap {
                None => self.settle(base.record, base.version, joined),
                Some(Ok(Swap::Applied(version))) => self.settle(Arc::new(next), Some(version), joined),
                Some(Ok(Swap::Conflict(winner))) => {
                    base = match self.taken(&winner, base.alone.clone()) {
                        Ok(base) => base,
                        Err(error) => return self.go_alone(&error, |record, now| work(record, now)),
                    };
                    self.pause(tries).await;
                    continue;
                }
                // It may have been applied: going on as if it had been is safe, for every change may be repeated.
                Some(Err(error)) => return self.go_alone(&error, |record, now| work(record, now)),
            }
            return Ok(done);
        }
        let error = StoreError::unavailable(crate::Applied::No, "too many others write at once");
        self.go_alone(&error, |record, now| work(record, now))
    }

    /// Brings the view up to what the store says, and puts in what is not there yet.
    ///
    /// `seen` is how things stood when there may have been news: if this process has moved on from there meanwhile, the
    /// news was its own, and no trip is made.
    pub(crate) async fn synchronise(&self, seen: Option<Standing>) {
        if matches!(self.desk().standing, Standing::Alone(_)) {
            let _ = self.transact(|_, _| ()).await;
            return;
        }
        let _turn = self.turn.lock().await;
        if seen.is_some_and(|seen| self.desk().standing != seen) {
            return;
        }
        match self.provider.link.read(&StoreKey::account(&self.id)).await {
            Ok(reading) => match self.taken(&reading, None) {
                Ok(base) => self.settle(base.record, base.version, None),
                Err(error) => drop(self.go_alone(&error, |_, _| ())),
            },
            Err(error) => drop(self.go_alone(&error, |_, _| ())),
        }
    }

    /// Reads the record if it was never read.
    pub(crate) async fn read_first(&self) {
        if self.desk().standing == Standing::Unread {
            self.synchronise(None).await;
        }
    }

    /// Tries `work` on what is known here, without a trip to the store and without changing anything.
    pub(crate) fn try_on<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let now = self.provider.link.guess();
        let mut record = (*self.desk().shown(now)).clone();
        work(&mut record, now)
    }

    /// What to work on: what is known already, or, if that may be wrong, what the store says.
    async fn base(&self) -> Result<Base, StoreError> {
        let (record, standing) = {
            let desk = self.desk();
            (Arc::clone(&desk.base), desk.standing)
        };
        let alone = match standing {
            Standing::Shared(version) if self.provider.link.now().is_some() => {
                return Ok(Base { record, version, alone: None });
            }
            Standing::Shared(_) | Standing::Unread => None,
            Standing::Alone(_) => Some(record),
        };
        let reading = self.provider.link.read(&StoreKey::account(&self.id)).await?;
        self.taken(&reading, alone)
    }

    fn taken(&self, reading: &Reading, alone: Option<Arc<Record>>) -> Result<Base, StoreError> {
        let record = match &reading.document {
            Some(document) => {
                let known = {
                    let desk = self.desk();
                    (desk.standing == Standing::Shared(Some(document.version)))
                        .then(|| Arc::clone(&desk.base))
                };
                match known {
                    Some(record) => record,
                    None => Arc::new(Record::decode(&document.body).map_err(|error| {
                        StoreError::unusable("the record is damaged, and was left as it is").because(error)
                    })?),
                }
            }
            None => Arc::default(),
        };
        Ok(Base { record, version: reading.version(), alone })
    }

    async fn swap(&self, base: &Base, next: &Record) -> Result<Swap, StoreError> {
        let key = StoreKey::account(&self.id);
        self.provider.link.swap(&key, base.version, next.encode(), self.provider.policy.keep).await
    }

    fn settle(&self, record: Arc<Record>, version: Option<Version>, joined: Option<u64>) {
        self.update(|desk| {
            desk.base = record;
            desk.standing = Standing::Shared(version);
            if let Some(count) = joined {
                desk.written(count);
            }
        });
    }

    /// Makes the change to this process's own copy.
    fn go_alone<T>(
        &self,
        error: &StoreError,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        if self.provider.policy.when_away == WhenAway::Refuse {
            return Err(error.clone());
        }
        Ok(self.update(|desk| {
            let now = self.provider.link.guess();
            let mut record = (*desk.base).clone();
            desk.put_in(&mut record, now);
            desk.pending = None;
            let done = work(&mut record, now);
            desk.base = Arc::new(record);
            if !matches!(desk.standing, Standing::Alone(_)) {
                tracing::warn!(account = %self.id, %error, "store not usable for this account, going on alone");
                desk.standing = Standing::Alone(now.into());
            }
            done
        }))
    }

    /// Writers that keep losing to each other come back at different times.
    async fn pause(&self, tries: u32) {
        let most = Duration::from_millis(1) * 2u32.saturating_pow(tries.min(5));
        self.provider.clock.sleep(most.mul_f64(fastrand::f64())).await;
    }
}

/// Whoever loses this often is better off alone for a while.
const MOST_TRIES: u32 = 24;
