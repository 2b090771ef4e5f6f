//! What is kept, and how what several processes have learned is put together.

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

fn pin(session: &str, account: &str, second: i64) -> SessionAffinity {
    SessionAffinity::new(Session::of(session), account.parse().unwrap(), at(second))
}

#[test]
fn the_newer_reading_wins_in_either_order_of_writes() {
    let mut state = AccountState::default();

    state.merge(&seed(50.0, 10, "a"), &[], at(100));
    state.merge(&seed(40.0, 5, "a"), &[], at(100));

    assert_eq!(used(&state), Some(50.0));
}

#[test]
fn a_new_login_leaves_nothing_of_the_old_one() {
    let mut state = AccountState::default();
    state.merge(&seed(50.0, 5, "a"), &[], at(100));
    state.block(&Block::new(RejectionKind::Unauthorized, at(5)));

    state.merge(&seed(10.0, 10, "b"), &[], at(100));

    assert_eq!((used(&state), state.blocks.len()), (Some(10.0), 0));
}

#[test]
fn an_old_logins_late_writer_does_not_bring_it_back() {
    let mut state = AccountState::default();
    state.merge(&seed(10.0, 10, "b"), &[], at(100));

    state.merge(&seed(50.0, 5, "a"), &[], at(100));

    assert_eq!((used(&state), state.login_id), (Some(10.0), Some(LoginId::new("b"))));
}

fn dead(second: i64, login_id: &str) -> Block {
    Block::new(RejectionKind::Unauthorized, at(second)).login_id(LoginId::new(login_id))
}

#[test]
fn a_block_of_a_login_without_readings_is_kept() {
    let mut state = AccountState::default();
    state.merge(&seed(50.0, 5, "a"), &[], at(100));
    let unread = Seed::default().login_id(LoginId::new("b"));

    state.merge(&unread, &[dead(10, "b")], at(100));

    assert!(state.block(&dead(10, "b")));
    assert_eq!((used(&state), state.login_id, state.blocks.len()), (None, Some(LoginId::new("b")), 1));
}

#[test]
fn a_login_that_was_refused_later_is_not_replaced_by_an_older_reading_of_another() {
    let mut state = AccountState::default();
    let unread = Seed::default().login_id(LoginId::new("b"));
    state.merge(&unread, &[dead(10, "b")], at(100));
    state.block(&dead(10, "b"));

    state.merge(&seed(50.0, 5, "a"), &[dead(5, "a")], at(100));

    assert!(!state.block(&dead(5, "a")), "it is another's");
    assert_eq!((used(&state), state.blocks), (None, vec![dead(10, "b")]));
}

#[test]
fn a_block_from_the_future_says_nothing_of_which_login_is_the_later_one() {
    let mut state = AccountState::default();
    state.merge(&seed(50.0, 50, "a"), &[], at(100));
    let unread = Seed::default().login_id(LoginId::new("b"));

    state.merge(&unread, &[dead(5000, "b")], at(100));

    assert_eq!(used(&state), Some(50.0));
}

fn hold(since: i64) -> Hold {
    Hold::new(at(since), at(since + 600), quota_core::record::HoldReason::RateLimited)
}

#[test]
fn a_writer_that_never_knew_of_a_hold_does_not_end_it() {
    let mut state = AccountState::default();
    state.merge(&seed(50.0, 5, "a").hold(hold(10)), &[], at(100));

    state.merge(&seed(40.0, 7, "a"), &[], at(100));

    assert_eq!(state.hold, Some(hold(10)));
}

#[test]
fn a_call_that_was_answered_after_the_hold_was_armed_has_ended_it() {
    let mut state = AccountState::default();
    state.merge(&seed(50.0, 5, "a").hold(hold(10)), &[], at(100));

    state.merge(&seed(40.0, 20, "a"), &[], at(100));

    assert_eq!(state.hold, None);
}

#[test]
fn what_was_kept_without_a_login_is_adopted_with_its_hold_and_its_blocks() {
    let block = Block::new(RejectionKind::QuotaExhausted, at(10)).until(at(600));
    let mut state = AccountState { snapshot: seed(50.0, 5, "a").snapshot, ..AccountState::default() };
    (state.hold, state.blocks) = (Some(hold(10)), vec![block.clone()]);

    // Of a call before the hold, so it has not ended that.
    state.merge(&seed(60.0, 7, "a"), &[], at(100));

    assert_eq!((used(&state), &state.login_id), (Some(60.0), &Some(LoginId::new("a"))));
    assert_eq!((state.hold, state.blocks), (Some(hold(10)), vec![block]));
}

#[test]
fn of_two_blocks_about_one_thing_the_later_end_stands() {
    let mut state = AccountState::default();
    let block = |until| Block::new(RejectionKind::QuotaExhausted, at(0)).until(at(until));

    state.block(&block(100));
    state.block(&block(50));

    assert_eq!(state.blocks.len(), 1);
    assert_eq!(state.blocks[0].until, Some(at(100)));
}

#[test]
fn blocks_of_two_models_stand_beside_each_other() {
    let mut state = AccountState::default();
    let block = |model: &str| Block::new(RejectionKind::QuotaExhausted, at(0)).model(model.to_owned());

    state.block(&block("opus"));
    state.block(&block("sonnet"));

    assert_eq!(state.blocks.len(), 2);
}

#[test]
fn the_later_use_of_a_session_stands() {
    let week = Duration::from_secs(7 * 24 * 3600);

    let pins = merge_sessions(&[pin("s", "a/x", 10)], &[pin("s", "a/y", 5)], at(20), week, 10);

    assert_eq!(pins, [pin("s", "a/x", 10)]);
}

#[test]
fn a_use_of_a_session_from_the_future_is_no_later_than_a_true_one() {
    let week = Duration::from_secs(7 * 24 * 3600);
    let ahead = pin("s", "a/y", 1000);

    let joined = merge_sessions(std::slice::from_ref(&ahead), &[pin("s", "a/x", 10)], at(20), week, 10);
    let alone = merge_sessions(&[ahead], &[], at(20), week, 10);

    assert_eq!((joined, alone), (vec![pin("s", "a/x", 10)], vec![pin("s", "a/y", 20)]));
}

#[test]
fn readings_of_another_login_from_the_future_do_not_keep_the_true_ones_out() {
    let mut state = AccountState { snapshot: seed(50.0, 1000, "a").snapshot, ..AccountState::default() };
    state.login_id = Some(LoginId::new("a"));

    state.merge(&seed(10.0, 90, "b"), &[], at(100));

    assert_eq!((used(&state), state.login_id), (Some(10.0), Some(LoginId::new("b"))));
}

#[test]
fn a_session_that_was_quiet_for_too_long_is_forgotten() {
    let pins = [pin("s", "a/x", 0), pin("t", "a/x", 1)];

    let kept = merge_sessions(&pins, &[], at(10), Duration::from_secs(10), 10);

    assert_eq!(kept, [pin("t", "a/x", 1)]);
}

#[test]
fn of_too_many_sessions_those_that_were_quiet_longest_are_forgotten() {
    let pins: Vec<SessionAffinity> = (0..20).map(|at| pin(&format!("s{at}"), "a/x", at)).collect();

    let kept = merge_sessions(&pins, &[], at(30), Duration::from_secs(1000), 3);

    let times: Vec<_> = kept.iter().map(|pin| pin.used_at).collect();
    assert_eq!(times, [at(19), at(18), at(17)]);
}

/// Everything that can be kept.
fn everything() -> AccountsState {
    let mut state = AccountsState::default();
    state.set_version();
    let account = state.accounts.entry("anthropic/main".parse().unwrap()).or_default();
    account.merge(
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
    state.sessions.push(pin("s", "anthropic/main", 5));

    state
}

#[test]
fn what_is_kept_reads_the_same_when_it_is_read_back() {
    let state = everything();

    let text = serde_json::to_string(&state).unwrap();

    assert_eq!(serde_json::from_str::<AccountsState>(&text).unwrap(), state);
}

#[test]
fn what_is_kept_is_written_in_this_form() {
    insta::assert_json_snapshot!(everything());
}
