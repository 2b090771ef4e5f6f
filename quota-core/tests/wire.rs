//! The exact text of stored documents and settings, which older and newer programs also read. The meaning of the fields is
//! tested with the rules.

use std::time::Duration;

use insta::{assert_json_snapshot, with_settings};
use jiff::Timestamp;
use quota_core::model::{
    Coverage, CredentialFingerprint, Credits, LoginId, LoginInfo, Money, OwnerId, RequestId, Scope,
};
use quota_core::policy::{Backoff, StoreOutagePolicy};
use quota_core::record::{
    Hold, HoldReason, LastFailureKind, Lease, LeaseDecision, LeaseRequest, MaxStaleness, ProviderCooldown,
    Record,
};
use quota_core::{FetchError, Percent, Policy, Snapshot, UsageReport, WindowId, WindowReading};
use serde_json::{Value, json};

/// A time `second` seconds after a fixed start in 2027.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("the time is in range")
}

fn reading(id: &WindowId, percent: f64) -> WindowReading {
    WindowReading::new(id.clone(), Percent::from_percent(percent).expect("it is a number"))
}

fn opus() -> WindowId {
    WindowId::seven_day().for_model("Opus").expect("it has a name")
}

/// A response with everything that a provider can report.
fn usage() -> UsageReport {
    let mut credits = Credits::default();
    credits.enabled = Some(false);
    credits.used = Some(Money::new(2050, "EUR", 2));
    credits.limit = Some(Money::new(5000, "EUR", 2));
    credits.balance = Some(Money::new(-7, "EUR", 2));
    credits.disabled_reason = Some("out_of_credits".to_owned());
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    UsageReport::polled([
        reading(&WindowId::five_hour(), 42.5).resets_at(at(9000)).length(hours(5)),
        reading(&WindowId::seven_day(), 101.0).resets_at(at(99_000)).length(hours(168)),
        reading(&opus(), 0.0).scope(Scope::model("Opus")),
        reading(&WindowId::monthly(), 7.0).scope(Scope::surface("desktop")),
    ])
    .plan("max".to_owned())
    .credits(credits)
    .owner_id(OwnerId::new("org-1"))
}

/// A later response with one unreadable window and unreadable credits.
fn unreadable_usage() -> UsageReport {
    let except = vec![WindowId::seven_day()];
    let readings =
        [reading(&WindowId::five_hour(), 43.0), reading(&opus(), 1.0).scope(Scope::unknown_model())];
    let mut coverage = Coverage::complete_except(except);
    if let Coverage::Complete { credits, .. } = &mut coverage {
        *credits = false;
    }
    UsageReport::polled(readings).coverage(coverage)
}

/// The lease for a call of `host` at `second`, with a login id and a fingerprint.
fn grant(record: &mut Record, second: i64, host: &str) -> Lease {
    let login = LoginInfo::new(LoginId::new("user-1")).fingerprint(CredentialFingerprint::from_hash(255));
    let attempt = RequestId::from(u128::try_from(second).expect("it is after the start") << 32);
    let request = LeaseRequest::new(attempt, MaxStaleness::NewCall).login(login).by(host.into());
    match record.begin(at(second), &request, &Policy::default()) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("no lease after {second} s: {other:?}"),
    }
}

/// A record with all fields: a response, a partly unreadable response, headers, a 429, and another lease.
fn full() -> Record {
    let mut record = Record::default();
    let first = grant(&mut record, 0, "host-1");
    let _ = record.commit(at(1), &first, &usage());
    let second = grant(&mut record, 600, "host-2");
    let _ = record.commit(at(601), &second, &unreadable_usage());
    let headers = UsageReport::from_headers([reading(&WindowId::five_hour(), 44.0).resets_at(at(9000))]);
    let _ = record.observe(at(700), &Snapshot::of(&headers, at(700)), None, None);
    let third = grant(&mut record, 1200, "host-1");
    let throttled = FetchError::throttled(Some(Duration::from_secs(90)));
    let _ = record.fail(at(1201), &third, &throttled, &Policy::default());
    let _ = grant(&mut record, 1300, "host-1");
    record.bump_revision();
    record
}

fn value(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("it was just written")
}

#[test]
fn a_full_record() {
    with_settings!({ sort_maps => true }, { assert_json_snapshot!(value(&full().encode())) });
}

#[test]
fn an_empty_record() {
    assert_eq!(Record::default().encode(), r#"{"format":3,"fence":0,"snapshot":{}}"#);
}

#[test]
fn a_full_snapshot() {
    with_settings!({ sort_maps => true }, { assert_json_snapshot!(Snapshot::of(&usage(), at(0))) });
}

/// A poll that lowers one window and omits another, and optionally a later statusline with this use.
fn lowered(line: Option<f64>) -> Snapshot {
    let five_hours =
        |used| reading(&WindowId::five_hour(), used).resets_at(at(9000)).length(Duration::from_secs(18_000));
    let week =
        reading(&WindowId::seven_day(), 96.0).resets_at(at(99_000)).length(Duration::from_secs(604_800));
    let mut snapshot = Snapshot::of(&UsageReport::polled([five_hours(42.0), week]), at(0));
    snapshot.join(&Snapshot::of(&UsageReport::polled([five_hours(3.0)]), at(600)));
    if let Some(used) = line {
        snapshot.join(&Snapshot::of(&UsageReport::from_statusline([five_hours(used)], at(700)), at(700)));
    }
    snapshot
}

#[test]
fn a_lowered_window_and_a_removed_window_with_their_peaks() {
    let mut peak = json!({ "used_bp": 4200, "resets_ms": 1_800_009_000_000_i64, "length_ms": 18_000_000 });
    let stored = |peak: &Value| {
        json!({
            "windows": [{
                "id": "five_hour", "at_ms": 1_800_000_600_000_i64, "source": "poll", "used_bp": 300,
                "resets_ms": 1_800_009_000_000_i64, "length_ms": 18_000_000, "peak": peak
            }],
            "peaks": {
                "seven_day": { "used_bp": 9600, "resets_ms": 1_800_099_000_000_i64, "length_ms": 604_800_000 }
            },
            "watermark": { "all": { "at_ms": 1_800_000_600_000_i64, "source": "poll" } }
        })
    };

    assert_eq!(serde_json::to_value(lowered(None)).expect("it has only text keys"), stored(&peak));
    peak["used_bp"] = json!(5000);
    peak["arrived_ms"] = json!(1_800_000_700_000_i64);
    assert_eq!(serde_json::to_value(lowered(Some(50.0))).expect("it has only text keys"), stored(&peak));
}

#[test]
fn a_cooldown() {
    let mut cooldown = ProviderCooldown::default();
    cooldown.extend(at(0), &Hold::new(at(0), at(60), HoldReason::ProviderRateLimited));

    with_settings!({ sort_maps => true }, { assert_json_snapshot!(value(&cooldown.encode())) });
}

#[test]
fn an_empty_cooldown() {
    assert_eq!(ProviderCooldown::default().encode(), r#"{"format":2}"#);
}

#[test]
fn the_default_policy() {
    with_settings!({ sort_maps => true }, { assert_json_snapshot!(Policy::default()) });
}

#[test]
fn missing_settings_have_the_default() {
    let policy: Policy = serde_json::from_value(json!({ "max_age": "2m" })).expect("it is a setting");

    assert_eq!(policy, Policy::default().max_age(Duration::from_secs(120)));
}

#[test]
fn former_names_of_settings_are_accepted() {
    let former = json!({ "freshness": "2m", "keep": "48h", "when_away": "refuse", "backoff": { "first": "1s", "cap": "2s" } });
    let policy: Policy = serde_json::from_value(former).expect("they are settings");

    let backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(2));
    let expected = Policy::default()
        .max_age(Duration::from_secs(120))
        .record_ttl(Duration::from_secs(48 * 3600))
        .on_store_unavailable(StoreOutagePolicy::FailClosed)
        .rate_limit_backoff(backoff);
    assert_eq!(policy, expected);
}

#[test]
fn an_unknown_setting_is_rejected() {
    assert!(serde_json::from_value::<Policy>(json!({ "freshnes": "2m" })).is_err());
}

#[test]
fn the_reasons_of_holds() {
    let reasons = [
        HoldReason::RateLimited,
        HoldReason::ProviderRateLimited,
        HoldReason::Failing,
        HoldReason::BudgetExhausted,
        HoldReason::Other("eclipse".into()),
    ];

    assert_json_snapshot!(reasons, @r#"
    [
      "rate_limited",
      "provider_rate_limited",
      "failing",
      "budget_exhausted",
      "eclipse"
    ]
    "#);
}

#[test]
fn every_kind_of_failure_survives_a_round_trip() {
    let errors = [
        (FetchError::throttled(None), "throttled"),
        (FetchError::TimedOut, "timed_out"),
        (FetchError::unavailable("500"), "failing"),
        (FetchError::unreachable("DNS", std::io::Error::other("no route")), "unreachable"),
        (FetchError::Unauthorized, "unauthorized"),
        (FetchError::forbidden("no"), "forbidden"),
        (FetchError::missing_scope("user:profile"), "missing_scope"),
    ];

    for (error, word) in errors {
        let mut record = Record::default();
        let lease = grant(&mut record, 0, "");
        let _ = record.fail(at(1), &lease, &error, &Policy::default());

        assert_eq!(value(&record.encode())["last_failure"]["kind"], word);
        assert_eq!(Record::decode(&record.encode()).expect("it was just written"), record);
    }
}

/// A record of format 1 or 2 with the names of format 3.
fn renamed(older: &str) -> Value {
    let names = [
        ("lineage", "login_id"),
        ("identity", "owner_id"),
        ("strikes", "rate_limit_streak"),
        ("trouble", "last_failure"),
        ("attempts_ms", "calls_ms"),
        ("refreshed_mark", "refreshed_with"),
        ("mark", "fingerprint"),
        ("why", "reason"),
        ("note", "message"),
        ("horizon", "watermark"),
        ("apart", "exceptions"),
        ("$money", "$credits"),
    ];
    let replace = |text: String, (old, new)| text.replace(&format!("\"{old}\":"), &format!("\"{new}\":"));
    let text = names.into_iter().fold(older.to_owned(), replace);
    let mut record: Value = serde_json::from_str(&text).expect("it is JSON");
    record["format"] = json!(3);
    record
}

#[test]
fn records_of_formats_1_and_2_are_rewritten_as_format_3() {
    for written in [include_str!("wire/record-1.json"), include_str!("wire/record-2.json")] {
        let record = Record::decode(written.as_bytes()).expect("its format is known");

        assert!(record.is_writable());
        assert_eq!(value(&record.encode()), renamed(written));
    }
}

#[test]
fn words_of_format_2_are_accepted() {
    let failure = json!({ "at_ms": 1_800_000_000_000_i64, "kind": "missing_scope", "note": "n", "mark": "00000000000000ff" });
    let hold = |reason| json!({ "since_ms": 1_800_000_000_000_i64, "until_ms": 1_800_000_060_000_i64, "why": reason });
    let trouble = json!({ "at_ms": 1_800_000_000_000_i64, "kind": "login_refused" });
    let decode = |reason| {
        let older = json!({ "format": 2, "hold": hold(reason), "trouble": trouble, "unscoped": [failure] });
        Record::decode(older.to_string().as_bytes()).expect("its format is known")
    };

    let record = decode("neighbour_rate_limited");
    assert_eq!(record.hold().expect("it has one").reason, HoldReason::ProviderRateLimited);
    assert_eq!(record.last_failure().expect("it has one").kind, LastFailureKind::Unauthorized);
    let unscoped = &value(&record.encode())["unscoped"][0];
    assert_eq!((&unscoped["message"], &unscoped["fingerprint"]), (&json!("n"), &json!("00000000000000ff")));
    assert_eq!(decode("budget_spent").hold().expect("it has one").reason, HoldReason::BudgetExhausted);
}

#[test]
fn a_record_of_format_3_is_rewritten_unchanged() {
    let written = include_bytes!("wire/record-3.json");

    let record = Record::decode(written).expect("its format is known");

    assert!(record.is_writable());
    assert_eq!(value(&record.encode()), value(written));
}

#[test]
fn no_token_is_ever_written() {
    let text = String::from_utf8(full().encode().to_vec()).expect("it is JSON");

    // The fingerprint is a hash; a record stores nothing else of a credential.
    assert!(text.contains(r#""fingerprint":"00000000000000ff""#));
    assert!(["token", "sk-", "Bearer", "secret"].iter().all(|word| !text.contains(word)));
}
