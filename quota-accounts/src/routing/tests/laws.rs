//! Laws that hold for every choice.

use proptest::prelude::*;
use quota_core::WindowReading;
use quota_core::model::CredentialFingerprint;
use quota_core::provider::RejectionKind;

use super::support::*;
use crate::routing::{Block, Choice, Eligibility, Reason};
use crate::{AccountLimits, Limits, Request, RoutingMode, RoutingPolicy, UnknownUsage};

fn modes() -> impl Strategy<Value = RoutingMode> {
    prop_oneof![
        Just(RoutingMode::MainFirst),
        Just(RoutingMode::FallbackFirst),
        Just(RoutingMode::StickyBalanced),
        Just(RoutingMode::SoonestResetFirst),
    ]
}

fn policies() -> impl Strategy<Value = RoutingPolicy> {
    (modes(), 0u32..40, 0u32..20, any::<bool>()).prop_map(|(mode, min_remaining, killswitch, denies)| {
        let unknown = if denies { UnknownUsage::Deny } else { UnknownUsage::Allow };
        let limit = |whole: u32| Limits::of(percent(whole));
        RoutingPolicy::default()
            .mode(mode)
            .min_remaining(limit(min_remaining))
            .killswitch(limit(killswitch))
            .when_unknown(unknown)
    })
}

#[derive(Debug, Clone)]
struct Readings {
    five_hour: Option<(u32, i64)>,
    seven_day: Option<(u32, i64)>,
    opus: Option<u32>,
    age: i64,
}

impl Readings {
    fn windows(&self) -> Vec<WindowReading> {
        let window = |id, (left, reset): (u32, i64)| with_left(id, f64::from(left), minutes(reset));
        let mut windows = Vec::new();
        windows.extend(self.five_hour.map(|reading| window(quota_core::WindowId::five_hour(), reading)));
        windows.extend(self.seven_day.map(|reading| window(quota_core::WindowId::seven_day(), reading)));
        windows.extend(self.opus.map(|left| opus_week(f64::from(left))));
        windows
    }
}

fn readings() -> impl Strategy<Value = Readings> {
    let window = || proptest::option::of((0u32..=100, -30i64..300));
    (window(), window(), proptest::option::of(0u32..=100), 0i64..60)
        .prop_map(|(five_hour, seven_day, opus, age)| Readings { five_hour, seven_day, opus, age })
}

fn accounts() -> impl Strategy<Value = Vec<(Readings, u8)>> {
    proptest::collection::vec((readings(), 0u8..10), 1..6)
}

/// The share of the 5-hour window that requests in flight have reserved, in percent.
const RESERVED: u32 = 60;
/// The killswitch of an account with its own limits, in percent.
const OWN_KILLSWITCH: u32 = 25;

fn percent(whole: u32) -> quota_core::Percent {
    quota_core::Percent::from_basis_points(whole * 100)
}

fn given(accounts: &[(Readings, u8)]) -> Vec<Given> {
    let made = |(at, (readings, variant)): (usize, &(Readings, u8))| {
        let account = Given::read_at(&format!("a{at}"), minutes(-readings.age), readings.windows());
        match variant {
            0 => account.disabled(),
            1 => {
                // With a fingerprint, so that no later reading disproves it.
                account.blocked(
                    Block::new(RejectionKind::Unauthorized, minutes(-1))
                        .fingerprint(CredentialFingerprint::from_hash(1)),
                )
            }
            // As new as any reading, so that none disproves it.
            2 => account.blocked(Block::new(RejectionKind::QuotaExhausted, now()).until(minutes(1))),
            3 => account.session_account(),
            4 => Given { reserved: vec![(quota_core::WindowId::five_hour(), percent(RESERVED))], ..account },
            5 => Given {
                limits: AccountLimits::none().killswitch(Limits::of(percent(OWN_KILLSWITCH))),
                ..account
            },
            6 => Given { has_unknown_owner: true, ..account },
            _ => account,
        }
    };
    accounts.iter().enumerate().map(made).collect()
}

fn requests() -> impl Strategy<Value = Request> {
    (any::<bool>(), proptest::option::of("[a-d]")).prop_map(|(opus, session)| {
        let request = if opus { Request::new().with_model("claude-opus-4-5") } else { Request::new() };
        session.map_or(request.clone(), |session| request.with_session(&session))
    })
}

proptest! {
    #[test]
    fn an_ineligible_account_is_never_chosen(
        accounts in accounts(), request in requests(), policy in policies(),
    ) {
        let given = given(&accounts);
        let decision = decide(&given, &request, &policy);
        let opus = request.model().is_some();

        if let Some(at) = chosen(&given, &request, &policy) {
            let (readings, variant) = &accounts[at];
            prop_assert!(*variant > 2);
            let killswitch = if *variant == 5 { Limits::of(percent(OWN_KILLSWITCH)) } else { policy.killswitch.clone() };
            prop_assert!(*variant != 6 || policy.when_unknown == UnknownUsage::Allow, "its owner is unknown");
            for window in given[at].snapshot.windows() {
                let counts = window.scope().is_none() || opus;
                let used = window.used_at(now(), FRESH).lower_bound();
                if let Some(used) = used.filter(|_| counts) {
                    let (left, killswitch) = (used.remaining(), killswitch.min_remaining_of(window.id()));
                    prop_assert!(left >= killswitch && left.basis_points() > 0, "{readings:?}");
                    prop_assert!(left > killswitch || window.scope().is_none(), "{readings:?}");
                    let is_reserved = *variant == 4 && *window.id() == quota_core::WindowId::five_hour();
                    prop_assert!(!is_reserved || left > percent(RESERVED), "{readings:?}");
                }
            }
        }
        for evaluated in decision.accounts() {
            let is_excluded = !matches!(evaluated.reason, Reason::Available | Reason::UnknownAllowed | Reason::BelowMinimum);
            prop_assert_eq!(is_excluded, evaluated.eligibility == Eligibility::Ineligible);
        }
    }

    #[test]
    fn an_available_account_is_always_chosen(
        accounts in accounts(), request in requests(), policy in policies(),
    ) {
        let given = given(&accounts);
        let decision = decide(&given, &request, &policy);
        let usable = decision.accounts().iter().any(|evaluated| evaluated.eligibility != Eligibility::Ineligible);

        match decision.choice() {
            Choice::Use { .. } => prop_assert!(usable),
            Choice::NoAccount { .. } => prop_assert!(!usable),
            // A session may wait although other accounts are available.
            Choice::Wait { index: at, .. } => {
                prop_assert_eq!(decision.accounts()[at].eligibility, Eligibility::Ineligible);
            }
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_choice(
        accounts in accounts(), request in requests(), policy in policies(),
    ) {
        let given = given(&accounts);

        prop_assert_eq!(
            decide(&given, &request, &policy).choice(),
            decide(&given, &request, &policy).choice()
        );
    }

    #[test]
    fn a_second_name_of_each_login_changes_no_choice(
        accounts in accounts(), request in requests(), policy in policies(),
    ) {
        let with_login = |(at, account): (usize, Given)| account.login(&format!("login-{at}"));
        let once: Vec<Given> = given(&accounts).into_iter().enumerate().map(with_login).collect();
        let twice: Vec<Given> = once.iter().flat_map(|account| {
            let id = format!("{}-again", account.id).parse().expect("a valid name");
            [account.clone(), Given { id, is_session_account: false, ..account.clone() }]
        }).collect();

        let choice = decide(&twice, &request, &policy).choice();

        let expected = match decide(&once, &request, &policy).choice() {
            Choice::Use { index } => Choice::Use { index: 2 * index },
            Choice::Wait { index, until } => Choice::Wait { index: 2 * index, until },
            no_account => no_account,
        };
        prop_assert_eq!(choice, expected);
    }

    #[test]
    fn more_headroom_never_unselects_the_chosen_account(
        accounts in accounts(), request in requests(), policy in policies(), more in 1u32..60,
    ) {
        let Some(at) = chosen(&given(&accounts), &request, &policy) else { return Ok(()) };

        let mut richer = accounts.clone();
        let readings = &mut richer[at].0;
        for (left, _) in [&mut readings.five_hour, &mut readings.seven_day].into_iter().flatten() {
            *left = (*left + more).min(100);
        }
        if let Some(left) = &mut readings.opus {
            *left = (*left + more).min(100);
        }

        prop_assert_eq!(chosen(&given(&richer), &request, &policy), Some(at));
    }
}
