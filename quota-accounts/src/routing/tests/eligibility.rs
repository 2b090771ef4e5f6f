//! Whether one account may serve.

use jiff::Timestamp;
use quota_core::model::{Coverage, CredentialFingerprint, Scope};
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Snapshot, UsageReport, WindowId, WindowReading};

use super::support::*;
use crate::routing::{Block, Eligibility, Reason};
use crate::{AccountLimits, Decision, Limits, Request, RoutingPolicy, UnknownUsage};

fn plain() -> (Request, RoutingPolicy) {
    (Request::new(), RoutingPolicy::default())
}

fn for_opus() -> Request {
    Request::new().with_model("claude-opus-4-5")
}

fn closed() -> RoutingPolicy {
    RoutingPolicy::default().when_unknown(UnknownUsage::Deny)
}

#[test]
fn an_account_with_room_in_every_window_is_open() {
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [five_hour(50.0), seven_day(10.0)]), &request, &policy);

    assert_eq!((verdict.eligibility, verdict.reason), (Eligibility::Eligible, Reason::Available));
}

#[test]
fn an_account_with_nothing_left_of_one_window_is_refused_until_its_reset() {
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [five_hour(0.0), seven_day(10.0)]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(hours(2))));
}

#[test]
fn the_killswitch_lets_pass_what_is_exactly_at_it() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));

    let at = verdict(Given::new("a", [five_hour(5.0)]), &Request::new(), &policy);
    let below = verdict(Given::new("a", [five_hour(4.99)]), &Request::new(), &policy);

    assert_eq!((at.eligibility, below.reason), (Eligibility::Eligible, Reason::BelowKillswitch));
}

#[test]
fn the_killswitch_stops_a_model_that_is_exactly_at_it() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let reason = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

    assert_eq!(
        [5.01, 5.0, 4.99].map(reason),
        [Reason::Available, Reason::BelowKillswitch, Reason::BelowKillswitch]
    );
}

#[test]
fn the_minimum_lets_pass_an_account_that_is_exactly_at_it_and_not_a_model() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0));
    let account = |left| verdict(Given::new("a", [five_hour(left)]), &for_opus(), &policy).reason;
    let model = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

    assert_eq!([20.0, 19.99].map(account), [Reason::Available, Reason::BelowMinimum]);
    assert_eq!([20.01, 20.0].map(model), [Reason::Available, Reason::BelowMinimum]);
}

#[test]
fn a_model_of_which_nothing_need_be_left_is_open_to_its_last_share() {
    for policy in
        [RoutingPolicy::default(), RoutingPolicy::default().killswitch(left(0.0)).min_remaining(left(0.0))]
    {
        let reason = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

        assert_eq!([0.01, 0.0].map(reason), [Reason::Available, Reason::Exhausted]);
    }
}

#[test]
fn a_limit_that_names_a_models_window_stops_that_model_at_it() {
    let policy = RoutingPolicy::default().killswitch(Limits::of(percent(1.0)).window(opus(), percent(10.0)));
    let account = Given::new("a", [five_hour(1.0), opus_week(10.0)]);

    let opus = verdict(account.clone(), &for_opus(), &policy);
    let other = verdict(account, &Request::new().with_model("claude-sonnet-4-5"), &policy);

    assert_eq!((opus.reason, other.reason), (Reason::BelowKillswitch, Reason::Available));
}

#[test]
fn a_model_with_nothing_left_is_blocked_where_nothing_need_be_left() {
    let policy = RoutingPolicy::default().killswitch(left(0.0));

    let verdict = verdict(Given::new("a", [opus_week(0.0)]), &for_opus(), &policy);

    assert_eq!(verdict.reason, Reason::Exhausted);
}

#[test]
fn an_exhausted_models_window_blocks_that_model_and_no_other() {
    let account = Given::new("a", [five_hour(50.0), opus_week(0.0)]);
    let policy = RoutingPolicy::default().when_unknown(UnknownUsage::Allow);

    let opus = verdict(account.clone(), &for_opus(), &policy);
    let sonnet = verdict(account.clone(), &Request::new().with_model("claude-sonnet-4-5"), &policy);
    let unnamed = verdict(account, &Request::new(), &policy);

    assert_eq!(
        (opus.eligibility, sonnet.eligibility, unnamed.eligibility),
        (Eligibility::Ineligible, Eligibility::Eligible, Eligibility::Eligible)
    );
}

#[test]
fn between_the_killswitch_and_the_minimum_an_account_is_low_and_not_killed() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0)).killswitch(left(5.0));

    let verdict = verdict(Given::new("a", [five_hour(10.0)]), &Request::new(), &policy);

    assert_eq!((verdict.eligibility, verdict.reason), (Eligibility::LastResort, Reason::BelowMinimum));
}

#[test]
fn an_account_has_limits_of_its_own() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let mut account = Given::new("a", [five_hour(30.0)]);
    account.limits = AccountLimits::none().killswitch(left(40.0));

    assert_eq!(verdict(account, &Request::new(), &policy).reason, Reason::BelowKillswitch);
}

#[test]
fn a_limit_for_one_window_leaves_the_others_alone() {
    let policy =
        RoutingPolicy::default().killswitch(Limits::none().window(WindowId::seven_day(), percent(30.0)));

    let short = verdict(Given::new("a", [five_hour(20.0), seven_day(50.0)]), &Request::new(), &policy);
    let long = verdict(Given::new("a", [five_hour(50.0), seven_day(20.0)]), &Request::new(), &policy);

    assert_eq!((short.eligibility, long.reason), (Eligibility::Eligible, Reason::BelowKillswitch));
}

#[test]
fn an_old_reading_is_a_lower_bound_so_what_was_exhausted_still_is() {
    let (request, policy) = plain();

    let verdict = verdict(Given::read_at("a", hours(-2), [five_hour(0.0)]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(hours(2))));
}

#[test]
fn after_its_reset_a_window_is_neither_empty_nor_full() {
    let (request, policy) = plain();
    let rolled = with_left(WindowId::five_hour(), 0.0, minutes(-5));
    let account = Given::read_at("a", hours(-1), [rolled, seven_day(50.0)]);

    let open = verdict(account.clone(), &request, &policy);
    let shut = verdict(account, &request, &closed());

    assert_eq!((open.eligibility, open.reason), (Eligibility::Eligible, Reason::UnknownAllowed));
    assert_eq!((shut.eligibility, shut.reason), (Eligibility::Ineligible, Reason::UnknownDenied));
}

#[test]
fn an_account_that_was_never_read_is_used_only_where_the_policy_is_open() {
    let account = Given::new("a", []);

    assert_eq!(
        verdict(account.clone(), &Request::new(), &RoutingPolicy::default()).reason,
        Reason::UnknownAllowed
    );
    assert_eq!(verdict(account, &Request::new(), &closed()).reason, Reason::UnknownDenied);
}

/// An account whose last complete answer held these windows, and another one that could not be read.
fn with_unreadable(id: WindowId, readings: impl IntoIterator<Item = WindowReading>) -> Given {
    let mut given = Given::new("a", []);
    let usage = UsageReport::polled(readings).coverage(Coverage::complete_except([id]));
    given.snapshot = Snapshot::of(&usage, minutes(-1));
    given
}

/// An account of which only response headers have said anything.
fn from_headers(readings: impl IntoIterator<Item = WindowReading>) -> Given {
    let mut given = Given::new("a", []);
    given.snapshot = Snapshot::of(&UsageReport::from_headers(readings), minutes(-1));
    given
}

#[test]
fn limits_apply_to_the_requests_that_their_windows_count() {
    let every = Limits::of(percent(5.0));
    let week = || Limits::none().window(WindowId::seven_day(), percent(5.0));
    let fable_id = || WindowId::seven_day().for_model("Fable").unwrap();
    let fable = || Limits::of(percent(1.0)).window(fable_id(), percent(5.0));
    let fable_week = |left| with_left(fable_id(), left, hours(96)).scope(Scope::model("Fable"));
    let for_fable = Request::new().with_model("claude-fable-1");
    let for_any = Request::new();
    let (passes, killed, unknown) = (Reason::Available, Reason::BelowKillswitch, Reason::UnknownDenied);

    let table = [
        (
            "a complete answer without a model's window",
            fable(),
            Given::new("a", [five_hour(50.0)]),
            passes,
            passes,
        ),
        (
            "a complete answer without a limited window",
            week(),
            Given::new("a", [five_hour(50.0)]),
            passes,
            passes,
        ),
        (
            "a model's window below its limit",
            fable(),
            Given::new("a", [five_hour(50.0), fable_week(3.0)]),
            killed,
            passes,
        ),
        ("headers, which name no model's window", fable(), from_headers([five_hour(50.0)]), unknown, passes),
        ("headers without a limited window", week(), from_headers([five_hour(50.0)]), unknown, unknown),
        (
            "an unreadable window without a limit",
            Limits::none(),
            with_unreadable(WindowId::seven_day(), [five_hour(50.0)]),
            unknown,
            unknown,
        ),
        (
            "an unreadable window, one limit for all",
            every.clone(),
            with_unreadable(WindowId::seven_day(), [five_hour(50.0)]),
            unknown,
            unknown,
        ),
        (
            "an unreadable window with its own limit",
            week(),
            with_unreadable(WindowId::seven_day(), [five_hour(50.0)]),
            unknown,
            unknown,
        ),
        (
            "an unreadable window of a model",
            every.clone(),
            with_unreadable(fable_id(), [five_hour(50.0)]),
            unknown,
            passes,
        ),
        (
            "one window below, the other unreadable",
            every,
            with_unreadable(WindowId::seven_day(), [five_hour(3.0)]),
            killed,
            killed,
        ),
    ];

    for (name, limits, given, of_fable, of_any) in table {
        let policy = closed().killswitch(limits.clone());
        assert_eq!(verdict(given.clone(), &for_fable, &policy).reason, of_fable, "{name}, fable");
        assert_eq!(verdict(given.clone(), &for_any, &policy).reason, of_any, "{name}");
        let open = RoutingPolicy::default().killswitch(limits);
        let expected = if of_any == unknown { Reason::UnknownAllowed } else { of_any };
        assert_eq!(verdict(given, &for_any, &open).reason, expected, "{name}, unknown use allowed");
    }
}

#[test]
fn a_minimum_applies_as_a_killswitch_does() {
    let fable = WindowId::seven_day().for_model("Fable").unwrap();
    let policy = closed().min_remaining(Limits::none().window(fable, percent(5.0)));
    let for_fable = Request::new().with_model("claude-fable-1");
    let reason = |given, request| verdict(given, request, &policy).reason;

    assert_eq!(reason(Given::new("a", [five_hour(50.0)]), &for_fable), Reason::Available);
    assert_eq!(reason(from_headers([five_hour(50.0)]), &for_fable), Reason::UnknownDenied);
    assert_eq!(reason(from_headers([five_hour(50.0)]), &for_opus()), Reason::Available);
}

#[test]
fn a_use_that_is_no_number_is_unknown() {
    assert_eq!(Percent::from_percent(f64::NAN), None, "no window can have it, so it is unreadable");
}

#[test]
fn an_account_whose_owner_is_unknown_is_blocked_where_the_policy_is_closed() {
    let mut account = Given::new("a", []);
    account.has_unknown_owner = true;

    assert_eq!(verdict(account, &Request::new(), &closed()).reason, Reason::OwnerUnknown);
}

#[test]
fn restrictions_stay_while_the_owner_is_unknown() {
    let mut account =
        Given::new("a", []).blocked(Block::new(RejectionKind::QuotaExhausted, minutes(-1)).until(hours(1)));
    account.has_unknown_owner = true;

    assert_eq!(verdict(account, &Request::new(), &RoutingPolicy::default()).reason, Reason::QuotaExhausted);
}

#[test]
fn what_is_spent_or_killed_stays_so_while_the_owner_is_unknown_and_room_is_not_believed() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let without_owner = |left| {
        let mut account = Given::new("a", [five_hour(left)]);
        account.has_unknown_owner = true;
        account
    };

    let rules = [0.0, 3.0, 50.0].map(|left| verdict(without_owner(left), &Request::new(), &policy).reason);

    assert_eq!(rules, [Reason::Exhausted, Reason::BelowKillswitch, Reason::UnknownAllowed]);
    let given = [without_owner(50.0)];
    let decision = decide(&given, &Request::new(), &policy);
    assert_eq!(decision.accounts()[0].windows.len(), 0, "what is withheld is not shown");
}

#[test]
fn what_is_switched_off_is_refused_whatever_it_has_left() {
    let (request, policy) = plain();

    assert_eq!(
        verdict(Given::new("a", [five_hour(90.0)]).disabled(), &request, &policy).reason,
        Reason::Disabled
    );
}

#[test]
fn a_block_of_one_model_leaves_the_others_alone() {
    let block = Block::new(RejectionKind::QuotaExhausted, minutes(-1))
        .until(hours(90))
        .model("claude-opus-4-5".to_owned());
    let account = Given::new("a", [five_hour(50.0)]).blocked(block);
    let policy = RoutingPolicy::default();

    let opus = verdict(account.clone(), &for_opus(), &policy);
    let sonnet = verdict(account, &Request::new().with_model("claude-sonnet-4-5"), &policy);

    assert_eq!((opus.reason, sonnet.eligibility), (Reason::QuotaExhausted, Eligibility::Eligible));
}

#[test]
fn a_block_ends_at_its_time() {
    let block = |until| Block::new(RejectionKind::Throttled, minutes(-1)).until(until);
    let (request, policy) = plain();

    let over = verdict(Given::new("a", [five_hour(50.0)]).blocked(block(now())), &request, &policy);
    let live = verdict(Given::new("a", [five_hour(50.0)]).blocked(block(minutes(1))), &request, &policy);

    assert_eq!((over.eligibility, live.reason), (Eligibility::Eligible, Reason::Throttled));
}

#[test]
fn a_later_reading_with_room_ends_a_spent_quota() {
    let block = |since| {
        Block::new(RejectionKind::QuotaExhausted, since).until(hours(2)).window(WindowId::five_hour())
    };
    let (request, policy) = plain();

    let refuted = Given::new("a", [five_hour(60.0)]).blocked(block(minutes(-2)));
    let stands = Given::new("a", [five_hour(60.0)]).blocked(block(minutes(0)));

    assert_eq!(verdict(refuted, &request, &policy).eligibility, Eligibility::Eligible);
    assert_eq!(verdict(stands, &request, &policy).reason, Reason::QuotaExhausted);
}

#[test]
fn a_later_complete_reading_with_room_ends_a_block_that_names_no_window() {
    let block = |since: Timestamp| Block::new(RejectionKind::QuotaExhausted, since).until(hours(100));
    let blocked = |given: Given, since| given.blocked(block(since));
    let room = || Given::new("a", [five_hour(60.0), seven_day(10.0), opus_week(0.0)]);
    let reason = |given| verdict(given, &Request::new(), &RoutingPolicy::default()).reason;

    assert_eq!(reason(blocked(room(), minutes(-2))), Reason::Available);
    assert_eq!(reason(blocked(room(), minutes(-1))), Reason::QuotaExhausted, "the reading is not later");
    assert_eq!(
        reason(blocked(from_headers([five_hour(60.0), seven_day(10.0)]), minutes(-2))),
        Reason::QuotaExhausted
    );
    let unread = with_unreadable(WindowId::seven_day(), [five_hour(60.0)]);
    assert_eq!(
        reason(blocked(unread, minutes(-2))),
        Reason::QuotaExhausted,
        "it may be about the unreadable window"
    );
    let full = Given::new("a", [five_hour(60.0), seven_day(0.0)]);
    assert_eq!(reason(blocked(full, minutes(-2))), Reason::QuotaExhausted);
    assert_eq!(reason(blocked(Given::new("a", []), minutes(-2))), Reason::QuotaExhausted);
}

#[test]
fn a_line_above_a_later_reading_with_room_does_not_bring_a_block_back() {
    let now_used = |used| {
        let reading = WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(hours(2));
        Snapshot::of(&UsageReport::from_statusline([reading], now()), now())
    };
    let block = || Block::new(RejectionKind::QuotaExhausted, minutes(-2)).until(hours(2));
    let reason = |block: Block, used| {
        let mut given = Given::new("a", [five_hour(60.0)]);
        given.snapshot.join(&now_used(used));
        verdict(given.blocked(block), &Request::new(), &RoutingPolicy::default()).reason
    };

    for block in [block(), block().window(WindowId::five_hour())] {
        assert_eq!(reason(block.clone(), 41.0), Reason::Available);
        assert_eq!(reason(block, 100.0), Reason::QuotaExhausted);
    }
}

#[test]
fn a_block_of_a_model_without_a_window_ends_by_a_window_of_that_model_alone() {
    let block = Block::new(RejectionKind::QuotaExhausted, minutes(-2)).until(hours(20));
    let block = block.exactly("claude-opus-4-5".to_owned());
    let reason =
        |given: Given| verdict(given.blocked(block.clone()), &for_opus(), &RoutingPolicy::default()).reason;

    assert_eq!(reason(Given::new("a", [five_hour(60.0)])), Reason::QuotaExhausted);
    assert_eq!(reason(Given::new("a", [five_hour(60.0), opus_week(5.0)])), Reason::Available);
}

#[test]
fn another_windows_healthy_reading_ends_nothing() {
    let block =
        Block::new(RejectionKind::QuotaExhausted, minutes(-2)).until(hours(2)).window(WindowId::seven_day());
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!(verdict.reason, Reason::QuotaExhausted);
}

#[test]
fn a_provider_that_is_overloaded_is_no_reason_to_avoid_the_account() {
    let block = Block::new(RejectionKind::Overloaded, minutes(-1)).until(hours(2));
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!(verdict.eligibility, Eligibility::Eligible);
}

#[test]
fn a_dead_login_is_refused_without_an_end() {
    let block =
        Block::new(RejectionKind::Unauthorized, minutes(-1)).fingerprint(CredentialFingerprint::from_hash(1));
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::LoginRejected, None));
}

#[test]
fn what_is_reserved_by_others_counts_as_used() {
    let mut account = Given::new("a", [five_hour(3.0)]);
    account.reserved = vec![(WindowId::five_hour(), percent(2.0))];
    let request = |share| Request::new().with_estimate(WindowId::five_hour(), percent(share));
    let policy = RoutingPolicy::default();

    let fits = verdict(account.clone(), &request(1.0), &policy);
    let does_not = verdict(account, &request(1.5), &policy);

    assert_eq!((fits.eligibility, does_not.reason), (Eligibility::Eligible, Reason::Reserved));
}

#[test]
fn an_estimate_alone_excludes_no_account() {
    let request = Request::new().with_estimate(WindowId::five_hour(), percent(50.0));

    let verdict = verdict(Given::new("a", [five_hour(3.0)]), &request, &RoutingPolicy::default());

    assert_eq!(verdict.eligibility, Eligibility::Eligible);
}

#[test]
fn a_decision_tells_every_reading_with_its_age() {
    let given = [Given::new("a", [five_hour(50.0)])];
    let (request, policy) = plain();

    let decision = decide(&given, &request, &policy);

    let reading = &decision.accounts()[0].windows[0];
    assert_eq!(reading.window.id(), &WindowId::five_hour());
    assert_eq!((reading.used.lower_bound(), reading.age.as_secs()), (Some(percent(50.0)), 60));
}

#[test]
fn a_decision_names_the_window_that_refused() {
    let given = [Given::new("a", [five_hour(50.0), seven_day(0.0)])];
    let (request, policy) = plain();

    let decision = decide(&given, &request, &policy);

    assert_eq!(decision.accounts()[0].window, Some(WindowId::seven_day()));
}

#[test]
fn a_spent_window_without_a_reset_is_believed_as_long_as_it_is_fresh() {
    let spent = WindowReading::new(WindowId::five_hour(), percent(100.0));
    let (request, policy) = plain();

    let verdict = verdict(Given::new("a", [spent]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(minutes(4))));
}

#[test]
fn a_decision_states_the_limit_that_is_broken_and_the_window_that_is_unread() {
    let policy = RoutingPolicy::default()
        .min_remaining(Limits::of(percent(20.0)))
        .killswitch(Limits::none().window(WindowId::seven_day(), percent(5.0)))
        .when_unknown(UnknownUsage::Deny);
    let accounts = [Given::new("low", [five_hour(10.0), seven_day(90.0)]), from_headers([five_hour(90.0)])];

    let decision = decide(&accounts, &Request::new(), &policy);

    let found = |at: usize| {
        let evaluated = &decision.accounts()[at];
        (evaluated.reason, evaluated.limit, evaluated.window.clone(), evaluated.window_usage().is_some())
    };
    assert_eq!(found(0), (Reason::BelowMinimum, Some(percent(20.0)), Some(WindowId::five_hour()), true));
    assert_eq!(found(1), (Reason::UnknownDenied, None, Some(WindowId::seven_day()), false));
}

/// The windows of a decision that shows everything there is to show.
fn shown() -> Decision {
    let policy = RoutingPolicy::default()
        .min_remaining(left(20.0))
        .killswitch(Limits::none().window(WindowId::seven_day(), percent(5.0)))
        .when_unknown(UnknownUsage::Deny);
    let accounts = [
        Given::new("main", [seven_day(90.0), five_hour(0.0)]),
        Given::new("low", [five_hour(10.0), seven_day(90.0), opus_week(50.0)]),
        Given::new("work", [five_hour(50.0), seven_day(50.0)]),
        Given::new("off", [five_hour(50.0)]).disabled(),
        Given::new("unread", []),
    ];
    decide(&accounts, &Request::new(), &policy)
}

#[test]
fn a_decision_is_printed_with_a_line_for_each_account() {
    insta::assert_snapshot!(shown());
}

#[test]
fn a_decision_is_serialized_in_this_form() {
    insta::assert_json_snapshot!(shown());
}

#[test]
fn a_stale_reading_proves_only_that_too_little_remains() {
    let policy = RoutingPolicy::default().killswitch(left(10.0)).when_unknown(UnknownUsage::DenyStale);
    let stale = |left| Given::read_at("a", minutes(-6), [five_hour(left)]);
    let reason = |given| verdict(given, &Request::new(), &policy).reason;

    assert_eq!(reason(stale(50.0)), Reason::UnknownDenied);
    assert_eq!(reason(stale(5.0)), Reason::BelowKillswitch);
    assert_eq!(reason(Given::new("a", [five_hour(50.0)])), Reason::Available);
    assert_eq!(reason(Given::new("a", [opus_week(50.0)])), Reason::UnknownDenied, "no window counts");
}

#[test]
fn only_the_window_of_a_restricted_request_counts() {
    let account = || Given::new("a", [five_hour(0.0), seven_day(50.0)]);
    let reason = |window| {
        let request = Request::new().with_only_window(window);
        verdict(account(), &request, &RoutingPolicy::default()).reason
    };

    assert_eq!(reason("five_hour"), Reason::Exhausted);
    assert_eq!(reason("seven_day"), Reason::Available);
}
