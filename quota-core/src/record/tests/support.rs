//! Shared helpers of the tests of the rules: times, readings and requests. They assert nothing. The tests assert the rules.

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

/// The max age that [`request`] requests, which is the default of a policy.
pub(crate) const FRESH: Duration = Duration::from_secs(300);

/// A time `second` seconds after a fixed start in 2027.
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

/// Credits of which a part is used.
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
pub(crate) fn request(number: u128) -> LeaseRequest {
    LeaseRequest::new(attempt(number), MaxStaleness::Age(FRESH))
}

/// A request that only a new call satisfies.
pub(crate) fn explicit_request(number: u128) -> LeaseRequest {
    LeaseRequest::new(attempt(number), MaxStaleness::NewCall)
}

/// Requests a lease at `now` with the default policy.
pub(crate) fn begin(record: &mut Record, now: Timestamp, request: &LeaseRequest) -> LeaseDecision {
    record.begin(now, request, &policy())
}

/// Returns the lease of an explicit refresh at `now`.
pub(crate) fn grant(record: &mut Record, now: Timestamp) -> Lease {
    let request = explicit_request(u128::from(record.fence()) + 1);
    match begin(record, now, &request) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("no lease at {now}: {other:?}"),
    }
}

/// Makes a call that starts at `now`, succeeds and ends a second later.
pub(crate) fn poll(record: &mut Record, now: Timestamp, usage: &UsageReport) {
    let lease = grant(record, now);
    let _ = record.commit(now + SECOND, &lease, usage);
}

/// Makes a call that starts at `now` and fails at once. Returns the hold that it arms.
pub(crate) fn fail(record: &mut Record, now: Timestamp, error: &FetchError) -> Option<Hold> {
    let lease = grant(record, now);
    match record.fail(now, &lease, error, &policy()) {
        crate::record::FailOutcome::Stored { hold, .. } => hold,
        crate::record::FailOutcome::TooLate => panic!("no other process has called since {now}"),
    }
}

/// Creates a record whose only call started at `now` and returned these windows.
pub(crate) fn polled<const N: usize>(now: Timestamp, windows: [WindowReading; N]) -> Record {
    let mut record = Record::default();
    poll(&mut record, now, &UsageReport::polled(windows));
    record
}

/// The snapshot of an ordinary response's headers at `now`.
pub(crate) fn headers<const N: usize>(now: Timestamp, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&UsageReport::from_headers(windows), now)
}

/// Merges the headers of an ordinary response at `now`, without a login.
pub(crate) fn merge_headers<const N: usize>(
    record: &mut Record,
    now: Timestamp,
    windows: [WindowReading; N],
) -> MergeOutcome {
    record.observe(now, &headers(now, windows), None, None)
}

pub(crate) fn rate_limited(since: Timestamp, until: Timestamp) -> Hold {
    Hold::new(since, until, HoldReason::RateLimited)
}

/// A seed with only a hold.
pub(crate) fn held(hold: Hold) -> Seed {
    Seed::new(Snapshot::default()).hold(hold)
}

/// The usage of a window, if the record contains it.
pub(crate) fn used(record: &Record, id: &WindowId) -> Option<Percent> {
    record.snapshot().window(id).map(crate::model::Window::used)
}

/// The record after a round trip through a store.
pub(crate) fn stored(record: &Record) -> Record {
    Record::decode(&record.encode()).unwrap()
}

/// A record with all fields: another refresh starts at 1290, after a success, a partly unreadable response, headers, and a
/// rate limit.
pub(crate) fn full() -> Record {
    let mut record = Record::default();
    let login = LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(7));
    let request = explicit_request(1).login(login).by("host-1".into());
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &request) else {
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
    let _ = merge_headers(&mut record, at(700), [five_hour(44)]);
    let over = fail(&mut record, at(1200), &FetchError::throttled(Some(SECOND * 90))).unwrap().until;
    grant(&mut record, over);
    record.bump_revision();
    record
}

/// The stored form of a record.
pub(crate) fn document(record: &Record) -> Value {
    serde_json::from_slice(&record.encode()).unwrap()
}

/// Decodes the stored form.
pub(crate) fn decode(document: &Value) -> Record {
    Record::decode(document.to_string().as_bytes()).unwrap()
}
