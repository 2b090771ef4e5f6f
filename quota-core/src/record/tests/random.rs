//! Random readings, and random operations on a record that many holders share. The laws are in `laws`, `holders` and the
//! tests of `snapshot`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::support::*;
use crate::model::{Coverage, Credits, Money, Snapshot, Source, UsageReport, WindowId, WindowReading};
use crate::policy::Policy;
use crate::provider::FetchError;
use crate::record::{
    CommitOutcome, FailOutcome, Hold, HoldReason, Lease, LeaseDecision, LeaseRequest, MaxStaleness, Priority,
    Record, Seed,
};
use crate::time::CLOCK_SLACK;

/// Few ids, so that readings often concern the same window.
pub(crate) fn window_id() -> impl Strategy<Value = WindowId> {
    prop::sample::select(vec![
        WindowId::five_hour(),
        WindowId::seven_day(),
        opus_id(),
        WindowId::new("moon phase").unwrap(),
    ])
}

/// The end of a one-hour period, some seconds off, or an extreme time.
///
/// Periods are at least as far apart as the longest window, because nearer ones cannot be distinguished in every order.
fn reset() -> impl Strategy<Value = Timestamp> {
    let period = (-1_i64..4, prop_oneof![-3_i64..4, 28_i64..33]);
    prop_oneof![
        12 => period.prop_map(|(hours, off)| at(hours * 3600 + off)),
        1 => Just(Timestamp::MAX),
        1 => Just(Timestamp::MIN),
    ]
}

/// A time near [`at`]`(0)` that is not the end of a one-hour period.
fn any_reset() -> impl Strategy<Value = Timestamp> {
    prop_oneof![1 => reset(), 1 => (-600_i64..7200).prop_map(at)]
}

fn reading(reset: impl Strategy<Value = Timestamp>) -> impl Strategy<Value = WindowReading> {
    // Either all readings of one window state its length, or none does.
    let unknown = option::of(prop::sample::select(vec![Duration::ZERO, Duration::MAX]));
    (window_id(), 0_u32..3, option::of(reset), unknown).prop_map(|(id, used, reset, unknown)| {
        let length = if id == WindowId::five_hour() { Some(HOUR) } else { unknown };
        let scope = (id == opus_id()).then(|| crate::model::Scope::model("Opus"));
        WindowReading::new(id, percent(used)).resets_at(reset).length(length).scope(scope)
    })
}

fn coverage() -> impl Strategy<Value = Coverage> {
    let complete = (vec(window_id(), 0..3), any::<bool>())
        .prop_map(|(except, credits)| Coverage::Complete { except, credits });
    prop_oneof![Just(Coverage::Reported), complete]
}

fn credits() -> impl Strategy<Value = Credits> {
    (option::of(any::<bool>()), option::of(0_i64..2)).prop_map(|(enabled, used)| {
        let mut credits = Credits::default();
        credits.enabled = enabled;
        credits.used = used.map(|minor| Money::new(minor, "EUR", 2));
        credits
    })
}

/// Any report of any source.
pub(crate) fn usage() -> impl Strategy<Value = UsageReport> {
    usage_of(reading(reset()))
}

/// Any report with resets at any distance.
pub(crate) fn usage_of_any_period() -> impl Strategy<Value = UsageReport> {
    usage_of(reading(any_reset()))
}

fn usage_of(reading: impl Strategy<Value = WindowReading>) -> impl Strategy<Value = UsageReport> {
    let newer = ["telepathy", "oracle"].map(|word| Source::Other(word.into()));
    let known = [Source::Unknown, Source::Statusline, Source::Local, Source::Headers, Source::Poll];
    let source = prop::sample::select([&known[..], &newer].concat());
    let plan = option::of(prop::sample::select(vec!["max".to_owned(), "pro".to_owned()]));
    (vec(reading, 0..4), coverage(), source, plan, option::of(credits())).prop_map(
        |(windows, coverage, source, plan, credits)| {
            let mut usage = UsageReport::polled(windows).coverage(coverage).plan(plan).credits(credits);
            usage.source = source;
            usage
        },
    )
}

fn error() -> impl Strategy<Value = FetchError> {
    let retry_after = option::of((0_u64..7200).prop_map(Duration::from_secs));
    prop_oneof![
        3 => retry_after.prop_map(FetchError::throttled),
        1 => Just(FetchError::TimedOut),
        1 => Just(FetchError::malformed("html")),
        1 => Just(FetchError::Unauthorized),
        1 => Just(FetchError::not_logged_in("no file")),
        1 => Just(FetchError::credential_unavailable("`pass` timed out")),
    ]
}

/// An operation on a record.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A process requests the lease, and calls the provider if it is granted.
    Request { is_explicit: bool, priority: Priority, cooldown: Option<Duration> },
    /// A running call returns a response.
    Commit { holder: usize, usage: UsageReport },
    /// A running call fails.
    Fail { holder: usize, error: FetchError },
    /// A running call is cancelled.
    Release { holder: usize },
    /// Readings of this age arrive.
    Observe { age: SignedDuration, usage: UsageReport },
    /// A persisted state of this age arrives, with a hold of this length that was armed then, or now at the latest.
    Seed { age: SignedDuration, usage: UsageReport, hold: Option<Duration> },
    /// A user clears the hold.
    ClearHold,
    /// Time passes.
    Wait(Duration),
    /// The clock is set back by less than the clock slack.
    SetBack(Duration),
}

fn op() -> impl Strategy<Value = Op> {
    let priority = prop::sample::select(vec![Priority::Background, Priority::Interactive]);
    let cooldown = prop_oneof![4 => Just(None), 1 => (1_u64..90).prop_map(|s| Some(Duration::from_secs(s)))];
    let age = || (-60_000_i64..600_000).prop_map(SignedDuration::from_millis);
    let hold = || option::of((0_u64..7200).prop_map(Duration::from_secs));
    prop_oneof![
        6 => (any::<bool>(), priority, cooldown)
            .prop_map(|(is_explicit, priority, cooldown)| Op::Request { is_explicit, priority, cooldown }),
        3 => (0_usize..4, usage()).prop_map(|(holder, usage)| Op::Commit { holder, usage }),
        2 => (0_usize..4, error()).prop_map(|(holder, error)| Op::Fail { holder, error }),
        1 => (0_usize..4).prop_map(|holder| Op::Release { holder }),
        2 => (age(), usage()).prop_map(|(age, usage)| Op::Observe { age, usage }),
        1 => (age(), usage(), hold()).prop_map(|(age, usage, hold)| Op::Seed { age, usage, hold }),
        1 => Just(Op::ClearHold),
        2 => (0_u64..40_000_000).prop_map(|us| Op::Wait(Duration::from_micros(us))),
        2 => (0_u64..2000).prop_map(|s| Op::Wait(Duration::from_secs(s))),
        1 => (0_u64..29_000).prop_map(|ms| Op::SetBack(Duration::from_millis(ms))),
    ]
}

/// A sequence of operations on an account.
pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..40)
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) enum Outcome {
    Begun {
        cooldown: Option<Hold>,
        priority: Priority,
        begin: LeaseDecision,
    },
    Committed(Lease, CommitOutcome),
    Failed(Lease, FetchError, FailOutcome),
    /// Readings of this time were merged.
    Joined(Timestamp),
    Nothing,
}

/// A record, the time, and the running calls. The last one is the current holder.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) record: Record,
    pub(crate) now: Timestamp,
    pub(crate) policy: Policy,
    latest: Timestamp,
    running: Vec<Lease>,
    request_count: u128,
}

impl World {
    pub(crate) fn new(record: Record, now: Timestamp, policy: Policy) -> Self {
        Self { record, now, policy, latest: now, running: Vec::new(), request_count: 0 }
    }

    /// The world after all these operations.
    pub(crate) fn after(ops: &[Op], now: Timestamp) -> Self {
        let mut world = Self::new(Record::default(), now, policy());
        for op in ops {
            let _ = world.apply(op);
        }
        world
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        let now = self.now;
        match op {
            Op::Request { is_explicit, priority, cooldown } => {
                self.request(*is_explicit, *priority, *cooldown)
            }
            Op::Commit { holder, usage } => self.finish_call(*holder, |record, lease, _| {
                let committed = record.commit(now, &lease, usage);
                Outcome::Committed(lease, committed)
            }),
            Op::Fail { holder, error } => self.finish_call(*holder, |record, lease, policy| {
                let failed = record.fail(now, &lease, error, policy);
                Outcome::Failed(lease, error.clone(), failed)
            }),
            Op::Release { holder } => self.finish_call(*holder, |record, lease, _| {
                record.release(&lease);
                Outcome::Nothing
            }),
            Op::Observe { age, usage } => {
                let seen = now - *age;
                let _ = self.record.observe(now, &Snapshot::of(usage, seen), None, None);
                Outcome::Joined(seen)
            }
            Op::Seed { age, usage, hold } => {
                let seen = now - *age;
                let since = seen.min(now);
                let hold = hold.map(|span| rate_limited(since, since + span));
                let seed = Seed::new(Snapshot::of(usage, seen)).hold(hold);
                let _ = self.record.seed(now, &seed);
                Outcome::Joined(seen)
            }
            Op::ClearHold => {
                let _ = self.record.clear_hold(now);
                Outcome::Nothing
            }
            Op::Wait(span) => {
                self.now += *span;
                self.latest = self.latest.max(self.now);
                Outcome::Nothing
            }
            Op::SetBack(span) => {
                self.now = (now - *span).max(self.latest - CLOCK_SLACK);
                Outcome::Nothing
            }
        }
    }

    fn request(&mut self, is_explicit: bool, priority: Priority, cooldown: Option<Duration>) -> Outcome {
        self.request_count += 1;
        let freshness = if is_explicit { MaxStaleness::NewCall } else { MaxStaleness::Age(FRESH) };
        let cooldown =
            cooldown.map(|span| Hold::new(self.now, self.now + span, HoldReason::ProviderRateLimited));
        let request = LeaseRequest::new(attempt(self.request_count), freshness)
            .priority(priority)
            .cooldown(cooldown.clone());
        let begin = self.record.begin(self.now, &request, &self.policy);
        if let LeaseDecision::Granted(lease) = &begin {
            self.running.push(lease.clone());
        }
        Outcome::Begun { cooldown, priority, begin }
    }

    fn finish_call(
        &mut self,
        holder: usize,
        with: impl FnOnce(&mut Record, Lease, &Policy) -> Outcome,
    ) -> Outcome {
        // Newest first, because most calls end before the next one starts.
        let Some(at) = self.running.len().checked_sub(1 + holder) else { return Outcome::Nothing };
        let lease = self.running.remove(at);
        with(&mut self.record, lease, &self.policy)
    }
}
