//! Changes of the shared record, and what to do when the store cannot be used.
//! What is decided is passed in; the loop that reads, decides and swaps is `store::update`.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::desk::Standing;
use super::slot::Slot;
use crate::store::Start;
use crate::store::update::{Change, run};
use crate::{
    CasOutcome, Document, LoginId, Record, StoreError, StoreKey, StoreOutagePolicy, StoreRead, Version,
};

/// What the store does not have.
#[derive(Clone)]
struct Alone {
    record: Arc<Record>,
    /// Whose it was before it went its own way; `None` if that was not said, or if it is the store that has lost it.
    left: Option<LoginId>,
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
            Err(error) if self.provider.policy.on_store_unavailable == StoreOutagePolicy::FailClosed => {
                Err(error)
            }
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
        if let Err(StoreError::Corrupt { .. }) = shared {
            shared = match self.replace_damaged().await {
                Ok(()) => self.exchange(&mut work).await,
                Err(error) => Err(error),
            };
        }
        shared.inspect_err(|error| {
            if self.provider.policy.on_store_unavailable != StoreOutagePolicy::FailClosed {
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
        let keep = self.provider.policy.record_ttl;
        // On a conflict another process has written, and that record is read next.
        let swap =
            self.provider.link.compare_and_swap(&key, Some(damaged.version), own.encode(), keep).await?;
        if let CasOutcome::Applied(_) = swap {
            self.desk().is_damaged = false;
            tracing::warn!(account = %self.id, "damaged record was replaced");
        }
        Ok(())
    }

    /// The caller has the turn, and keeps it until what comes of an error is done as well.
    async fn exchange<T>(&self, work: &mut impl FnMut(&mut Record, Timestamp) -> T) -> Result<T, StoreError> {
        let (start, alone) = self.start();
        let (key, keep) = (StoreKey::account(&self.id), self.provider.policy.record_ttl);
        let mut exchange = Exchange { slot: self, work, alone, shared: None, joined: None };
        match run(&self.provider.link, &key, start, keep, &mut exchange).await {
            Ok(updated) => {
                self.adopt(updated.document, updated.version, exchange.joined);
                Ok(updated.value)
            }
            // It may have been applied: going on as if it had been is safe, for every change may be repeated.
            Err(error) => {
                if let (Some(alone), Some((shared, now))) = (&exchange.alone, &exchange.shared) {
                    self.keep_joined(shared, alone, *now);
                }
                Err(error)
            }
        }
    }

    /// Brings the view up to what the store says, and puts in what is not there yet.
    ///
    /// `seen` is how things stood when there may have been news: if this process has moved on from there meanwhile, the
    /// news was its own, and no trip is made.
    pub(crate) async fn synchronise(&self, seen: Option<Standing>) {
        let (is_alone, has_pending) = {
            let desk = self.desk();
            (desk.is_alone(), desk.has_to_write() && !desk.flushing)
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
        match reading.and_then(|reading| Ok((self.decoded(&reading)?, reading.version()))) {
            Ok((record, _)) if self.lost_by_store(&record).is_some() => {
                self.update(|desk| desk.standing = Standing::Unread);
                return false;
            }
            Ok((record, version)) => self.adopt(record, version, None),
            Err(error) if self.provider.policy.on_store_unavailable == StoreOutagePolicy::FailClosed => {
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

    /// What a change starts from, and what this process did on its own since it went alone.
    fn start(&self) -> (Start<Record>, Option<Alone>) {
        let (record, standing, left) = {
            let desk = self.desk();
            (Arc::clone(&desk.base), desk.standing, desk.left.clone())
        };
        match (standing, self.provider.link.now()) {
            (Standing::Alone(_), _) => (Start::Read, Some(Alone { record, left })),
            (Standing::Shared(version), Some(now)) => (Start::Known { document: record, version, now }, None),
            (Standing::Unread, Some(now)) if self.may_guess() => (Start::AssumeAbsent { now }, None),
            (Standing::Shared(_) | Standing::Unread, _) => (Start::Read, None),
        }
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

    fn decoded(&self, reading: &StoreRead) -> Result<Arc<Record>, StoreError> {
        let Some(document) = &reading.document else { return Ok(Arc::default()) };
        let known = {
            let desk = self.desk();
            (desk.standing == Standing::Shared(Some(document.version))).then(|| Arc::clone(&desk.base))
        };
        match known {
            Some(record) => Ok(record),
            None => Ok(Arc::new(Record::decode(&document.body).map_err(|error| self.damaged(error))?)),
        }
    }

    /// What this process still knows and the store has lost: a hold, calls, readings.
    fn lost_by_store(&self, shared: &Arc<Record>) -> Option<Alone> {
        let known = Arc::clone(&self.desk().base);
        let is_lost = !Arc::ptr_eq(shared, &known) && shared.has_lost(&known);
        is_lost.then_some(Alone { record: known, left: None })
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        let error = StoreError::corrupt("the record is damaged, and was left as it is").with_source(error);
        self.provider.link.note_unusable(&StoreKey::account(&self.id), &error);
        self.desk().is_damaged = true;
        error
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
            desk.left = shared.login_id().cloned();
            desk.unwritten = true;
            // The base is no state of the store's document any more: the next exchange must read that before it compares.
            desk.let_go();
        });
    }

    /// Makes the change to this process's own copy.
    fn go_alone<T>(&self, error: &StoreError, work: impl FnOnce(&mut Record, Timestamp) -> T) -> T {
        self.update(|desk| {
            let now = self.provider.link.guess();
            // The record is what the store had when it was read last; that the store is away now is another reason.
            desk.is_damaged &= matches!(error, StoreError::Corrupt { .. });
            if !desk.is_alone() {
                if let StoreError::Corrupt { .. } = error {
                    tracing::warn!(account = %self.id, %error, "record not usable, going on alone");
                } else {
                    // Of the store as a whole it was told already: once, not for each account.
                    tracing::debug!(account = %self.id, %error, "store not usable for this account, going on alone");
                }
                desk.standing = Standing::Alone(now.into());
                desk.left = desk.base.login_id().cloned();
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
}

/// One change of the shared record, as the update loop makes it.
struct Exchange<'a, W> {
    slot: &'a Slot,
    work: &'a mut W,
    /// What this process did on its own, and has to be put back in.
    alone: Option<Alone>,
    /// The store's record that was decided on last, and when.
    shared: Option<(Arc<Record>, Timestamp)>,
    /// What was pending and is in the last decision.
    joined: Option<u64>,
}

impl<T, W: FnMut(&mut Record, Timestamp) -> T> Change for Exchange<'_, W> {
    type Document = Record;
    type Output = T;

    fn decode(&mut self, found: &StoreRead) -> Result<Arc<Record>, StoreError> {
        self.shared = None;
        let record = self.slot.decoded(found)?;
        self.alone = self.alone.take().or_else(|| self.slot.lost_by_store(&record));
        self.shared = Some((Arc::clone(&record), found.now));
        Ok(record)
    }

    fn lost_to(&mut self, record: &Arc<Record>, version: Option<Version>) {
        if self.alone.is_none() {
            // Should this one never win, it goes on from what it has learned.
            self.slot.adopt(Arc::clone(record), version, None);
        }
    }

    fn decide(&mut self, record: &mut Record, now: Timestamp) -> T {
        if let Some(alone) = &self.alone {
            let _ = record.rejoin(now, &alone.record, alone.left.as_ref());
        }
        {
            let desk = self.slot.desk();
            desk.put_in(record, now);
            self.joined = desk.pending.as_ref().map(|pending| pending.count);
        }
        (self.work)(record, now)
    }

    fn encode(&mut self, record: &mut Record) -> Bytes {
        record.shrink();
        record.revise();
        record.encode()
    }
}
