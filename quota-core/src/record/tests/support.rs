//! What the tests of the rules share: moments, readings, and those who ask.
//! Nothing here expects anything; what must hold stands in the tests.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::model::{
    Coverage, CredentialFingerprint, Credits, LoginId, LoginInfo, Money, OwnerId, Percent, RequestId, Scope,
    Snapshot, UsageReport, WindowId, WindowReading,
};
use crate::policy::Policy;
use crate::provider::FetchError;
use crate::record::{
    Hold, HoldReason, Lease, LeaseDecision, LeaseRequest, MaxStaleness, MergeOutcome, Record, Seed,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The freshness that [`ask`] wants, and the default of a policy.
pub(crate) const FRESH: Duration = Duration::from_secs(300);

/// That many seconds after a morning in 2027.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy::default()
}

pub(crate) fn percent(percent: u32) -> Percent {
    Percent::from_basis_points(percent * 100)
}

pub(crate) fn five_hour(used: u32) -> WindowReading {
    WindowReading::new(WindowId::five_hour(), percent(used))
}

pub(crate) fn seven_day(used: u32) -> WindowReading {
    WindowReading::new(WindowId::seven_day(), percent(used))
}

/// A window that counts one model only.
pub(crate) fn opus(used: u32) -> WindowReading {
    WindowReading::new(opus_id(), percent(used)).scope(Scope::model("Opus"))
}

pub(crate) fn opus_id() -> WindowId {
    WindowId::seven_day().for_model("Opus").unwrap()
}

/// Money beyond the windows, of which something is spent.
pub(crate) fn spending() -> Credits {
    let mut credits = Credits::default();
    credits.used = Some(Money::new(2050, "EUR", 2));
    credits
}

pub(crate) fn login_id(name: &str) -> LoginId {
    LoginId::new(name)
}

pub(crate) fn owner_id(name: &str) -> OwnerId {
    OwnerId::new(name)
}

/// An attempt whose delays are not jittered.
pub(crate) fn attempt(number: u128) -> RequestId {
    RequestId::from(number << 32)
}

/// A request that accepts readings younger than five minutes.
pub(crate) fn ask(number: u128) -> LeaseRequest {
    LeaseRequest::new(attempt(number), MaxStaleness::Age(FRESH))
}

/// A request that accepts only readings from `now` or later.
pub(crate) fn insist(number: u128, now: Timestamp) -> LeaseRequest {
    LeaseRequest::new(attempt(number), MaxStaleness::StartedAfter(now))
}

/// Asks at `now`, by the default policy.
pub(crate) fn begin(record: &mut Record, now: Timestamp, ask: &LeaseRequest) -> LeaseDecision {
    record.begin(now, ask, &policy())
}

/// The lease of an explicit refresh at `now`.
pub(crate) fn grant(record: &mut Record, now: Timestamp) -> Lease {
    let ask = insist(u128::from(record.fence()) + 1, now);
    match begin(record, now, &ask) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("no lease at {now}: {other:?}"),
    }
}

/// A call that starts at `now`, is answered, and ends a second later.
pub(crate) fn poll(record: &mut Record, now: Timestamp, usage: &UsageReport) {
    let lease = grant(record, now);
    let _ = record.commit(now + SECOND, &lease, usage);
}

/// A call that starts at `now` and fails at once; the hold that it arms.
pub(crate) fn fail(record: &mut Record, now: Timestamp, error: &FetchError) -> Option<Hold> {
    let lease = grant(record, now);
    match record.fail(now, &lease, error, &policy()) {
        crate::record::FailOutcome::Stored { hold, .. } => hold,
        crate::record::FailOutcome::TooLate => panic!("no other process has called since {now}"),
    }
}

/// A record whose one call was started at `now` and answered with these windows.
pub(crate) fn polled<const N: usize>(now: Timestamp, windows: [WindowReading; N]) -> Record {
    let mut record = Record::default();
    poll(&mut record, now, &UsageReport::polled(windows));
    record
}

/// What the headers of ordinary traffic say at `now`.
pub(crate) fn headers<const N: usize>(now: Timestamp, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&UsageReport::from_headers(windows), now)
}

/// Joins what the headers of ordinary traffic say at `now`, by a login of which nothing is said.
pub(crate) fn see<const N: usize>(
    record: &mut Record,
    now: Timestamp,
    windows: [WindowReading; N],
) -> MergeOutcome {
    record.observe(now, &headers(now, windows), None, None)
}

pub(crate) fn rate_limited(since: Timestamp, until: Timestamp) -> Hold {
    Hold::new(since, until, HoldReason::RateLimited)
}

/// Nothing but a hold, as persisted elsewhere.
pub(crate) fn held(hold: Hold) -> Seed {
    Seed::new(Snapshot::default()).hold(hold)
}

/// What the record says of a window, if it has it.
pub(crate) fn used(record: &Record, id: &WindowId) -> Option<Percent> {
    record.snapshot().window(id).map(crate::model::Window::used)
}

/// What comes back from a store.
pub(crate) fn stored(record: &Record) -> Record {
    Record::decode(&record.encode()).unwrap()
}

/// A record with everything in it: at 1290 another refresh starts, after a call that was answered, one that was answered in
/// part, headers, and a call that was turned away.
pub(crate) fn full() -> Record {
    let mut record = Record::default();
    let login = LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(7));
    let ask = insist(1, at(0)).login(login).by("host-1".into());
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &ask) else {
        panic!("no other process calls")
    };
    let all = [five_hour(42).resets_at(at(9000)).length(HOUR * 5), seven_day(20), opus(90)];
    let all = UsageReport::polled(all).plan("max".to_owned()).credits(spending()).owner_id(owner_id("org-1"));
    let _ = record.commit(at(1), &lease, &all);
    let some = UsageReport::polled([five_hour(43), opus(91)]);
    poll(
        &mut record,
        at(600),
        &some.coverage(Coverage::Complete { except: vec![WindowId::seven_day()], credits: false }),
    );
    let _ = see(&mut record, at(700), [five_hour(44)]);
    let over = fail(&mut record, at(1200), &FetchError::throttled(Some(SECOND * 90))).unwrap().until;
    grant(&mut record, over);
    record.bump_revision();
    record
}

/// What a store keeps.
pub(crate) fn document(record: &Record) -> Value {
    serde_json::from_slice(&record.encode()).unwrap()
}

/// What comes back of it.
pub(crate) fn decode(document: &Value) -> Record {
    Record::decode(document.to_string().as_bytes()).unwrap()
}
