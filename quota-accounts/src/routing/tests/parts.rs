//! The parts of a decision: when the choice is settled, verdicts, blocks, and how a decision is reported.

use std::time::Duration;

use jiff::SignedDuration;
use quota_core::model::{Coverage, CredentialFingerprint, LoginId};
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Snapshot, UsageReport, WindowId, WindowReading};

use super::support::*;
use crate::routing::choose::Selector;
use crate::routing::decision::whole_seconds;
use crate::routing::evaluate::headroom;
use crate::routing::verdict::Verdict;
use crate::routing::{Block, Candidate, Disposition, Reason, Role, Session};
use crate::{AccountLimits, Limits, Request, RoutingMode, RoutingPolicy};

fn candidate(given: &Given, role: Role) -> Candidate<'_> {
    Candidate::new(&given.id, role, &given.snapshot, FRESH).limits(&given.limits)
}

/// Whether the choice is settled, and whether it is low, after one account with this much left.
fn after_one(mode: RoutingMode, role: Role, remaining: f64) -> (bool, bool) {
    let policy = RoutingPolicy::default().mode(mode).min_remaining(left(20.0)).killswitch(left(5.0));
    let (request, given) = (Request::new(), Given::new("a", [five_hour(remaining)]));
    let mut selector = Selector::new(&request, now(), &policy);
    selector.consider(&candidate(&given, role));
    (selector.is_settled(), selector.is_low())
}

#[test]
fn an_ordered_choice_is_settled_by_the_first_preferred_account() {
    assert_eq!(after_one(RoutingMode::MainFirst, Role::Main, 50.0), (true, false));
    assert_eq!(after_one(RoutingMode::FallbackFirst, Role::Fallback, 50.0), (true, false));
}

#[test]
fn a_later_account_can_be_better_than_one_of_the_wrong_role() {
    assert_eq!(after_one(RoutingMode::FallbackFirst, Role::Main, 50.0), (false, false));
}

#[test]
fn a_balanced_choice_is_never_settled() {
    assert_eq!(after_one(RoutingMode::StickyBalanced, Role::Main, 50.0), (false, false));
}

#[test]
fn an_account_below_its_minimum_settles_nothing() {
    assert_eq!(after_one(RoutingMode::MainFirst, Role::Main, 10.0), (false, true));
}

#[test]
fn an_excluded_account_settles_nothing() {
    assert_eq!(after_one(RoutingMode::MainFirst, Role::Main, 0.0), (false, false));
}

#[test]
fn only_an_exclusion_by_unknown_usage_is_unknown() {
    let unknown = |reason| Verdict::ineligible(reason, None).is_unknown();

    assert!(unknown(Reason::UnknownDenied) && unknown(Reason::OwnerUnknown));
    assert!(!unknown(Reason::Exhausted));
    assert!(!Verdict::eligible(Reason::UnknownDenied).is_unknown());
}

#[test]
fn a_session_leaves_only_an_account_that_is_excluded_for_good() {
    assert!(Verdict::ineligible(Reason::Exhausted, None).ends_affinity());
    assert!(!Verdict::ineligible(Reason::Throttled, None).ends_affinity());
    assert!(!Verdict::eligible(Reason::Exhausted).ends_affinity());
}

#[test]
fn another_credential_may_be_rejected_for_other_reasons() {
    assert!(Reason::Forbidden.may_be_about_credential() && Reason::LoginRejected.may_be_about_credential());
    assert!(!Reason::Exhausted.may_be_about_credential());
}

#[test]
fn a_reason_states_whether_it_is_unknown_or_about_the_credential() {
    let of = |reason: Reason| (reason.is_unknown(), reason.is_about_credential());

    assert_eq!(of(Reason::UnknownAllowed), (true, false));
    assert_eq!(of(Reason::LoginRejected), (false, true));
    assert_eq!(of(Reason::Exhausted), (false, false));
}

#[test]
fn a_block_is_of_another_login_only_if_both_are_stated() {
    let [a, b] = [LoginId::new("a"), LoginId::new("b")];
    let block = Block::new(RejectionKind::Unauthorized, now());

    assert!(!block.is_of_another(Some(&a)));
    let block = block.login_id(a.clone());
    assert!(!block.is_of_another(Some(&a)) && !block.is_of_another(None));
    assert!(block.is_of_another(Some(&b)));
}

#[test]
fn a_block_from_the_future_starts_now_with_its_length() {
    let block = Block::new(RejectionKind::Throttled, hours(5)).until(hours(6));

    assert_eq!(block.rebased_to(now()), Some(Block::new(RejectionKind::Throttled, now()).until(hours(1))));
    assert_eq!(block.rebased_to(hours(5)), None);
}

#[test]
fn a_block_of_one_exact_model_does_not_include_others() {
    let block = Block::new(RejectionKind::QuotaExhausted, now());
    let (exact, family) = (block.clone().exactly("gpt-5".to_owned()), block.model("gpt-5".to_owned()));
    let counts = |block: &Block| ["GPT-5", "gpt-5-mini"].map(|model| block.counts_for(Some(model)));

    assert_eq!((counts(&exact), counts(&family)), ([true, false], [true, true]));
}

#[test]
fn a_reading_at_the_time_of_the_block_does_not_end_it() {
    let after = |seconds| {
        let at = now() + SignedDuration::from_secs(seconds);
        let given = Given::read_at("a", at, [five_hour(50.0)]);
        let named = Block::new(RejectionKind::QuotaExhausted, now()).window(WindowId::five_hour());
        let unnamed = Block::new(RejectionKind::QuotaExhausted, now());
        [named, unnamed].map(|block| block.is_refuted(&given.snapshot))
    };

    assert_eq!((after(0), after(1)), ([false; 2], [true; 2]));
}

#[test]
fn headers_after_a_block_do_not_end_it_without_a_complete_response() {
    let mut given = Given::read_at("a", now(), [five_hour(0.0)]);
    given.snapshot.join(&Snapshot::of(&UsageReport::from_headers([five_hour(50.0)]), minutes(1)));

    assert!(!Block::new(RejectionKind::QuotaExhausted, now()).is_refuted(&given.snapshot));
}

#[test]
fn an_unreadable_window_of_a_model_keeps_no_block_of_the_whole_account() {
    let usage = UsageReport::polled([five_hour(50.0)]).coverage(Coverage::complete_except([opus()]));

    let snapshot = Snapshot::of(&usage, minutes(1));

    assert!(Block::new(RejectionKind::QuotaExhausted, now()).is_refuted(&snapshot));
    assert!(!Block::new(RejectionKind::QuotaExhausted, now()).model("opus".to_owned()).is_refuted(&snapshot));
}

#[test]
fn an_unreadable_window_of_another_model_keeps_no_block_of_a_model() {
    let sonnet = WindowId::seven_day().for_model("Sonnet").unwrap();
    let usage = UsageReport::polled([opus_week(50.0)]).coverage(Coverage::complete_except([sonnet]));

    let snapshot = Snapshot::of(&usage, minutes(1));

    assert!(Block::new(RejectionKind::QuotaExhausted, now()).model("opus".to_owned()).is_refuted(&snapshot));
}

#[test]
fn only_the_requested_window_can_be_unread() {
    let usage =
        UsageReport::polled([five_hour(50.0)]).coverage(Coverage::complete_except([WindowId::seven_day()]));
    let snapshot = Snapshot::of(&usage, now());
    let unread = |only: &str| {
        let request = Request::new().with_only_window(only);
        request.first_unread(&Limits::none(), &snapshot).cloned()
    };

    assert_eq!((unread("five_hour"), unread("seven_day")), (None, Some(WindowId::seven_day())));
}

#[test]
fn a_stale_window_is_reported_as_the_unknown_one() {
    let window = WindowReading::new(WindowId::five_hour(), percent(50.0));
    let given = Given::read_at("a", hours(-1), [window]);

    let decision = decide(&[given], &Request::new(), &RoutingPolicy::default());

    let account = &decision.accounts()[0];
    assert_eq!((account.reason, &account.window), (Reason::UnknownAllowed, &Some(WindowId::five_hour())));
}

#[test]
fn the_hash_of_a_session_name_is_the_same_in_every_version() {
    assert_eq!(Session::of("a").bits(), 0x02c0_bdbf_4814_20f8);
}

#[test]
fn blocks_are_about_the_same_if_all_their_limits_are() {
    let block = || Block::new(RejectionKind::QuotaExhausted, now());
    let others = [
        Block::new(RejectionKind::Throttled, now()),
        block().model("opus".to_owned()),
        block().window(WindowId::five_hour()),
        block().fingerprint(CredentialFingerprint::from_hash(1)),
        block().login_id(LoginId::new("a")),
    ];

    assert!(block().is_about(&Block::new(RejectionKind::QuotaExhausted, hours(1))));
    assert!(others.iter().all(|other| !block().is_about(other)));
}

#[test]
fn the_awaited_account_is_reported() {
    let own = Given::new("b", [with_left(WindowId::five_hour(), 0.0, minutes(2))]).session_account();
    let given = [Given::new("main", [five_hour(90.0)]), own];
    let policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);

    let decision = decide(&given, &Request::new().with_session("s"), &policy);

    assert_eq!(decision.awaited().unwrap().account, given[1].id);
    assert_eq!([0, 1].map(|index| decision.disposition(index)), [Disposition::Standby, Disposition::Awaited]);
}

#[test]
fn every_account_has_a_line() {
    let given = [Given::new("main", [five_hour(90.0)]), Given::new("b", [five_hour(0.0)])];

    let text = decide(&given, &Request::new(), &RoutingPolicy::default()).to_string();

    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_part_of_a_second_counts_as_a_whole_one() {
    let waits = [0, 1, 1000, 1001].map(|ms| whole_seconds(Duration::from_millis(ms)));

    assert_eq!(waits, [0, 1, 1, 2]);
}

#[test]
fn the_headroom_is_what_remains_above_the_killswitch() {
    let given = Given::new("a", [five_hour(50.0)]);
    let policy = RoutingPolicy::default().killswitch(left(20.0));

    let of = |window| headroom(&candidate(&given, Role::Main), &window, now(), &policy);

    assert_eq!((of(WindowId::five_hour()), of(WindowId::seven_day())), (Some(3000), None));
}

#[test]
fn the_limits_of_an_account_are_those_that_were_set() {
    let own = AccountLimits::none().min_remaining(left(7.0)).killswitch(left(3.0));

    assert_eq!((own.min_remaining, own.killswitch), (Some(left(7.0)), Some(left(3.0))));
    assert_eq!(left(7.0).default_limit(), Some(percent(7.0)));
    assert_eq!(Limits::none().default_limit(), None::<Percent>);
}

#[test]
fn the_settings_of_the_policy_are_those_that_were_set() {
    let second = Duration::from_secs(1);
    let policy = RoutingPolicy::default()
        .fallback_on(vec![429])
        .max_session_wait(second)
        .route_timeout(second * 2)
        .reservation_timeout(second * 3)
        .sessions(second * 4, 5);

    assert_eq!(policy.fallback_on, [429]);
    assert_eq!([policy.max_session_wait, policy.route_timeout], [second, second * 2]);
    assert_eq!([policy.reservation_timeout, policy.session_ttl], [second * 3, second * 4]);
    assert_eq!(policy.max_sessions, 5);
}
