//! The rules of renewal.

use proptest::prelude::*;
use quota_core::Secret;
use quota_core::model::OwnerId;

use super::*;
use crate::NewLogin;

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn id(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

fn timing() -> RenewalTiming {
    RenewalTiming {
        margin: Duration::from_secs(600),
        jitter: 0.999_999,
        backoff: Backoff::doubling(Duration::from_secs(30), Duration::from_secs(900)).jitter(0.0),
    }
}

fn fingerprint(token: &str) -> CredentialFingerprint {
    token::fingerprint(&Secret::new(token))
}

/// A login that is valid for eight hours from second 0.
fn file() -> LoginsFile {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), login("a", "r").expires_at(at(8 * 3600)), at(0));
    file
}

fn login(access: &str, refresh: &str) -> NewLogin {
    NewLogin::new(Secret::new(access)).refresh_token(Secret::new(refresh))
}

fn action(file: &LoginsFile, demand: Demand, now: i64) -> TokenAction {
    file.action(&id("main"), demand, at(now), &timing()).unwrap()
}

fn exchanged(access: &str, refresh: &str, second: i64) -> Exchanged {
    let tokens = Tokens::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_in(8 * HOUR);
    Exchanged { tokens, started_at: at(second), from_rejection: false }
}

fn fail(file: &mut LoginsFile, error: &TokenError, now: i64) {
    assert!(file.mark_sending(&id("main"), fingerprint("r"), at(now), &timing()));
    file.record_failure(&id("main"), fingerprint("r"), error, at(now), &timing());
}

#[test]
fn a_failure_that_is_written_late_does_not_replace_a_later_one() {
    let mut file = file();
    let rejected = TokenError::invalid_grant("the user logged out");
    fail(&mut file, &rejected, 100);

    let late = TokenError::transient("the provider timed out");
    assert!(file.record_failure(&id("main"), fingerprint("r"), &late, at(50), &timing()));

    let failure = file.logins[&id("main")].current_failure().unwrap();
    assert_eq!((failure.kind, failure.at), (FailureKind::InvalidGrant, at(100)));
}

/// A time after the expiry, at which no credential is usable.
const EXPIRED: i64 = 9 * 3600;

#[test]
fn a_token_is_renewed_before_its_expiry_and_used_until_then() {
    let file = file();

    assert_eq!(action(&file, Demand::Credential, 8 * 3600 - 601), TokenAction::Use);
    assert_eq!(action(&file, Demand::Credential, 8 * 3600 - 599), TokenAction::Renew { is_usable: true });
    assert_eq!(action(&file, Demand::Credential, 8 * 3600), TokenAction::Renew { is_usable: false });
}

#[test]
fn the_margin_is_jittered_per_process() {
    let due = |jitter| {
        let timing = RenewalTiming { jitter, ..timing() };
        let is_due = |second: &i64| {
            file().action(&id("main"), Demand::Credential, at(*second), &timing).unwrap() != TokenAction::Use
        };
        (0..8 * 3600).find(is_due).unwrap()
    };

    assert_eq!((due(0.0), due(0.5)), (8 * 3600 - 300, 8 * 3600 - 450));
}

#[test]
fn a_short_lived_token_is_not_renewed_constantly() {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), login("a", "r").expires_at(at(80)), at(0));

    assert_eq!(action(&file, Demand::Credential, 59), TokenAction::Use);
    assert_eq!(action(&file, Demand::Credential, 61), TokenAction::Renew { is_usable: true });
}

#[test]
fn an_account_without_a_login_has_no_action() {
    assert_eq!(file().action(&id("other"), Demand::Credential, at(0), &timing()), None);
}

#[test]
fn a_login_without_a_refresh_token_is_used_until_its_expiry() {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), NewLogin::new(Secret::new("a")).expires_at(at(3600)), at(0));

    assert_eq!(action(&file, Demand::Credential, 3599), TokenAction::Use);
    assert_eq!(action(&file, Demand::Credential, 3600), TokenAction::Reauthenticate);
}

#[test]
fn a_second_rejection_in_a_row_needs_a_new_login() {
    let mut file = file();
    assert_eq!(
        action(&file, Demand::Replacement(fingerprint("a")), 0),
        TokenAction::Renew { is_usable: false }
    );
    assert!(file.apply(
        &id("main"),
        fingerprint("r"),
        &Exchanged { from_rejection: true, ..exchanged("a-2", "r-2", 0) }
    ));

    assert_eq!(
        action(&file, Demand::Replacement(fingerprint("a")), 1),
        TokenAction::Use,
        "another one has been stored since"
    );
    assert_eq!(action(&file, Demand::Replacement(fingerprint("a-2")), 1), TokenAction::Reauthenticate);

    // A regular renewal resets the count.
    assert!(file.apply(&id("main"), fingerprint("r-2"), &exchanged("a-3", "r-3", 1)));
    assert_eq!(
        action(&file, Demand::Replacement(fingerprint("a-3")), 2),
        TokenAction::Renew { is_usable: false }
    );
}

#[test]
fn a_rejected_refresh_token_is_never_sent_again() {
    let mut file = file();
    fail(&mut file, &TokenError::invalid_grant("refused"), EXPIRED);

    for hours in [1, 24, 24 * 365] {
        assert_eq!(action(&file, Demand::Credential, EXPIRED + hours * 3600), TokenAction::Reauthenticate);
    }
    assert_eq!(
        action(&file, Demand::Credential, 3600),
        TokenAction::Use,
        "the access token is used until it expires"
    );

    assert_eq!(
        file.put(id("main"), login("b", "s").expires_at(at(EXPIRED)), at(EXPIRED)),
        crate::PutResult::Stored
    );
    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Renew { is_usable: false });
}

#[test]
fn a_late_rejection_of_a_replaced_token_is_ignored() {
    let mut file = file();
    file.mark_sending(&id("main"), fingerprint("r"), at(0), &timing());
    let _ = file.put(id("main"), login("b", "s"), at(1));

    file.record_failure(
        &id("main"),
        fingerprint("r"),
        &TokenError::invalid_grant("refused"),
        at(2),
        &timing(),
    );

    assert_eq!(file.logins[&id("main")].last_failure, None);
}

#[test]
fn a_late_renewal_does_not_replace_a_newer_login() {
    let mut file = file();
    let _ = file.put(id("main"), login("b", "s"), at(1));

    assert!(!file.apply(&id("main"), fingerprint("r"), &exchanged("a-2", "r-2", 2)));

    assert_eq!(file.logins[&id("main")].access_token.expose(), "b");
}

#[test]
fn a_used_refresh_token_is_not_stored_again() {
    let mut file = file();
    file.apply(&id("main"), fingerprint("r"), &exchanged("a-2", "r-2", 0));
    file.apply(&id("main"), fingerprint("r-2"), &exchanged("a-3", "r-3", 0));

    for old in ["r", "r-2", "r-3"] {
        assert_eq!(file.put(id("main"), login("a", old), at(1)), crate::PutResult::AlreadyStored, "{old}");
    }

    assert_eq!(file.logins[&id("main")].refresh_token.as_ref().unwrap().expose(), "r-3");
}

#[test]
fn the_login_id_survives_rotation_and_changes_with_a_login() {
    let login_id = |file: &LoginsFile| file.logins[&id("main")].login_id.clone();
    let mut file = file();
    let first = login_id(&file);

    file.apply(&id("main"), fingerprint("r"), &exchanged("a-2", "r-2", 0));
    assert_eq!(login_id(&file), first);

    let _ = file.put(id("main"), login("b", "s"), at(1));
    assert_ne!(login_id(&file), first);
}

#[test]
fn two_logins_of_one_owner_have_one_login_id() {
    let mut file = LoginsFile::default();
    let owned = |access, refresh, owner| login(access, refresh).owner(OwnerId::new(owner));
    let login_id = |file: &LoginsFile| file.logins[&id("main")].login_id.clone();
    let _ = file.put(id("main"), owned("a", "r", "me"), at(0));
    let first = login_id(&file);

    let _ = file.put(id("main"), owned("b", "s", "me"), at(1));
    assert_eq!(login_id(&file), first);

    let _ = file.put(id("main"), owned("c", "t", "you"), at(2));
    assert_ne!(login_id(&file), first);
}

#[test]
fn tokens_of_another_owner_get_another_login_id() {
    let mut file = file();
    let mut tokens = exchanged("a-2", "r-2", 0);
    tokens.tokens = tokens.tokens.owner_id(OwnerId::new("me"));
    file.apply(&id("main"), fingerprint("r"), &tokens);
    let first = file.logins[&id("main")].login_id.clone();

    let mut tokens = exchanged("a-3", "r-3", 0);
    tokens.tokens = tokens.tokens.owner_id(OwnerId::new("you"));
    file.apply(&id("main"), fingerprint("r-2"), &tokens);

    assert_ne!(file.logins[&id("main")].login_id, first);
}

#[test]
fn consecutive_failures_back_off() {
    let mut file = file();
    let mut now = EXPIRED;
    let mut waits = Vec::new();
    for _ in 0..7 {
        fail(&mut file, &TokenError::transient("status 503"), now);
        let TokenAction::Wait { until } = action(&file, Demand::Credential, now) else { panic!() };
        waits.push(until.duration_since(at(now)).as_secs());
        now += waits.last().unwrap();
        assert_eq!(action(&file, Demand::Credential, now), TokenAction::Renew { is_usable: false });
    }

    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
}

#[test]
fn retry_after_is_a_minimum_and_blocks_siblings_too() {
    let mut file = file();
    let _ = file.put(id("sibling"), login("b", "s").expires_at(at(EXPIRED)), at(0));
    fail(&mut file, &TokenError::transient("status 429").with_retry_after(8 * HOUR), EXPIRED);

    let until = at(EXPIRED + 8 * 3600);
    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Wait { until });
    let sibling = file.action(&id("sibling"), Demand::Credential, at(EXPIRED), &timing());
    assert_eq!(sibling, Some(TokenAction::Wait { until }));
}

#[test]
fn a_long_retry_after_is_capped_at_24_hours() {
    let mut file = file();
    fail(&mut file, &TokenError::transient("status 429").with_retry_after(18 * 24 * HOUR), EXPIRED);

    assert_eq!(
        action(&file, Demand::Credential, EXPIRED),
        TokenAction::Wait { until: at(EXPIRED + 24 * 3600) }
    );
}

#[test]
fn a_failing_login_does_not_starve_its_siblings() {
    let mut file = file();
    let _ = file.put(id("sibling"), login("b", "s").expires_at(at(EXPIRED)), at(0));
    fail(&mut file, &TokenError::transient("status 500"), EXPIRED);

    let sibling = file.action(&id("sibling"), Demand::Credential, at(EXPIRED), &timing());

    assert_eq!(sibling, Some(TokenAction::Renew { is_usable: false }));
}

#[test]
fn a_rejected_client_does_not_end_the_login() {
    let mut file = file();
    fail(&mut file, &TokenError::invalid_client("unknown client"), EXPIRED);

    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Wait { until: at(EXPIRED + 900) });
    assert_eq!(action(&file, Demand::Credential, EXPIRED + 900), TokenAction::Renew { is_usable: false });
}

#[test]
fn a_lost_response_is_retried_at_once_and_then_with_backoff() {
    let mut file = file();

    file.mark_sending(&id("main"), fingerprint("r"), at(EXPIRED), &timing());
    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Renew { is_usable: false });

    file.mark_sending(&id("main"), fingerprint("r"), at(EXPIRED), &timing());
    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Wait { until: at(EXPIRED + 30) });
}

#[test]
fn a_failure_from_the_future_does_not_block() {
    let mut file = file();
    fail(&mut file, &TokenError::transient("status 503"), EXPIRED + 86_400);

    assert_eq!(action(&file, Demand::Credential, EXPIRED), TokenAction::Renew { is_usable: false });
}

#[test]
fn the_number_of_used_tokens_is_bounded() {
    let mut file = file();
    let mut last = "r".to_owned();
    for number in 0..100 {
        let next = format!("r-{number}");
        assert!(file.apply(&id("main"), fingerprint(&last), &exchanged("a", &next, 0)));
        last = next;
    }

    assert_eq!(file.logins[&id("main")].used_refresh_tokens.len(), MAX_USED_TOKENS);
}

#[derive(Debug, Clone)]
enum Event {
    Put(u8),
    Sending,
    Apply(u8),
    ApplyLate(u8, u8),
    Fail(u8),
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u8>().prop_map(Event::Put),
        Just(Event::Sending),
        any::<u8>().prop_map(Event::Apply),
        any::<(u8, u8)>().prop_map(|(of, next)| Event::ApplyLate(of, next)),
        (0_u8..4).prop_map(Event::Fail),
        (0_u32..100_000).prop_map(Event::Wait),
    ]
}

proptest! {
    /// In any order of events, a used token is never stored again and a rejected one is never sent.
    #[test]
    fn used_tokens_are_not_stored_and_rejected_ones_not_sent_again(events in prop::collection::vec(event(), 1..40)) {
        let mut file = file();
        let mut used = Vec::new();
        let mut rejected = Vec::new();
        let mut now = 0;
        for (number, event) in events.into_iter().enumerate() {
            let current = file.logins[&id("main")].refresh_fingerprint().unwrap();
            // Each new token is unique.
            let fresh = |n: u8| format!("t-{number}-{n}");
            match event {
                Event::Put(n) => { let _ = file.put(id("main"), login(&fresh(n), &fresh(n)), at(now)); }
                Event::Sending => { file.mark_sending(&id("main"), current, at(now), &timing()); }
                Event::Apply(n) => {
                    file.apply(&id("main"), current, &exchanged(&fresh(n), &fresh(n), now));
                    used.push(current);
                }
                Event::ApplyLate(of, n) => {
                    let old = used.get(usize::from(of) % used.len().max(1)).copied().unwrap_or(fingerprint("never"));
                    prop_assert!(!file.apply(&id("main"), old, &exchanged("late", &fresh(n), now)));
                }
                Event::Fail(0) => {
                    file.record_failure(&id("main"), current, &TokenError::invalid_grant("refused"), at(now), &timing());
                    rejected.push(current);
                }
                Event::Fail(_) => {
                    file.record_failure(&id("main"), current, &TokenError::transient("no"), at(now), &timing());
                    rejected.retain(|token| *token != current);
                }
                Event::Wait(seconds) => now += i64::from(seconds),
            }
            let stored = file.logins[&id("main")].refresh_fingerprint().unwrap();
            prop_assert!(!used.contains(&stored));
            if rejected.contains(&stored) && file.logins[&id("main")].current_failure().is_some_and(|failure| failure.kind == FailureKind::InvalidGrant) {
                let is_sent = matches!(action(&file, Demand::Credential, now), TokenAction::Renew { .. });
                prop_assert!(!is_sent);
            }
        }
    }
}
