//! Many lease holders that interleave, crash and return late, with clocks that are set back slightly. Each step goes through
//! a store, as between hosts.

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::*;
use crate::model::{LoginInfo, UsageReport};
use crate::policy::{Budget, Policy};
use crate::provider::FetchError;
use crate::record::{CommitOutcome, FailOutcome, Lease, LeaseDecision, LeaseRequest, MaxStaleness, Record};
use crate::time::CLOCK_SLACK;

const HOLDERS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A holder requests a lease and discards its previous one.
    Request {
        holder: usize,
        other_login: bool,
    },
    Commit(usize),
    Fail(usize),
    Release(usize),
    /// A holder is killed.
    Vanish(usize),
    Wait(u64),
    SetBack(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let holder = || 0..HOLDERS;
    let login = prop::bool::weighted(0.05);
    prop_oneof![
        6 => (holder(), login).prop_map(|(holder, other_login)| Step::Request { holder, other_login }),
        3 => holder().prop_map(Step::Commit),
        2 => holder().prop_map(Step::Fail),
        1 => holder().prop_map(Step::Release),
        1 => holder().prop_map(Step::Vanish),
        3 => (0_u64..40_000).prop_map(Step::Wait),
        1 => (0_u64..29_000).prop_map(Step::SetBack),
    ]
}

/// The hosts, and the state that a referee with full knowledge has.
struct Match {
    record: Record,
    now: Timestamp,
    latest: Timestamp,
    leases: [Option<Lease>; HOLDERS],
    request_count: u128,
    other_login: bool,
    /// The last granted lease, until it is released.
    current: Option<Lease>,
    newest_fence: u64,
    committed_fence: u64,
}

impl Match {
    fn new() -> Self {
        Self {
            record: Record::default(),
            now: at(0),
            latest: at(0),
            leases: Default::default(),
            request_count: 0,
            other_login: false,
            current: None,
            newest_fence: 0,
            committed_fence: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.record = stored(&self.record);
        match step {
            Step::Request { holder, other_login } => self.request(*holder, *other_login),
            Step::Commit(holder) => self.commit(*holder),
            Step::Fail(holder) => self.fail(*holder),
            Step::Release(holder) => self.release(*holder),
            Step::Vanish(holder) => {
                self.leases[*holder] = None;
                Ok(())
            }
            Step::Wait(ms) => {
                self.now += std::time::Duration::from_millis(*ms);
                self.latest = self.latest.max(self.now);
                Ok(())
            }
            Step::SetBack(ms) => {
                let back = self.now - std::time::Duration::from_millis(*ms);
                self.now = back.max(self.latest - CLOCK_SLACK);
                Ok(())
            }
        }
    }

    fn request(&mut self, holder: usize, other_login: bool) -> Result<(), TestCaseError> {
        self.request_count += 1;
        // No request accepts the stored readings, so only another process's lease can deny a call.
        let login = if other_login { "b" } else { "a" };
        let request = LeaseRequest::new(attempt(self.request_count), MaxStaleness::NewCall)
            .login(LoginInfo::new(login_id(login)));
        match self.record.begin(self.now, &request, &generous()) {
            LeaseDecision::Granted(lease) => {
                let taken = self.current.as_ref().is_some_and(|held| held.is_live(self.now));
                let same_login = other_login == self.other_login;
                prop_assert!(!(taken && same_login), "{lease:?} beside {:?}", self.current);
                prop_assert!(lease.fence > self.newest_fence);
                self.newest_fence = lease.fence;
                self.current = Some(lease.clone());
                self.leases[holder] = Some(lease);
            }
            LeaseDecision::InProgress { until, fence } => {
                let held = self.current.as_ref().map(|held| (held.until, held.fence));
                prop_assert_eq!(held, Some((until, fence)));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        self.other_login = other_login;
        Ok(())
    }

    /// Whether this lease is the current one. Only the newest lease can be.
    fn is_current(&self, lease: &Lease) -> bool {
        self.current.as_ref() == Some(lease)
    }

    fn commit(&mut self, holder: usize) -> Result<(), TestCaseError> {
        let Some(lease) = self.leases[holder].take() else { return Ok(()) };
        let before = self.record.clone();

        let committed = self.record.commit(self.now, &lease, &UsageReport::polled([five_hour(10)]));

        if self.is_current(&lease) {
            prop_assert_eq!(committed, CommitOutcome::Stored);
            prop_assert!(lease.fence > self.committed_fence);
            self.committed_fence = lease.fence;
            self.current = None;
        } else {
            prop_assert_eq!(committed, CommitOutcome::TooLate);
            prop_assert_eq!(&self.record, &before);
        }
        Ok(())
    }

    fn fail(&mut self, holder: usize) -> Result<(), TestCaseError> {
        let Some(lease) = self.leases[holder].take() else { return Ok(()) };
        let before = self.record.clone();

        // A missing login arms no hold, so the other holders can continue.
        let error = FetchError::not_logged_in("no file");
        let failed = self.record.fail(self.now, &lease, &error, &generous());

        if self.is_current(&lease) {
            prop_assert_eq!(failed, FailOutcome::Stored { hold: None, cooldown: None });
            self.current = None;
        } else {
            prop_assert_eq!(failed, FailOutcome::TooLate);
            prop_assert_eq!(&self.record, &before);
        }
        Ok(())
    }

    fn release(&mut self, holder: usize) -> Result<(), TestCaseError> {
        let Some(lease) = self.leases[holder].take() else { return Ok(()) };
        let before = self.record.clone();

        self.record.release(&lease);

        if self.is_current(&lease) {
            prop_assert_eq!(self.record.lease(), None);
            self.current = None;
        } else {
            prop_assert_eq!(&self.record, &before);
        }
        Ok(())
    }
}

fn generous() -> Policy {
    policy().budget(Budget::new(u32::MAX, 0))
}

proptest! {
    #[test]
    fn only_the_newest_lease_can_change_the_record(steps in vec(step(), 1..80)) {
        let mut game = Match::new();

        for step in &steps {
            game.take(step)?;
        }
    }
}
