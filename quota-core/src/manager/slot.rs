//! One account in this process: the desk where its record is worked on, and the view that readers see.
//! The rules are in `record`; when the desk is used is in `flight` and `changes`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::Guard;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::flight::Flight;
use super::provider::Provider;
use super::shelf::Sight;
use super::view::View;
use crate::record::Joined;
use crate::time::Ms;
use crate::{AccountId, Identity, Lineage, Record, Seed, Version};

/// One account.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: AccountId,
    pub(crate) provider: Arc<Provider>,
    pub(crate) sight: Sight,
    desk: Mutex<Desk>,
    /// One conversation with the store at a time, so that answers are taken in the order in which they were true.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The view has changed.
    pub(crate) news: Notify,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
}

/// What this process knows and has in hand of one account.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The record as the store last showed it, or, while the store is away, as this process goes on with it.
    pub(crate) base: Arc<Record>,
    pub(crate) standing: Standing,
    /// What was observed or seeded here and not written yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// Refreshes under way, at most one per login.
    pub(crate) flights: Vec<Arc<Flight>>,
    /// The login the account was last said to hold by whoever uses this manager.
    pub(crate) login: Option<Lineage>,
    /// It cannot be told whose the numbers are.
    pub(crate) withheld: bool,
    pub(crate) following: bool,
    pub(crate) flushing: bool,
}

/// How the base stands to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The store was never asked.
    Unread,
    /// The base is the store's document in this state, or the store has none.
    Shared(Option<Version>),
    /// The base has gone its own way since this moment, because the store could not be used.
    Alone(Ms),
}

impl Standing {
    /// The state of the store's document that the base is.
    pub(crate) fn version(self) -> Option<Version> {
        match self {
            Self::Shared(version) => version,
            Self::Unread | Self::Alone(_) => None,
        }
    }
}

/// What is to be joined to the record at the next write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    pub(crate) seed: Seed,
    pub(crate) identity: Option<Identity>,
    /// Counts the joins, so that what came during a write is not thrown away with what was written.
    pub(crate) count: u64,
}

impl Pending {
    /// Puts what is pending into `record`.
    pub(crate) fn join_to(&self, record: &mut Record, now: Timestamp) -> Joined {
        let joined = record.seed(now, &self.seed);
        if joined == Joined::Yes && self.identity.is_some() {
            return record.observe(now, &crate::Snapshot::default(), None, self.identity.as_ref());
        }
        joined
    }
}

impl Slot {
    pub(crate) fn new(id: AccountId, provider: Arc<Provider>, sight: Sight) -> Arc<Self> {
        let desk = Desk {
            base: Arc::clone(&sight.glance().record),
            standing: Standing::Unread,
            pending: None,
            flights: Vec::new(),
            login: None,
            withheld: false,
            following: false,
            flushing: false,
        };
        Arc::new(Self {
            id,
            provider,
            sight,
            desk: Mutex::new(desk),
            turn: tokio::sync::Mutex::new(()),
            news: Notify::new(),
            requests: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
        })
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.sight.look()
    }

    /// Whether anybody has been interested since this was asked last, or is waiting for changes.
    pub(crate) fn take_look(&self) -> bool {
        self.sight.take_look() || self.watchers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works at the desk, and shows what came of it.
    pub(crate) fn update<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        let mut desk = self.desk();
        let done = work(&mut desk);
        let alone = match desk.standing {
            Standing::Alone(since) => Some(since),
            Standing::Unread | Standing::Shared(_) => None,
        };
        let record = desk.shown(self.provider.link.guess());
        let before = self.sight.glance();
        let is_news =
            (desk.withheld, alone) != (before.withheld, before.alone_since) || record != before.record;
        let generation = before.generation + u64::from(is_news);
        let view = View::new(generation, record, Arc::clone(&self.provider), desk.withheld, alone);
        // Stored under the lock: of two pictures the later is never replaced by the earlier.
        self.sight.show(Arc::new(view));
        drop(desk);
        if is_news {
            self.news.notify_waiters();
        }
        done
    }
}

impl Desk {
    /// What the record is for this process: of the login it holds, with what is pending.
    pub(crate) fn shown(&self, now: Timestamp) -> Arc<Record> {
        let another =
            self.login.as_ref().is_some_and(|login| self.base.lineage().is_some_and(|other| other != login));
        if self.pending.is_none() && !another {
            return Arc::clone(&self.base);
        }
        let mut record = (*self.base).clone();
        self.put_in(&mut record, now);
        Arc::new(record)
    }

    /// Puts into a record what this process knows and the record may not: who holds the account, and what is pending.
    pub(crate) fn put_in(&self, record: &mut Record, now: Timestamp) {
        if let Some(login) = &self.login {
            record.new_login(login);
        }
        if let Some(pending) = &self.pending {
            let _ = pending.join_to(record, now);
        }
    }

    /// Joins something at the desk, to be written later. What belongs to another login is refused.
    pub(crate) fn join(&mut self, now: Timestamp, seed: &Seed, identity: Option<&Identity>) -> Joined {
        // Against the record as it would be with all that is pending: that may have named a login first.
        let mut trial = (*self.base).clone();
        self.put_in(&mut trial, now);
        // Readings that do not say whose they are belong to whoever holds the account now, and to nobody after.
        let mut seed = seed.clone();
        seed.lineage = seed.lineage.or_else(|| trial.lineage().cloned());
        let addition = Pending { seed, identity: identity.cloned(), count: 0 };
        let joined = addition.join_to(&mut trial, now);
        if joined != Joined::Yes {
            return joined;
        }
        // What was pending of another login than this is nobody's any more.
        self.pending.take_if(|pending| {
            matches!((&pending.seed.lineage, &addition.seed.lineage), (Some(one), Some(other)) if one != other)
        });
        let pending = self.pending.get_or_insert_default();
        pending.count += 1;
        pending.seed.snapshot.join(&addition.seed.snapshot);
        let later = |mine: &Option<crate::Hold>, new: &crate::Hold| {
            mine.as_ref().is_none_or(|mine| mine.until < new.until)
        };
        if let Some(hold) = addition.seed.hold.filter(|hold| later(&pending.seed.hold, hold)) {
            pending.seed.hold = Some(hold);
        }
        pending.seed.lineage = addition.seed.lineage.or(pending.seed.lineage.take());
        pending.identity = addition.identity.or(pending.identity.take());
        joined
    }

    /// Forgets what was written, unless more came meanwhile: joining that again changes nothing.
    pub(crate) fn written(&mut self, count: u64) {
        self.pending.take_if(|pending| pending.count == count);
    }

    /// Forgets a flight that has landed.
    pub(crate) fn landed(&mut self, landed: &Arc<Flight>) {
        self.flights.retain(|flight| !Arc::ptr_eq(flight, landed));
        if self.flights.is_empty() {
            // Most accounts have no flight most of the time, and then no room for one either.
            self.flights = Vec::new();
        }
    }

    /// The refresh under way for the login the account holds.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight>> {
        self.flights.iter().find(|flight| flight.lineage == self.login)
    }
}
