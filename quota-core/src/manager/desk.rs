//! What this process knows of an account and has in hand: the record, what is pending, the refreshes under way.
//! The rules are in `record`; the trips to the store are in `exchange`.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::QuotaError;
use super::flight::Flight;
use super::view::Caveats;
use crate::record::MergeOutcome;
use crate::time::Ms;
use crate::{Lease, LoginId, OwnerId, Record, Seed, Version};

/// What this process knows and has in hand of one account.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The record as the store last showed it, or, while the store is away, as this process goes on with it.
    pub(crate) base: Arc<Record>,
    pub(crate) standing: Standing,
    /// Counts what was joined here, so that what came during a write is not thrown away with what was written.
    joins: u64,
    /// What was observed or seeded here and not written yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// A lease whose call was dropped with its runtime. It is released by the next write.
    pub(crate) abandoned: Option<Box<Lease>>,
    /// Refreshes under way, at most one per login.
    pub(crate) flights: Vec<Arc<Flight>>,
    /// The login the account was last said to hold by whoever uses this manager.
    pub(crate) login: Option<LoginId>,
    /// It cannot be told whose the numbers are.
    pub(crate) withheld: bool,
    /// Why the last refresh here brought nothing, unless somebody's has since.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// Whose the base was when it began to go its own way.
    pub(crate) left: Option<LoginId>,
    /// The base has changed since.
    pub(crate) unwritten: bool,
    /// The store's record could not be decoded when it was last read.
    pub(crate) is_damaged: bool,
    pub(crate) flushing: bool,
}

/// How the base stands to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The store was never asked, or not for so long that the base says little about it.
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
    pub(crate) owner_id: Option<OwnerId>,
    /// The last join that is in it.
    pub(crate) count: u64,
}

impl Pending {
    /// Puts what is pending into `record`.
    pub(crate) fn join_to(&self, record: &mut Record, now: Timestamp) -> MergeOutcome {
        let joined = record.seed(now, &self.seed);
        if joined == MergeOutcome::Merged && self.owner_id.is_some() {
            return record.observe(now, &crate::Snapshot::default(), None, self.owner_id.as_ref());
        }
        joined
    }
}

impl Desk {
    /// A desk with a record that the store was never asked about.
    pub(crate) fn on(base: Arc<Record>) -> Self {
        Self {
            base,
            standing: Standing::Unread,
            pending: None,
            abandoned: None,
            flights: Vec::new(),
            login: None,
            withheld: false,
            failed: None,
            left: None,
            unwritten: false,
            is_damaged: false,
            joins: 0,
            flushing: false,
        }
    }

    /// What has to be said beside the record.
    pub(crate) fn caveats(&self) -> Caveats {
        let store_unavailable_since = match self.standing {
            Standing::Alone(since) => Some(since),
            Standing::Unread | Standing::Shared(_) => None,
        };
        let is_damaged = self.is_damaged && store_unavailable_since.is_some();
        Caveats { withheld: self.withheld, store_unavailable_since, is_damaged, failed: self.failed.clone() }
    }

    /// What the record is for this process: of the login it holds, with what is pending.
    pub(crate) fn shown(&self, now: Timestamp) -> Arc<Record> {
        let another =
            self.login.as_ref().is_some_and(|login| self.base.login_id().is_some_and(|other| other != login));
        if self.pending.is_none() && self.abandoned.is_none() && !another {
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
        if let Some(lease) = &self.abandoned {
            record.release(lease);
        }
    }

    /// Joins something at the desk, to be written later. What belongs to another login is refused.
    pub(crate) fn join(&mut self, now: Timestamp, seed: &Seed, owner_id: Option<&OwnerId>) -> MergeOutcome {
        // Against the record as it would be with all that is pending: that may have named a login first.
        let mut trial = (*self.base).clone();
        self.put_in(&mut trial, now);
        // Readings that do not say whose they are belong to whoever holds the account now, and to nobody after.
        let mut seed = seed.clone();
        seed.login_id = seed.login_id.or_else(|| trial.login_id().cloned());
        // Joined to readings with a time, one without a reset would count as one of an earlier period.
        seed.snapshot.assume_resets(trial.snapshot());
        let addition = Pending { seed, owner_id: owner_id.cloned(), count: 0 };
        let joined = addition.join_to(&mut trial, now);
        if joined != MergeOutcome::Merged {
            return joined;
        }
        // What was pending of another login than this is nobody's any more.
        self.pending.take_if(|pending| {
            matches!((&pending.seed.login_id, &addition.seed.login_id), (Some(one), Some(other)) if one != other)
        });
        let pending = self.pending.get_or_insert_default();
        self.joins += 1;
        pending.count = self.joins;
        pending.seed.snapshot.join(&addition.seed.snapshot);
        let later = |mine: &Option<crate::Hold>, new: &crate::Hold| {
            mine.as_ref().is_none_or(|mine| mine.until < new.until)
        };
        if let Some(hold) = addition.seed.hold.filter(|hold| later(&pending.seed.hold, hold)) {
            pending.seed.hold = Some(hold);
        }
        pending.seed.login_id = addition.seed.login_id.or(pending.seed.login_id.take());
        pending.owner_id = addition.owner_id.or(pending.owner_id.take());
        joined
    }

    /// Requires a read of the store before the next decision: the account is not followed any more, or the base is not what the
    /// store has.
    pub(crate) fn let_go(&mut self) {
        if let Standing::Shared(_) = self.standing {
            self.standing = Standing::Unread;
        }
    }

    /// Says which login the account holds from now on.
    pub(crate) fn set_login(&mut self, login: LoginId) {
        let before = self.login.replace(login);
        let Some(before) = before.filter(|before| self.login.as_ref() != Some(before)) else { return };
        self.failed = None;
        // What names no login belongs to the one that was set before, not to the next.
        if self.base.login_id().is_none() {
            let mut record = (*self.base).clone();
            record.new_login(&before);
            self.base = Arc::new(record);
        }
        let pending = self.pending.get_or_insert_default();
        pending.seed.login_id.get_or_insert(before);
        // To be written soon, so that other processes do not take it for the new login's either.
        self.joins += 1;
        pending.count = self.joins;
    }

    /// Whether this process goes on without the store.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.standing, Standing::Alone(_))
    }

    /// Whether the store has all that is to be written to it.
    pub(crate) fn is_written(&self) -> bool {
        self.pending.is_none() && !self.unwritten && self.abandoned.is_none()
    }

    /// Whether a write would bring the store something: what is pending, or the release of a lease.
    pub(crate) fn has_to_write(&self) -> bool {
        self.pending.is_some() || self.abandoned.is_some()
    }

    /// Forgets an abandoned lease once `record` is what the store has: there it is released, or another one was granted.
    pub(crate) fn released_in(&mut self, record: &Record) {
        self.abandoned.take_if(|lease| record.lease().is_none_or(|other| other.fence != lease.fence));
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

    /// The same for one that brought nothing, and remembers why.
    pub(crate) fn crashed(&mut self, landed: &Arc<Flight>, error: QuotaError) {
        self.landed(landed);
        // That no other call was made says less than why the last one failed.
        let is_known = matches!(error, QuotaError::CalledRecently { .. }) && self.failed.is_some();
        if landed.login_id == self.login && !is_known {
            self.failed = Some(Arc::new(error));
        }
    }

    /// The refresh under way for the login the account holds.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight>> {
        self.flights.iter().find(|flight| flight.login_id == self.login)
    }
}
