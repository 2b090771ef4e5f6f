//! The stored state, and how changes of several processes are merged.

use jiff::SignedDuration;
use quota_core::provider::RejectionKind;
use quota_core::{Percent, UsageReport, WindowId, WindowReading};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seed(used: f64, second: i64, login_id: &str) -> Seed {
    let reading = WindowReading::new(WindowId::five_hour(), Percent::from_percent(used).unwrap());
    Seed::new(Snapshot::of(&UsageReport::polled([reading]), at(second))).login_id(LoginId::new(login_id))
}

fn used(state: &AccountState) -> Option<f64> {
    Some(state.snapshot.window(&WindowId::five_hour())?.used().as_f64())
}

fn affinity(session: &str, account: &str, second: i64) -> SessionAffinity {
    SessionAffinity::new(Session::of(session), account.parse().unwrap(), at(second))
}

#[test]
fn the_newer_reading_wins_in_either_order_of_writes() {
    let mut state = AccountState::default();

    let _ = state.merge(&seed(50.0, 10, "a"), &[], at(100));
    let _ = state.merge(&seed(40.0, 5, "a"), &[], at(100));

    assert_eq!(used(&state), Some(50.0));
}

#[test]
fn a_new_login_replaces_the_state_of_the_old_one() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(50.0, 5, "a"), &[], at(100));
    state.block(&Block::new(RejectionKind::Unauthorized, at(5)));

    let _ = state.merge(&seed(10.0, 10, "b"), &[], at(100));

    assert_eq!((used(&state), state.blocks.len()), (Some(10.0), 0));
}

#[test]
fn a_late_writer_of_an_old_login_changes_nothing() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(10.0, 10, "b"), &[], at(100));

    let _ = state.merge(&seed(50.0, 5, "a"), &[], at(100));

    assert_eq!((used(&state), state.login_id), (Some(10.0), Some(LoginId::new("b"))));
}

fn rejected(second: i64, login_id: &str) -> Block {
    Block::new(RejectionKind::Unauthorized, at(second)).login_id(LoginId::new(login_id))
}

#[test]
fn a_block_of_a_login_without_readings_is_stored() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(50.0, 5, "a"), &[], at(100));
    let unread = Seed::default().login_id(LoginId::new("b"));

    let _ = state.merge(&unread, &[rejected(10, "b")], at(100));

    assert!(state.block(&rejected(10, "b")));
    assert_eq!((used(&state), state.login_id, state.blocks.len()), (None, Some(LoginId::new("b")), 1));
}

#[test]
fn an_older_reading_does_not_replace_a_later_rejected_login() {
    let mut state = AccountState::default();
    let unread = Seed::default().login_id(LoginId::new("b"));
    let _ = state.merge(&unread, &[rejected(10, "b")], at(100));
    state.block(&rejected(10, "b"));

    let _ = state.merge(&seed(50.0, 5, "a"), &[rejected(5, "a")], at(100));

    assert!(!state.block(&rejected(5, "a")), "it belongs to another login");
    assert_eq!((used(&state), state.blocks), (None, vec![rejected(10, "b")]));
}

#[test]
fn a_block_from_the_future_does_not_make_its_login_the_latest() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(50.0, 50, "a"), &[], at(100));
    let unread = Seed::default().login_id(LoginId::new("b"));

    let _ = state.merge(&unread, &[rejected(5000, "b")], at(100));

    assert_eq!(used(&state), Some(50.0));
}

fn hold(since: i64) -> Hold {
    Hold::new(at(since), at(since + 600), quota_core::record::HoldReason::RateLimited)
}

#[test]
fn a_writer_without_the_hold_does_not_end_it() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(50.0, 5, "a").hold(hold(10)), &[], at(100));

    let _ = state.merge(&seed(40.0, 7, "a"), &[], at(100));

    assert_eq!(state.hold, Some(hold(10)));
}

#[test]
fn a_successful_call_after_the_hold_began_ends_it() {
    let mut state = AccountState::default();
    let _ = state.merge(&seed(50.0, 5, "a").hold(hold(10)), &[], at(100));

    let _ = state.merge(&seed(40.0, 20, "a"), &[], at(100));

    assert_eq!(state.hold, None);
}

#[test]
fn a_login_adopts_the_state_that_was_stored_without_one() {
    let block = Block::new(RejectionKind::QuotaExhausted, at(10)).until(at(600));
    let mut state = AccountState { snapshot: seed(50.0, 5, "a").snapshot, ..AccountState::default() };
    (state.hold, state.blocks) = (Some(hold(10)), vec![block.clone()]);

    // A call before the hold does not end it.
    let _ = state.merge(&seed(60.0, 7, "a"), &[], at(100));

    assert_eq!((used(&state), &state.login_id), (Some(60.0), &Some(LoginId::new("a"))));
    assert_eq!((state.hold, state.blocks), (Some(hold(10)), vec![block]));
}

#[test]
fn the_later_end_of_two_equal_blocks_wins() {
    let mut state = AccountState::default();
    let block = |until| Block::new(RejectionKind::QuotaExhausted, at(0)).until(at(until));

    state.block(&block(100));
    state.block(&block(50));

    assert_eq!(state.blocks.len(), 1);
    assert_eq!(state.blocks[0].until, Some(at(100)));
}

#[test]
fn blocks_of_two_models_are_both_stored() {
    let mut state = AccountState::default();
    let block = |model: &str| Block::new(RejectionKind::QuotaExhausted, at(0)).model(model.to_owned());

    state.block(&block("opus"));
    state.block(&block("sonnet"));

    assert_eq!(state.blocks.len(), 2);
}

#[test]
fn the_later_use_of_a_session_wins() {
    let week = Duration::from_secs(7 * 24 * 3600);

    let sessions = merge_sessions(&[affinity("s", "a/x", 10)], &[affinity("s", "a/y", 5)], at(20), week, 10);

    assert_eq!(sessions, [affinity("s", "a/x", 10)]);
}

#[test]
fn a_session_use_from_the_future_loses_to_a_past_one() {
    let week = Duration::from_secs(7 * 24 * 3600);
    let future = affinity("s", "a/y", 1000);

    let merged = merge_sessions(std::slice::from_ref(&future), &[affinity("s", "a/x", 10)], at(20), week, 10);
    let alone = merge_sessions(&[future], &[], at(20), week, 10);

    assert_eq!((merged, alone), (vec![affinity("s", "a/x", 10)], vec![affinity("s", "a/y", 20)]));
}

#[test]
fn readings_from_the_future_do_not_make_their_login_the_latest() {
    let mut state = AccountState { snapshot: seed(50.0, 1000, "a").snapshot, ..AccountState::default() };
    state.login_id = Some(LoginId::new("a"));

    let _ = state.merge(&seed(10.0, 90, "b"), &[], at(100));

    assert_eq!((used(&state), state.login_id), (Some(10.0), Some(LoginId::new("b"))));
}

#[test]
fn an_idle_session_is_dropped() {
    let sessions = [affinity("s", "a/x", 0), affinity("t", "a/x", 1)];

    let merged = merge_sessions(&sessions, &[], at(10), Duration::from_secs(10), 10);

    assert_eq!(merged, [affinity("t", "a/x", 1)]);
}

#[test]
fn the_longest_idle_of_too_many_sessions_are_dropped() {
    let sessions: Vec<SessionAffinity> = (0..20).map(|at| affinity(&format!("s{at}"), "a/x", at)).collect();

    let merged = merge_sessions(&sessions, &[], at(30), Duration::from_secs(1000), 3);

    let times: Vec<_> = merged.iter().map(|affinity| affinity.used_at).collect();
    assert_eq!(times, [at(19), at(18), at(17)]);
}

/// A state with every field set.
fn everything() -> AccountsState {
    let mut state = AccountsState::default();
    state.set_version();
    let account = state.accounts.entry("anthropic/main".parse().unwrap()).or_default();
    let _ = account.merge(
        &seed(50.0, 5, "a").hold(Hold::new(at(0), at(60), quota_core::record::HoldReason::RateLimited)),
        &[],
        at(100),
    );
    let block = Block::new(RejectionKind::QuotaExhausted, at(0)).until(at(0) + SignedDuration::from_mins(5));
    account.block(&block.model("opus".to_owned()).window(WindowId::seven_day()));
    account.block(
        &Block::new(RejectionKind::Unauthorized, at(0))
            .fingerprint(quota_core::model::CredentialFingerprint::from_hash(255)),
    );
    state.sessions.push(affinity("s", "anthropic/main", 5));

    state
}

#[test]
fn the_state_survives_a_round_trip() {
    let state = everything();

    let text = serde_json::to_string(&state).unwrap();

    assert_eq!(serde_json::from_str::<AccountsState>(&text).unwrap(), state);
}

#[test]
fn the_state_is_written_in_this_form() {
    insta::assert_json_snapshot!(everything());
}

#[test]
fn a_state_file_of_an_older_version_starts_over() {
    let older =
        br#"{"version":1,"accounts":{"a/b":{"hold":{"since_ms":0,"until_ms":1,"why":"failing"}}},"pins":[]}"#;

    assert_eq!(AccountsState::parse(older).unwrap(), AccountsState::default());
}

#[test]
fn a_state_file_that_is_damaged_is_an_error() {
    for damaged in ["", "[]", r#"{"version":1"#, r#"{"version":2,"accounts":7}"#] {
        assert!(AccountsState::parse(damaged.as_bytes()).is_err(), "{damaged}");
    }
}
