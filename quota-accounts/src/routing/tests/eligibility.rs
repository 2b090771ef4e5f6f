//! Whether one account may serve a request.

use jiff::Timestamp;
use quota_core::model::{Coverage, CredentialFingerprint, Scope};
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Snapshot, UsageReport, WindowId, WindowReading};

use super::support::*;
use crate::routing::{Block, Eligibility, Reason};
use crate::{AccountLimits, Decision, Limits, Request, RoutingPolicy, UnknownUsage};

fn defaults() -> (Request, RoutingPolicy) {
    (Request::new(), RoutingPolicy::default())
}

fn for_opus() -> Request {
    Request::new().with_model("claude-opus-4-5")
}

fn deny_unknown() -> RoutingPolicy {
    RoutingPolicy::default().when_unknown(UnknownUsage::Deny)
}

#[test]
fn an_account_with_capacity_in_every_window_is_eligible() {
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [five_hour(50.0), seven_day(10.0)]), &request, &policy);

    assert_eq!((verdict.eligibility, verdict.reason), (Eligibility::Eligible, Reason::Available));
}

#[test]
fn an_account_with_an_exhausted_window_is_excluded_until_its_reset() {
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [five_hour(0.0), seven_day(10.0)]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(hours(2))));
}

#[test]
fn an_account_exactly_at_its_killswitch_passes() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));

    let at = verdict(Given::new("a", [five_hour(5.0)]), &Request::new(), &policy);
    let below = verdict(Given::new("a", [five_hour(4.99)]), &Request::new(), &policy);

    assert_eq!((at.eligibility, below.reason), (Eligibility::Eligible, Reason::BelowKillswitch));
}

#[test]
fn a_model_exactly_at_the_killswitch_is_excluded() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let reason = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

    assert_eq!(
        [5.01, 5.0, 4.99].map(reason),
        [Reason::Available, Reason::BelowKillswitch, Reason::BelowKillswitch]
    );
}

#[test]
fn exactly_at_the_minimum_an_account_passes_and_a_model_does_not() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0));
    let account = |left| verdict(Given::new("a", [five_hour(left)]), &for_opus(), &policy).reason;
    let model = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

    assert_eq!([20.0, 19.99].map(account), [Reason::Available, Reason::BelowMinimum]);
    assert_eq!([20.01, 20.0].map(model), [Reason::Available, Reason::BelowMinimum]);
}

#[test]
fn a_model_without_a_limit_is_available_until_exhausted() {
    for policy in
        [RoutingPolicy::default(), RoutingPolicy::default().killswitch(left(0.0)).min_remaining(left(0.0))]
    {
        let reason = |left| verdict(Given::new("a", [opus_week(left)]), &for_opus(), &policy).reason;

        assert_eq!([0.01, 0.0].map(reason), [Reason::Available, Reason::Exhausted]);
    }
}

#[test]
fn a_limit_of_a_models_window_excludes_only_that_model() {
    let policy = RoutingPolicy::default().killswitch(Limits::of(percent(1.0)).window(opus(), percent(10.0)));
    let account = Given::new("a", [five_hour(1.0), opus_week(10.0)]);

    let opus = verdict(account.clone(), &for_opus(), &policy);
    let other = verdict(account, &Request::new().with_model("claude-sonnet-4-5"), &policy);

    assert_eq!((opus.reason, other.reason), (Reason::BelowKillswitch, Reason::Available));
}

#[test]
fn an_exhausted_model_is_excluded_even_with_a_limit_of_zero() {
    let policy = RoutingPolicy::default().killswitch(left(0.0));

    let verdict = verdict(Given::new("a", [opus_week(0.0)]), &for_opus(), &policy);

    assert_eq!(verdict.reason, Reason::Exhausted);
}

#[test]
fn an_exhausted_models_window_excludes_only_that_model() {
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
fn between_killswitch_and_minimum_an_account_is_a_last_resort() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0)).killswitch(left(5.0));

    let verdict = verdict(Given::new("a", [five_hour(10.0)]), &Request::new(), &policy);

    assert_eq!((verdict.eligibility, verdict.reason), (Eligibility::LastResort, Reason::BelowMinimum));
}

#[test]
fn the_limits_of_an_account_replace_those_of_the_policy() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let mut account = Given::new("a", [five_hour(30.0)]);
    account.limits = AccountLimits::none().killswitch(left(40.0));

    assert_eq!(verdict(account, &Request::new(), &policy).reason, Reason::BelowKillswitch);
}

#[test]
fn a_limit_of_one_window_does_not_affect_the_others() {
    let policy =
        RoutingPolicy::default().killswitch(Limits::none().window(WindowId::seven_day(), percent(30.0)));

    let short = verdict(Given::new("a", [five_hour(20.0), seven_day(50.0)]), &Request::new(), &policy);
    let long = verdict(Given::new("a", [five_hour(50.0), seven_day(20.0)]), &Request::new(), &policy);

    assert_eq!((short.eligibility, long.reason), (Eligibility::Eligible, Reason::BelowKillswitch));
}

#[test]
fn a_stale_reading_of_an_exhausted_window_still_excludes() {
    let (request, policy) = defaults();

    let verdict = verdict(Given::read_at("a", hours(-2), [five_hour(0.0)]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(hours(2))));
}

#[test]
fn a_window_is_unknown_after_its_reset() {
    let (request, policy) = defaults();
    let rolled = with_left(WindowId::five_hour(), 0.0, minutes(-5));
    let account = Given::read_at("a", hours(-1), [rolled, seven_day(50.0)]);

    let allowed = verdict(account.clone(), &request, &policy);
    let denied = verdict(account, &request, &deny_unknown());

    assert_eq!((allowed.eligibility, allowed.reason), (Eligibility::Eligible, Reason::UnknownAllowed));
    assert_eq!((denied.eligibility, denied.reason), (Eligibility::Ineligible, Reason::UnknownDenied));
}

#[test]
fn an_account_without_readings_needs_a_policy_that_allows_it() {
    let account = Given::new("a", []);

    assert_eq!(
        verdict(account.clone(), &Request::new(), &RoutingPolicy::default()).reason,
        Reason::UnknownAllowed
    );
    assert_eq!(verdict(account, &Request::new(), &deny_unknown()).reason, Reason::UnknownDenied);
}

/// An account whose last complete response had these windows, and one that the parser could not read.
fn with_unreadable(id: WindowId, readings: impl IntoIterator<Item = WindowReading>) -> Given {
    let mut given = Given::new("a", []);
    let usage = UsageReport::polled(readings).coverage(Coverage::complete_except([id]));
    given.snapshot = Snapshot::of(&usage, minutes(-1));
    given
}

/// An account with readings from response headers only.
fn from_headers(readings: impl IntoIterator<Item = WindowReading>) -> Given {
    let mut given = Given::new("a", []);
    given.snapshot = Snapshot::of(&UsageReport::from_headers(readings), minutes(-1));
    given
}

#[test]
fn limits_apply_to_requests_that_count_against_their_windows() {
    let every = Limits::of(percent(5.0));
    let week = || Limits::none().window(WindowId::seven_day(), percent(5.0));
    let fable_id = || WindowId::seven_day().for_model("Fable").unwrap();
    let fable = || Limits::of(percent(1.0)).window(fable_id(), percent(5.0));
    let fable_week = |left| with_left(fable_id(), left, hours(96)).scope(Scope::model("Fable"));
    let for_fable = Request::new().with_model("claude-fable-1");
    let for_any = Request::new();
    let (passes, below, unknown) = (Reason::Available, Reason::BelowKillswitch, Reason::UnknownDenied);

    let table = [
        (
            "a complete response without a model's window",
            fable(),
            Given::new("a", [five_hour(50.0)]),
            passes,
            passes,
        ),
        (
            "a complete response without a limited window",
            week(),
            Given::new("a", [five_hour(50.0)]),
            passes,
            passes,
        ),
        (
            "a model's window below its limit",
            fable(),
            Given::new("a", [five_hour(50.0), fable_week(3.0)]),
            below,
            passes,
        ),
        ("headers, which list no model's window", fable(), from_headers([five_hour(50.0)]), unknown, passes),
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
            below,
            below,
        ),
    ];

    for (name, limits, given, of_fable, of_any) in table {
        let policy = deny_unknown().killswitch(limits.clone());
        assert_eq!(verdict(given.clone(), &for_fable, &policy).reason, of_fable, "{name}, fable");
        assert_eq!(verdict(given.clone(), &for_any, &policy).reason, of_any, "{name}");
        let open = RoutingPolicy::default().killswitch(limits);
        let expected = if of_any == unknown { Reason::UnknownAllowed } else { of_any };
        assert_eq!(verdict(given, &for_any, &open).reason, expected, "{name}, unknown use allowed");
    }
}

#[test]
fn the_minimum_applies_like_the_killswitch() {
    let fable = WindowId::seven_day().for_model("Fable").unwrap();
    let policy = deny_unknown().min_remaining(Limits::none().window(fable, percent(5.0)));
    let for_fable = Request::new().with_model("claude-fable-1");
    let reason = |given, request| verdict(given, request, &policy).reason;

    assert_eq!(reason(Given::new("a", [five_hour(50.0)]), &for_fable), Reason::Available);
    assert_eq!(reason(from_headers([five_hour(50.0)]), &for_fable), Reason::UnknownDenied);
    assert_eq!(reason(from_headers([five_hour(50.0)]), &for_opus()), Reason::Available);
}

#[test]
fn nan_is_not_a_percentage() {
    assert_eq!(Percent::from_percent(f64::NAN), None, "a window with it is unreadable");
}

#[test]
fn an_unknown_owner_excludes_if_the_policy_denies_unknown() {
    let mut account = Given::new("a", []);
    account.has_unknown_owner = true;

    assert_eq!(verdict(account, &Request::new(), &deny_unknown()).reason, Reason::OwnerUnknown);
}

#[test]
fn a_block_counts_while_the_owner_is_unknown() {
    let mut account =
        Given::new("a", []).blocked(Block::new(RejectionKind::QuotaExhausted, minutes(-1)).until(hours(1)));
    account.has_unknown_owner = true;

    assert_eq!(verdict(account, &Request::new(), &RoutingPolicy::default()).reason, Reason::QuotaExhausted);
}

#[test]
fn readings_of_an_unknown_owner_can_only_exclude() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let without_owner = |left| {
        let mut account = Given::new("a", [five_hour(left)]);
        account.has_unknown_owner = true;
        account
    };

    let reasons = [0.0, 3.0, 50.0].map(|left| verdict(without_owner(left), &Request::new(), &policy).reason);

    assert_eq!(reasons, [Reason::Exhausted, Reason::BelowKillswitch, Reason::UnknownAllowed]);
    let given = [without_owner(50.0)];
    let decision = decide(&given, &Request::new(), &policy);
    assert_eq!(decision.accounts()[0].windows.len(), 0, "unattributed readings are not shown");
}

#[test]
fn a_disabled_account_is_excluded_whatever_remains() {
    let (request, policy) = defaults();

    assert_eq!(
        verdict(Given::new("a", [five_hour(90.0)]).disabled(), &request, &policy).reason,
        Reason::Disabled
    );
}

#[test]
fn a_block_of_one_model_does_not_affect_the_others() {
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
fn a_block_ends_at_its_end() {
    let block = |until| Block::new(RejectionKind::Throttled, minutes(-1)).until(until);
    let (request, policy) = defaults();

    let over = verdict(Given::new("a", [five_hour(50.0)]).blocked(block(now())), &request, &policy);
    let live = verdict(Given::new("a", [five_hour(50.0)]).blocked(block(minutes(1))), &request, &policy);

    assert_eq!((over.eligibility, live.reason), (Eligibility::Eligible, Reason::Throttled));
}

#[test]
fn a_later_reading_with_capacity_ends_a_quota_block() {
    let block = |since| {
        Block::new(RejectionKind::QuotaExhausted, since).until(hours(2)).window(WindowId::five_hour())
    };
    let (request, policy) = defaults();

    let refuted = Given::new("a", [five_hour(60.0)]).blocked(block(minutes(-2)));
    let counts = Given::new("a", [five_hour(60.0)]).blocked(block(minutes(0)));

    assert_eq!(verdict(refuted, &request, &policy).eligibility, Eligibility::Eligible);
    assert_eq!(verdict(counts, &request, &policy).reason, Reason::QuotaExhausted);
}

#[test]
fn a_later_complete_reading_ends_a_block_without_a_window() {
    let block = |since: Timestamp| Block::new(RejectionKind::QuotaExhausted, since).until(hours(100));
    let blocked = |given: Given, since| given.blocked(block(since));
    let available = || Given::new("a", [five_hour(60.0), seven_day(10.0), opus_week(0.0)]);
    let reason = |given| verdict(given, &Request::new(), &RoutingPolicy::default()).reason;

    assert_eq!(reason(blocked(available(), minutes(-2))), Reason::Available);
    assert_eq!(reason(blocked(available(), minutes(-1))), Reason::QuotaExhausted, "the reading is not later");
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
fn a_higher_statusline_reading_does_not_restore_a_block() {
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
fn only_a_models_own_window_ends_its_block_without_a_window() {
    let block = Block::new(RejectionKind::QuotaExhausted, minutes(-2)).until(hours(20));
    let block = block.exactly("claude-opus-4-5".to_owned());
    let reason =
        |given: Given| verdict(given.blocked(block.clone()), &for_opus(), &RoutingPolicy::default()).reason;

    assert_eq!(reason(Given::new("a", [five_hour(60.0)])), Reason::QuotaExhausted);
    assert_eq!(reason(Given::new("a", [five_hour(60.0), opus_week(5.0)])), Reason::Available);
}

#[test]
fn a_reading_of_another_window_does_not_end_a_block() {
    let block =
        Block::new(RejectionKind::QuotaExhausted, minutes(-2)).until(hours(2)).window(WindowId::seven_day());
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!(verdict.reason, Reason::QuotaExhausted);
}

#[test]
fn an_overloaded_provider_does_not_exclude_the_account() {
    let block = Block::new(RejectionKind::Overloaded, minutes(-1)).until(hours(2));
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!(verdict.eligibility, Eligibility::Eligible);
}

#[test]
fn a_rejected_login_is_excluded_without_an_end() {
    let block =
        Block::new(RejectionKind::Unauthorized, minutes(-1)).fingerprint(CredentialFingerprint::from_hash(1));
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [five_hour(60.0)]).blocked(block), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::LoginRejected, None));
}

#[test]
fn reservations_of_other_requests_count_as_used() {
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
fn a_decision_lists_every_reading_with_its_age() {
    let given = [Given::new("a", [five_hour(50.0)])];
    let (request, policy) = defaults();

    let decision = decide(&given, &request, &policy);

    let reading = &decision.accounts()[0].windows[0];
    assert_eq!(reading.window.id(), &WindowId::five_hour());
    assert_eq!((reading.used.lower_bound(), reading.age.as_secs()), (Some(percent(50.0)), 60));
}

#[test]
fn a_decision_names_the_window_that_excluded_the_account() {
    let given = [Given::new("a", [five_hour(50.0), seven_day(0.0)])];
    let (request, policy) = defaults();

    let decision = decide(&given, &request, &policy);

    assert_eq!(decision.accounts()[0].window, Some(WindowId::seven_day()));
}

#[test]
fn an_exhausted_window_without_a_reset_excludes_while_fresh() {
    let exhausted = WindowReading::new(WindowId::five_hour(), percent(100.0));
    let (request, policy) = defaults();

    let verdict = verdict(Given::new("a", [exhausted]), &request, &policy);

    assert_eq!((verdict.reason, verdict.retry_at), (Reason::Exhausted, Some(minutes(4))));
}

#[test]
fn a_decision_states_the_violated_limit_or_the_unread_window() {
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

/// A decision with every kind of account.
fn sample() -> Decision {
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
    insta::assert_snapshot!(sample());
}

#[test]
fn a_decision_is_serialized_in_this_form() {
    insta::assert_json_snapshot!(sample());
}

#[test]
fn deny_stale_accepts_stale_readings_only_as_exclusions() {
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
