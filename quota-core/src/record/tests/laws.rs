//! Laws that hold for any operations, in any order, at any times. The operations are in `random`. The tests in `holders`
//! check that a late holder changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::random::{Op, Outcome, World, ops, usage_of_any_period};
use super::support::*;
use crate::model::{Snapshot, Source, UsageReport, WindowId, WindowReading};
use crate::policy::Budget;
use crate::provider::FetchError;
use crate::record::{
    CommitOutcome, Counted, FailOutcome, Lease, LeaseDecision, MaxStaleness, MergeOutcome, Priority, Record,
};
use crate::time::{self, CLOCK_SLACK};

/// Times in milliseconds, from long before 1970 to the maximum.
fn any_clock() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        3 => 1_700_000_000_000_i64..1_900_000_000_000,
        1 => -9_000_000_000_000_i64..253_402_207_200_000,
        1 => 0_i64..1000,
    ]
    .prop_map(time::from_ms)
}

proptest! {
    #[test]
    fn the_fence_rises_with_every_grant_under_any_clock(
        calls in vec((any_clock(), any::<bool>()), 1..60),
    ) {
        let generous = policy().budget(Budget::new(u32::MAX, 0));
        let mut record = Record::default();
        let mut last = 0;
        for (number, (now, lost)) in calls.into_iter().enumerate() {
            if lost && i128::from(now.as_millisecond()) > i128::from(last) {
                record = Record::default();
            }

            let request = explicit_request(number as u128);
            let LeaseDecision::Granted(lease) = record.begin(now, &request, &generous) else { panic!("no lease is out") };
            record.release(&lease);

            prop_assert!(lease.fence > last, "{} after {last}", lease.fence);
            last = lease.fence;
        }
    }

    #[test]
    fn no_lease_is_granted_during_a_hold_and_every_hold_has_a_cause(ops in ops()) {
        check_holds(&ops)?;
    }

    #[test]
    fn no_window_is_younger_than_its_source(ops in ops()) {
        check_ages(&ops)?;
    }

    #[test]
    fn no_window_ever_goes_back_in_time(ops in ops()) {
        let mut world = World::new(Record::default(), at(0), policy());
        for op in &ops {
            let before = world.record.clone();

            let _ = world.apply(op);

            for window in world.record.snapshot().windows() {
                let back = before
                    .snapshot()
                    .window(window.id())
                    .filter(|known| known.observed_at() <= world.now + CLOCK_SLACK)
                    .filter(|known| known.source().has_time())
                    .is_some_and(|known| known.supersedes(window));
                prop_assert!(!back, "{window:?} after {op:?}");
            }
        }
    }

    #[test]
    fn a_record_survives_a_round_trip_through_a_store(ops in ops()) {
        let mut world = World::new(Record::default(), at(0), policy());
        for op in &ops {
            let _ = world.apply(op);

            prop_assert_eq!(&stored(&world.record), &world.record);
        }
    }

    #[test]
    fn a_record_merged_with_itself_does_not_change(before in ops(), removed: bool, after in ops()) {
        let mut world = World::after(&before, at(0));
        if removed {
            let _ = world.record.forget(world.now);
        }
        for op in &after {
            let _ = world.apply(op);
        }
        world.record.repair_clock(world.now);
        // After `repair_clock`, the next merge normalizes the watermark and drops an outdated failure.
        let snapshot = world.record.snapshot.clone();
        world.record.snapshot.join(&snapshot);
        let request_count = world.record.complete_at();
        world.record.last_failure.take_if(|failure| Some(failure.at) < request_count);
        let same = world.record.clone();

        let joined = world.record.merge_standalone(world.now, &same, None);

        prop_assert_eq!(joined, MergeOutcome::Merged);
        prop_assert_eq!(world.record, same);
    }

    #[test]
    fn any_response_delays_the_next_call_by_a_minute(
        seen in vec((usage_of_any_period(), -600_i64..120), 0..4),
        answer in usage_of_any_period().prop_filter("the report is not empty", |usage| !usage.is_empty()),
        took in 0_i64..90,
        within in 1_u64..7200,
        grace in 0_u64..100,
        full_refresh_interval in 0_u64..7200,
    ) {
        let policy = policy()
            .reset_grace(Duration::from_secs(grace))
            .full_refresh_interval(Duration::from_secs(full_refresh_interval));
        let within = Duration::from_secs(within);
        let mut record = Record::default();
        let lease = grant(&mut record, at(0));
        let _ = record.commit(at(took), &lease, &answer);
        for (usage, second) in &seen {
            let _ = record.observe(at(120), &Snapshot::of(usage, at(*second)), None, None);
        }

        let due = record.due_at(within, Counted::Account, &policy).expect("the call read all windows");

        prop_assert!(due >= at(0) + within.min(MINUTE), "{due}");
        prop_assert!(due <= at(120) + within.max(policy.full_refresh_interval), "{due}");
    }

    #[test]
    fn a_clock_in_the_year_2100_blocks_no_call_for_years(ops in ops(), left in 0_i64..600) {
        let year_2100: Timestamp = "2100-01-01T00:00:00Z".parse().expect("a valid time");
        let mut world = World::after(&ops, year_2100);

        let first = begin(&mut world.record, at(left), &explicit_request(9999));
        let limit = at(left) + CLOCK_SLACK;

        prop_assert!(!matches!(first, LeaseDecision::InProgress { .. } | LeaseDecision::NotNeeded | LeaseDecision::CredentialRejected(_)), "{first:?}");
        prop_assert!(world.record.snapshot().newest().is_none_or(|newest| newest <= limit));
        prop_assert!(world.record.complete_at().is_none_or(|request_count| request_count <= limit));
        // No hold among the operations is longer than two hours.
        let second = begin(&mut world.record, at(left) + HOUR * 2, &explicit_request(9998));
        prop_assert!(matches!(second, LeaseDecision::Granted(_)), "{second:?}");
    }
}

/// Checks that each shown reading has arrived, and is no younger than its source.
///
/// It need not be the last arrival. An older reading that arrives late may prove that another one does not count, such as a
/// line that only repeats it. Then the reading next to that one is shown.
fn check_ages(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new(Record::default(), at(0), policy());
    let mut arrived = Vec::new();
    for op in ops {
        let outcome = world.apply(op);

        let brought = match (op, &outcome) {
            (Op::Commit { usage, .. }, Outcome::Committed(lease, CommitOutcome::Stored)) => {
                Some((usage, lease.granted_at))
            }
            (Op::Observe { usage, .. } | Op::Seed { usage, .. }, Outcome::Joined(seen)) => {
                Some((usage, *seen))
            }
            _ => None,
        };
        if let Some((usage, brought_at)) = brought {
            let brought_at = time::truncate_ms(brought_at);
            arrived.extend(usage.windows.iter().map(|reading| (reading, usage.source, brought_at)));
        }
        for window in world.record.snapshot().windows() {
            let is_of = |(reading, source, brought_at): &(&WindowReading, Source, Timestamp)| {
                let same =
                    (&reading.id, *source, reading.used) == (window.id(), window.source(), window.used());
                same && window.observed_at() <= *brought_at
            };
            prop_assert!(arrived.iter().any(is_of), "{window:?} after {op:?}");
        }
    }
    Ok(())
}

fn sees(age: Duration, source: Source, windows: [WindowReading; 1]) -> Op {
    let mut usage = UsageReport::from_headers(windows);
    usage.source = source;
    Op::Observe { age: age.try_into().expect("it is short"), usage }
}

#[test]
fn a_timed_reading_is_shown_again_if_the_higher_line_proves_old() {
    let ops = [
        sees(Duration::from_millis(1), Source::Local, [five_hour(0)]),
        sees(Duration::ZERO, Source::Statusline, [five_hour(100)]),
        sees(Duration::from_millis(2), Source::Unknown, [five_hour(100)]),
    ];
    check_ages(&ops).unwrap();

    let known = World::after(&ops, at(0)).record;

    let window = known.snapshot().window(&WindowId::five_hour()).expect("it was reported");
    assert_eq!((window.source(), window.used()), (Source::Local, percent(0)));
}

/// Compares the grants and holds of the record with those that [`Shadow`] expects.
fn check_holds(ops: &[Op]) -> Result<(), TestCaseError> {
    let frugal = policy().budget(Budget::new(6, 2));
    let mut world = World::new(Record::default(), at(0), frugal);
    let mut shadow = Shadow::default();
    for op in ops {
        let outcome = world.apply(op);

        shadow.check(&world, op, &outcome)?;
    }
    Ok(())
}

fn refreshes(is_explicit: bool) -> Op {
    Op::Request { is_explicit, priority: Priority::Interactive, cooldown: None }
}

fn waits(span: Duration) -> Op {
    Op::Wait(span)
}

#[test]
fn a_call_with_readings_after_its_grant_is_withdrawn() {
    let answer = Op::Commit { holder: 0, usage: UsageReport::polled([five_hour(0)]) };
    let no_login = Op::Fail { holder: 0, error: FetchError::not_logged_in("no file") };

    check_holds(&[waits(Duration::from_micros(1)), refreshes(false), answer, refreshes(true), no_login])
        .unwrap();
}

#[test]
fn a_call_with_readings_after_its_grant_counts_from_the_grant() {
    let answer = Op::Commit { holder: 0, usage: UsageReport::polled([]).plan("max".to_owned()) };
    let ops = [
        waits(Duration::from_micros(1)),
        refreshes(false),
        Op::SetBack(Duration::from_millis(1)),
        answer,
        refreshes(true),
        waits(Duration::from_micros(29_999_999)),
        refreshes(true),
        waits(Duration::from_secs(270)),
        Op::Request { is_explicit: false, priority: Priority::Background, cooldown: None },
        Op::Request { is_explicit: false, priority: Priority::Background, cooldown: None },
    ];

    check_holds(&ops).unwrap();
}

#[test]
fn a_call_withdrawn_after_an_hour_is_already_dropped() {
    let no_login = Op::Fail { holder: 0, error: FetchError::not_logged_in("no file") };

    check_holds(&[refreshes(false), waits(HOUR), no_login, refreshes(false)]).unwrap();
}

/// The expected holds, computed independently of the record.
#[derive(Default)]
struct Shadow {
    /// The start and the end of the account's own hold.
    hold: Option<(Timestamp, Timestamp)>,
    /// The fence and the grant time of each call. The budget counts from the grant.
    calls: Vec<(u64, Timestamp)>,
    fence: u64,
    cleared: u64,
}

impl Shadow {
    fn check(&mut self, world: &World, op: &Op, outcome: &Outcome) -> Result<(), TestCaseError> {
        let now = time::truncate_ms(world.now);
        let forgets = matches!(
            outcome,
            Outcome::Begun { .. }
                | Outcome::Committed(_, CommitOutcome::Stored)
                | Outcome::Failed(_, _, FailOutcome::Stored { .. })
        );
        if forgets || matches!(op, Op::ClearHold) {
            // A call that was found to be an hour old is dropped, even if the clock is set back later.
            self.calls.retain(|(_, at)| now < *at + HOUR);
        }
        match outcome {
            Outcome::Begun { cooldown, priority, begin } => {
                let neighbors = cooldown.as_ref().map(|hold| hold.until);
                let holds = [
                    self.hold.map(|(_, until)| until),
                    neighbors,
                    self.budget_exhausted_until(now, *priority),
                ];
                let held_until = holds.into_iter().flatten().filter(|until| now < *until).max();
                match begin {
                    LeaseDecision::Granted(lease) => {
                        prop_assert_eq!(held_until, None, "granted {:?}", lease);
                        prop_assert!(lease.fence > self.fence);
                        self.fence = lease.fence;
                        self.calls.push((lease.fence, now));
                    }
                    LeaseDecision::OnHold(hold) => prop_assert_eq!(Some(hold.until), held_until),
                    _ => {}
                }
            }
            Outcome::Committed(lease, CommitOutcome::Stored) => self.clear(now, lease),
            Outcome::Failed(lease, error, FailOutcome::Stored { hold, .. }) => {
                if error.is_before_request() {
                    self.take_back(lease);
                }
                prop_assert_eq!(hold.is_some(), error.is_transient() && !error.is_before_request());
                if let FetchError::Throttled { retry_after } = error {
                    let floor = retry_after.unwrap_or_default().max(MINUTE);
                    prop_assert!(hold.as_ref().is_some_and(|hold| hold.until >= now + floor));
                }
                if let Some(hold) = hold {
                    self.hold_until(now, now, hold.until);
                }
            }
            Outcome::Joined(since) => {
                if let Op::Seed { hold: Some(span), .. } = op {
                    self.seed(now, time::truncate_ms(*since), *span);
                }
            }
            _ => {}
        }
        if let Op::ClearHold = op {
            self.hold = None;
            self.cleared = world.record.cleared_fence;
        }
        Ok(())
    }

    fn budget_exhausted_until(&self, now: Timestamp, priority: Priority) -> Option<Timestamp> {
        let allowed = if priority == Priority::Interactive { 6 } else { 4 };
        let mut recent: Vec<_> =
            self.calls.iter().map(|(_, at)| *at + HOUR).filter(|end| now < *end).collect();
        recent.sort_unstable();
        recent.len().checked_sub(allowed).map(|free| recent[free])
    }

    /// A withdrawn call does not count. A call of more than an hour ago has already been dropped.
    fn take_back(&mut self, lease: &Lease) {
        self.calls.retain(|(fence, _)| *fence != lease.fence);
    }

    /// A success ends holds that were armed before its call started.
    fn clear(&mut self, now: Timestamp, lease: &Lease) {
        self.hold.take_if(|(since, until)| *since <= lease.granted_at.min(now) || *until <= now);
    }

    fn seed(&mut self, now: Timestamp, since: Timestamp, span: Duration) {
        let since = since.min(now);
        if self.cleared == 0 || time::as_fence(since) > self.cleared {
            self.hold_until(now, since, since + span);
        }
    }

    fn hold_until(&mut self, now: Timestamp, since: Timestamp, until: Timestamp) {
        if until > now && self.hold.is_none_or(|(_, mine)| mine < until) {
            self.hold = Some((since, until));
        }
    }
}

#[test]
fn no_call_is_granted_a_millisecond_before_a_minute_has_passed() {
    let mut record = polled(at(0), [five_hour(100).resets_at(at(1))]);
    let mut eager = request(1);
    eager.max_staleness = MaxStaleness::Age(HOUR);

    let last_moment = at(60) - SignedDuration::from_millis(1);

    assert_eq!(begin(&mut record.clone(), last_moment, &eager), LeaseDecision::NotNeeded);
    assert!(matches!(begin(&mut record, at(60), &eager), LeaseDecision::Granted(_)));
}
