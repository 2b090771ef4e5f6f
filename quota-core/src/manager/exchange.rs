//! Working on the shared record: read, decide, swap, and what to do when the store cannot be used.
//! What is decided is passed in; this only makes sure that it is decided on what stands.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::desk::Standing;
use super::slot::Slot;
use crate::{Document, Lineage, Reading, Record, StoreError, StoreKey, Swap, Version, WhenAway};

/// A state of the record that a change can be tried on.
struct Base {
    record: Arc<Record>,
    version: Option<Version>,
    /// That there is no document was not read, but assumed: if there is one, the swap brings it.
    is_guess: bool,
    /// What this process did on its own meanwhile, and has to be put back in.
    alone: Option<Alone>,
}

/// What the store does not have.
#[derive(Clone)]
struct Alone {
    record: Arc<Record>,
    /// Whose it was before it went its own way; `None` if that was not said, or if it is the store that has lost it.
    left: Option<Lineage>,
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
        match self.exchange(&mut work).await {
            Ok(done) => Ok(done),
            Err(error) if self.provider.policy.when_away == WhenAway::Refuse => Err(error),
            Err(error) => Ok(self.go_alone(&error, work)),
        }
    }

    /// The same for what follows from a call that was made: that is never refused, with or without the store.
    pub(crate) async fn conclude<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let _turn = self.turn.lock().await;
        match self.exchange(&mut work).await {
            Ok(done) => done,
            Err(error) => self.go_alone(&error, work),
        }
    }

    /// The same for a change that the caller wants all processes to see: an error says that they do not see it yet. A damaged record
    /// is replaced, because the caller asks for the account to be put in order.
    ///
    /// Where the policy is to go on without the store, the change is made to this process's own copy all the same, and is
    /// joined to the shared record once the store is back.
    pub(crate) async fn share<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let _turn = self.turn.lock().await;
        let mut shared = self.exchange(&mut work).await;
        if let Err(StoreError::Unusable { .. }) = shared {
            shared = match self.replace_damaged().await {
                Ok(()) => self.exchange(&mut work).await,
                Err(error) => Err(error),
            };
        }
        shared.inspect_err(|error| {
            if self.provider.policy.when_away != WhenAway::Refuse {
                self.go_alone(error, |record, now| drop(work(record, now)));
            }
        })
    }

    /// Replaces a record that cannot be decoded by what this process has of it. The caller has the turn.
    ///
    /// One of a newer format can be decoded, as far as this program knows it, and stays.
    async fn replace_damaged(&self) -> Result<(), StoreError> {
        let key = StoreKey::account(&self.id);
        let reading = self.provider.link.read(&key).await?;
        let is_damaged = |document: &Document| Record::decode(&document.body).is_err();
        let Some(damaged) = reading.document.filter(is_damaged) else { return Ok(()) };
        let mut own = (*self.desk().base).clone();
        own.revise();
        let keep = self.provider.policy.keep;
        // On a conflict another process has written, and that record is read next.
        let swap = self.provider.link.swap(&key, Some(damaged.version), own.encode(), keep).await?;
        if let Swap::Applied(_) = swap {
            tracing::warn!(account = %self.id, "damaged record was replaced");
        }
        Ok(())
    }

    /// The caller has the turn, and keeps it until what comes of an error is done as well.
    async fn exchange<T>(&self, work: &mut impl FnMut(&mut Record, Timestamp) -> T) -> Result<T, StoreError> {
        let mut base = self.base().await?;
        for tries in 0..MOST_TRIES {
            let now = self.provider.link.guess();
            let mut next = (*base.record).clone();
            if let Some(alone) = &base.alone {
                let _ = next.rejoin(now, &alone.record, alone.left.as_ref());
            }
            let joined = {
                let desk = self.desk();
                desk.put_in(&mut next, now);
                desk.pending.as_ref().map(|pending| pending.count)
            };
            let done = work(&mut next, now);
            next.shrink();
            let swap = if next == *base.record {
                None
            } else {
                next.revise();
                Some(self.swap(&base, &next).await)
            };
            match swap {
                None if base.is_guess => {
                    base = self.read_base(None).await?;
                    continue;
                }
                None => self.adopt(base.record, base.version, joined),
                Some(Ok(Swap::Applied(version))) => self.adopt(Arc::new(next), Some(version), joined),
                Some(Ok(Swap::Conflict(winner))) => {
                    let was_guess = base.is_guess;
                    base = self.taken(&winner, base.alone.take())?;
                    if base.alone.is_none() {
                        // Should this one never win, it goes on from what it has learned.
                        self.adopt(Arc::clone(&base.record), base.version, None);
                    }
                    if !was_guess {
                        self.pause(tries).await;
                    }
                    continue;
                }
                // It may have been applied: going on as if it had been is safe, for every change may be repeated.
                Some(Err(error)) => {
                    if let Some(alone) = &base.alone {
                        self.keep_joined(&base.record, alone, now);
                    }
                    return Err(error);
                }
            }
            return Ok(done);
        }
        Err(StoreError::unavailable(crate::Applied::No, "too many others write at once"))
    }

    /// Brings the view up to what the store says, and puts in what is not there yet.
    ///
    /// `seen` is how things stood when there may have been news: if this process has moved on from there meanwhile, the
    /// news was its own, and no trip is made.
    pub(crate) async fn synchronise(&self, seen: Option<Standing>) {
        let (is_alone, has_pending) = {
            let desk = self.desk();
            (desk.is_alone(), desk.pending.is_some() && !desk.flushing)
        };
        // What is pending may change nothing, and then bring nothing: whoever wants to know has to look.
        let is_whole = !is_alone && self.look(seen).await;
        if !is_whole || has_pending {
            let _ = self.transact(|_, _| ()).await;
        }
    }

    /// Takes over what the store says; `false` if it has lost something that this process knows and can put back.
    async fn look(&self, seen: Option<Standing>) -> bool {
        let _turn = self.turn.lock().await;
        if seen.is_some_and(|seen| self.desk().standing != seen) {
            return true;
        }
        if self.desk().is_alone() {
            // Whoever had the turn before has learned, or was told, what the store did not take.
            return false;
        }
        let reading = self.provider.link.read(&StoreKey::account(&self.id)).await;
        match reading.and_then(|reading| self.taken(&reading, None)) {
            Ok(Base { record, version, alone: None, .. }) => self.adopt(record, version, None),
            Ok(Base { alone: Some(_), .. }) => {
                self.update(|desk| desk.standing = Standing::Unread);
                return false;
            }
            Err(error) if self.provider.policy.when_away == WhenAway::Refuse => {
                tracing::debug!(account = %self.id, %error, "store not usable for this account");
            }
            Err(error) => self.go_alone(&error, |_, _| ()),
        }
        true
    }

    /// Writes down what has to be brought back after a clock that was ahead; mostly nothing has.
    pub(crate) async fn settle(&self) {
        let now = self.provider.link.guess();
        if !self.desk().shown(now).is_settled(now) {
            let _ = self.transact(|record, now| record.settle(now)).await;
        }
    }

    /// Reads the record if it was never read, was not followed for a while, or if our clock was set.
    pub(crate) async fn read_first(&self) {
        let standing = self.desk().standing;
        let is_known = match standing {
            Standing::Unread => false,
            Standing::Shared(_) => self.provider.link.now().is_some(),
            Standing::Alone(_) => true,
        };
        if !is_known {
            self.synchronise(Some(standing)).await;
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
        let (record, standing, left) = {
            let desk = self.desk();
            (Arc::clone(&desk.base), desk.standing, desk.left.clone())
        };
        let alone = match standing {
            Standing::Shared(version) if self.provider.link.now().is_some() => {
                return Ok(Base { record, version, is_guess: false, alone: None });
            }
            Standing::Unread if self.may_guess() => {
                return Ok(Base { record, version: None, is_guess: true, alone: None });
            }
            Standing::Shared(_) | Standing::Unread => None,
            Standing::Alone(_) => Some(Alone { record, left }),
        };
        self.read_base(alone).await
    }

    /// Whether nothing is known of the account, and the store's time is: then what is to be changed can be tried as if
    /// there were no document, which costs no more than a look whether there is one.
    pub(crate) fn may_guess(&self) -> bool {
        let is_blank = {
            let desk = self.desk();
            desk.standing == Standing::Unread && *desk.base == Record::default()
        };
        is_blank && self.provider.link.now().is_some()
    }

    async fn read_base(&self, alone: Option<Alone>) -> Result<Base, StoreError> {
        let reading = self.provider.link.read(&StoreKey::account(&self.id)).await?;
        self.taken(&reading, alone)
    }

    fn taken(&self, reading: &Reading, alone: Option<Alone>) -> Result<Base, StoreError> {
        let record = match &reading.document {
            Some(document) => {
                let known = {
                    let desk = self.desk();
                    (desk.standing == Standing::Shared(Some(document.version)))
                        .then(|| Arc::clone(&desk.base))
                };
                match known {
                    Some(record) => record,
                    None => Arc::new(Record::decode(&document.body).map_err(|error| self.damaged(error))?),
                }
            }
            None => Arc::default(),
        };
        // The store has lost what this process still knows: a hold, calls, readings.
        let alone = alone.or_else(|| {
            let known = Arc::clone(&self.desk().base);
            let is_same = Arc::ptr_eq(&record, &known);
            (!is_same && record.has_lost(&known)).then_some(Alone { record: known, left: None })
        });
        Ok(Base { record, version: reading.version(), is_guess: false, alone })
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        let error = StoreError::unusable("the record is damaged, and was left as it is").because(error);
        self.provider.link.note_unusable(&StoreKey::account(&self.id), &error);
        self.desk().is_damaged = true;
        error
    }

    async fn swap(&self, base: &Base, next: &Record) -> Result<Swap, StoreError> {
        let key = StoreKey::account(&self.id);
        self.provider.link.swap(&key, base.version, next.encode(), self.provider.policy.keep).await
    }

    /// Goes on from what the store has now; `joined` is what was pending and is in it.
    fn adopt(&self, record: Arc<Record>, version: Option<Version>, joined: Option<u64>) {
        self.update(|desk| {
            desk.released_in(&record);
            desk.base = record;
            desk.standing = Standing::Shared(version);
            (desk.left, desk.unwritten, desk.is_damaged) = (None, false, false);
            if let Some(count) = joined {
                desk.written(count);
            }
        });
    }

    /// Goes on from what the store has now, joined with this process's own copy, although the store does not take it. Otherwise a
    /// process whose writes are refused would never see what others write.
    fn keep_joined(&self, shared: &Record, own: &Alone, now: Timestamp) {
        let mut joined = shared.clone();
        let _ = joined.rejoin(now, &own.record, own.left.as_ref());
        self.update(|desk| {
            desk.base = Arc::new(joined);
            desk.left = shared.lineage().cloned();
            desk.unwritten = true;
            // The base is no state of the store's document any more: the next exchange must read that before it compares.
            desk.let_go();
        });
    }

    /// Makes the change to this process's own copy.
    fn go_alone<T>(&self, error: &StoreError, work: impl FnOnce(&mut Record, Timestamp) -> T) -> T {
        self.update(|desk| {
            let now = self.provider.link.guess();
            if !desk.is_alone() {
                if let StoreError::Unusable { .. } = error {
                    tracing::warn!(account = %self.id, %error, "record not usable, going on alone");
                } else {
                    // Of the store as a whole it was told already: once, not for each account.
                    tracing::debug!(account = %self.id, %error, "store not usable for this account, going on alone");
                }
                desk.standing = Standing::Alone(now.into());
                desk.left = desk.base.lineage().cloned();
            }
            let mut record = (*desk.base).clone();
            desk.put_in(&mut record, now);
            desk.pending = None;
            let done = work(&mut record, now);
            if record != *desk.base {
                desk.base = Arc::new(record);
                desk.unwritten = true;
            }
            done
        })
    }

    /// Writers that keep losing to each other come back at different times.
    async fn pause(&self, tries: u32) {
        let most = Duration::from_millis(1) * 2u32.saturating_pow(tries.min(5));
        self.provider.clock.sleep(most.mul_f64(fastrand::f64())).await;
    }
}

/// Whoever loses this often is better off alone for a while.
const MOST_TRIES: u32 = 24;
