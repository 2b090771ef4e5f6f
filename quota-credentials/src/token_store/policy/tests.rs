//! The rules of renewal, by data alone.

use proptest::prelude::*;
use quota_core::{OwnerId, Secret};

use super::*;
use crate::NewLogin;

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn id(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

fn pace() -> Pace {
    Pace {
        margin: Duration::from_secs(600),
        dice: 0.999_999,
        backoff: Backoff::doubling(Duration::from_secs(30), Duration::from_secs(900)).jitter(0.0),
    }
}

fn mark(token: &str) -> CredentialFingerprint {
    token::mark(&Secret::new(token))
}

/// A login of eight hours, kept at 0.
fn file() -> LoginsFile {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), login("a", "r").expires_at(at(8 * 3600)), at(0));
    file
}

fn login(access: &str, refresh: &str) -> NewLogin {
    NewLogin::new(Secret::new(access)).refresh_token(Secret::new(refresh))
}

fn step(file: &LoginsFile, want: Want, now: i64) -> Step {
    file.step(&id("main"), want, at(now), &pace()).unwrap()
}

fn got(access: &str, refresh: &str, second: i64) -> Got {
    let tokens = Tokens::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_in(8 * HOUR);
    Got { tokens, at: at(second), is_second: false }
}

fn fail(file: &mut LoginsFile, error: &TokenError, now: i64) {
    assert!(file.sending(&id("main"), mark("r"), at(now), &pace()));
    file.fail(&id("main"), mark("r"), error, at(now), &pace());
}

/// After its end, so that nothing can be given meanwhile.
const ENDED: i64 = 9 * 3600;

#[test]
fn a_token_is_renewed_a_margin_before_its_end_and_used_until_then() {
    let file = file();

    assert_eq!(step(&file, Want::Credential, 8 * 3600 - 601), Step::Give);
    assert_eq!(step(&file, Want::Credential, 8 * 3600 - 599), Step::Exchange { is_usable: true });
    assert_eq!(step(&file, Want::Credential, 8 * 3600), Step::Exchange { is_usable: false });
}

#[test]
fn the_margin_is_spread_over_processes() {
    let due = |dice| {
        let pace = Pace { dice, ..pace() };
        let is_due = |second: &i64| {
            file().step(&id("main"), Want::Credential, at(*second), &pace).unwrap() != Step::Give
        };
        (0..8 * 3600).find(is_due).unwrap()
    };

    assert_eq!((due(0.0), due(0.5)), (8 * 3600 - 300, 8 * 3600 - 450));
}

#[test]
fn a_token_that_lives_for_minutes_is_not_renewed_all_the_time() {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), login("a", "r").expires_at(at(80)), at(0));

    assert_eq!(step(&file, Want::Credential, 59), Step::Give);
    assert_eq!(step(&file, Want::Credential, 61), Step::Exchange { is_usable: true });
}

#[test]
fn nobody_is_logged_in_where_nothing_is_kept() {
    assert_eq!(file().step(&id("other"), Want::Credential, at(0), &pace()), None);
}

#[test]
fn a_login_that_cannot_be_renewed_is_used_until_it_ends() {
    let mut file = LoginsFile::default();
    let _ = file.put(id("main"), NewLogin::new(Secret::new("a")).expires_at(at(3600)), at(0));

    assert_eq!(step(&file, Want::Credential, 3599), Step::Give);
    assert_eq!(step(&file, Want::Credential, 3600), Step::LogIn);
}

// B18
#[test]
fn a_refused_token_is_renewed_once_and_a_second_refusal_needs_a_new_login() {
    let mut file = file();
    assert_eq!(step(&file, Want::Another(mark("a")), 0), Step::Exchange { is_usable: false });
    assert!(file.take(&id("main"), mark("r"), &Got { is_second: true, ..got("a-2", "r-2", 0) }));

    assert_eq!(step(&file, Want::Another(mark("a")), 1), Step::Give, "there is another by now");
    assert_eq!(step(&file, Want::Another(mark("a-2")), 1), Step::LogIn);

    // Renewed in its own time it is a token like any other.
    assert!(file.take(&id("main"), mark("r-2"), &got("a-3", "r-3", 1)));
    assert_eq!(step(&file, Want::Another(mark("a-3")), 2), Step::Exchange { is_usable: false });
}

// B39
#[test]
fn a_dead_refresh_token_is_never_sent_again_and_a_new_login_ends_that() {
    let mut file = file();
    fail(&mut file, &TokenError::invalid_grant("refused"), ENDED);

    for hours in [1, 24, 24 * 365] {
        assert_eq!(step(&file, Want::Credential, ENDED + hours * 3600), Step::LogIn);
    }
    assert_eq!(step(&file, Want::Credential, 3600), Step::Give, "what is left of the access token is used");

    assert_eq!(
        file.put(id("main"), login("b", "s").expires_at(at(ENDED)), at(ENDED)),
        crate::PutResult::Stored
    );
    assert_eq!(step(&file, Want::Credential, ENDED), Step::Exchange { is_usable: false });
}

// B39
#[test]
fn a_refusal_of_the_old_token_that_comes_late_is_not_the_new_ones() {
    let mut file = file();
    file.sending(&id("main"), mark("r"), at(0), &pace());
    let _ = file.put(id("main"), login("b", "s"), at(1));

    file.fail(&id("main"), mark("r"), &TokenError::invalid_grant("refused"), at(2), &pace());

    assert_eq!(file.logins[&id("main")].trouble, None);
}

// B38
#[test]
fn a_newer_token_is_never_overwritten_by_what_an_older_one_was_exchanged_for() {
    let mut file = file();
    let _ = file.put(id("main"), login("b", "s"), at(1));

    assert!(!file.take(&id("main"), mark("r"), &got("a-2", "r-2", 2)));

    assert_eq!(file.logins[&id("main")].access_token.expose(), "b");
}

// B42
#[test]
fn a_login_that_was_taken_over_once_is_not_taken_over_again_after_it_rotated() {
    let mut file = file();
    file.take(&id("main"), mark("r"), &got("a-2", "r-2", 0));
    file.take(&id("main"), mark("r-2"), &got("a-3", "r-3", 0));

    for old in ["r", "r-2", "r-3"] {
        assert_eq!(file.put(id("main"), login("a", old), at(1)), crate::PutResult::AlreadyStored, "{old}");
    }

    assert_eq!(file.logins[&id("main")].refresh_token.as_ref().unwrap().expose(), "r-3");
}

// B33
#[test]
fn the_lineage_stays_when_tokens_rotate_and_changes_with_the_login() {
    let lineage = |file: &LoginsFile| file.logins[&id("main")].lineage.clone();
    let mut file = file();
    let first = lineage(&file);

    file.take(&id("main"), mark("r"), &got("a-2", "r-2", 0));
    assert_eq!(lineage(&file), first);

    let _ = file.put(id("main"), login("b", "s"), at(1));
    assert_ne!(lineage(&file), first);
}

#[test]
fn two_logins_of_one_identity_are_one_lineage() {
    let mut file = LoginsFile::default();
    let of = |access, refresh, who| login(access, refresh).identity(OwnerId::new(who));
    let lineage = |file: &LoginsFile| file.logins[&id("main")].lineage.clone();
    let _ = file.put(id("main"), of("a", "r", "me"), at(0));
    let first = lineage(&file);

    let _ = file.put(id("main"), of("b", "s", "me"), at(1));
    assert_eq!(lineage(&file), first);

    let _ = file.put(id("main"), of("c", "t", "you"), at(2));
    assert_ne!(lineage(&file), first);
}

// B86
#[test]
fn tokens_that_turn_out_to_be_somebody_elses_are_another_lineage() {
    let mut file = file();
    let mut tokens = got("a-2", "r-2", 0);
    tokens.tokens = tokens.tokens.identity(OwnerId::new("me"));
    file.take(&id("main"), mark("r"), &tokens);
    let first = file.logins[&id("main")].lineage.clone();

    let mut tokens = got("a-3", "r-3", 0);
    tokens.tokens = tokens.tokens.identity(OwnerId::new("you"));
    file.take(&id("main"), mark("r-2"), &tokens);

    assert_ne!(file.logins[&id("main")].lineage, first);
}

#[test]
fn failures_in_a_row_are_further_and_further_apart() {
    let mut file = file();
    let mut now = ENDED;
    let mut waits = Vec::new();
    for _ in 0..7 {
        fail(&mut file, &TokenError::transient("status 503"), now);
        let Step::Wait { until } = step(&file, Want::Credential, now) else { panic!() };
        waits.push(until.duration_since(at(now)).as_secs());
        now += waits.last().unwrap();
        assert_eq!(step(&file, Want::Credential, now), Step::Exchange { is_usable: false });
    }

    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
}

#[test]
fn what_the_provider_says_is_a_floor_and_holds_its_siblings_too() {
    let mut file = file();
    let _ = file.put(id("sibling"), login("b", "s").expires_at(at(ENDED)), at(0));
    fail(&mut file, &TokenError::transient("status 429").after(8 * HOUR), ENDED);

    let until = at(ENDED + 8 * 3600);
    assert_eq!(step(&file, Want::Credential, ENDED), Step::Wait { until });
    let sibling = file.step(&id("sibling"), Want::Credential, at(ENDED), &pace());
    assert_eq!(sibling, Some(Step::Wait { until }));
}

#[test]
fn a_wait_that_the_provider_cannot_mean_ends_after_24_hours() {
    let mut file = file();
    fail(&mut file, &TokenError::transient("status 429").after(18 * 24 * HOUR), ENDED);

    assert_eq!(step(&file, Want::Credential, ENDED), Step::Wait { until: at(ENDED + 24 * 3600) });
}

#[test]
fn a_login_that_fails_each_time_does_not_starve_its_siblings() {
    let mut file = file();
    let _ = file.put(id("sibling"), login("b", "s").expires_at(at(ENDED)), at(0));
    fail(&mut file, &TokenError::transient("status 500"), ENDED);

    let sibling = file.step(&id("sibling"), Want::Credential, at(ENDED), &pace());

    assert_eq!(sibling, Some(Step::Exchange { is_usable: false }));
}

#[test]
fn a_client_that_is_not_known_ends_no_login() {
    let mut file = file();
    fail(&mut file, &TokenError::invalid_client("unknown client"), ENDED);

    assert_eq!(step(&file, Want::Credential, ENDED), Step::Wait { until: at(ENDED + 900) });
    assert_eq!(step(&file, Want::Credential, ENDED + 900), Step::Exchange { is_usable: false });
}

#[test]
fn whoever_is_killed_over_an_exchange_is_followed_at_once_and_then_at_a_distance() {
    let mut file = file();

    file.sending(&id("main"), mark("r"), at(ENDED), &pace());
    assert_eq!(step(&file, Want::Credential, ENDED), Step::Exchange { is_usable: false });

    file.sending(&id("main"), mark("r"), at(ENDED), &pace());
    assert_eq!(step(&file, Want::Credential, ENDED), Step::Wait { until: at(ENDED + 30) });
}

#[test]
fn a_hold_of_a_clock_that_was_ahead_holds_nobody() {
    let mut file = file();
    fail(&mut file, &TokenError::transient("status 503"), ENDED + 86_400);

    assert_eq!(step(&file, Want::Credential, ENDED), Step::Exchange { is_usable: false });
}

#[test]
fn spent_tokens_are_remembered_up_to_a_number() {
    let mut file = file();
    let mut last = "r".to_owned();
    for number in 0..100 {
        let next = format!("r-{number}");
        assert!(file.take(&id("main"), mark(&last), &got("a", &next, 0)));
        last = next;
    }

    assert_eq!(file.logins[&id("main")].spent.len(), MOST_SPENT);
}

#[derive(Debug, Clone)]
enum Event {
    Put(u8),
    Sending,
    Take(u8),
    TakeOf(u8, u8),
    Fail(u8),
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u8>().prop_map(Event::Put),
        Just(Event::Sending),
        any::<u8>().prop_map(Event::Take),
        any::<(u8, u8)>().prop_map(|(of, next)| Event::TakeOf(of, next)),
        (0_u8..4).prop_map(Event::Fail),
        (0_u32..100_000).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order, a token that was spent is never kept again, and a dead one never sent.
    #[test]
    fn a_spent_token_never_comes_back_and_a_dead_one_is_never_sent(events in prop::collection::vec(event(), 1..40)) {
        let mut file = file();
        let mut spent = Vec::new();
        let mut dead = Vec::new();
        let mut now = 0;
        for (number, event) in events.into_iter().enumerate() {
            let current = file.logins[&id("main")].refresh_mark().unwrap();
            // Each new token is one that never was.
            let fresh = |n: u8| format!("t-{number}-{n}");
            match event {
                Event::Put(n) => { let _ = file.put(id("main"), login(&fresh(n), &fresh(n)), at(now)); }
                Event::Sending => { file.sending(&id("main"), current, at(now), &pace()); }
                Event::Take(n) => {
                    file.take(&id("main"), current, &got(&fresh(n), &fresh(n), now));
                    spent.push(current);
                }
                Event::TakeOf(of, n) => {
                    let old = spent.get(usize::from(of) % spent.len().max(1)).copied().unwrap_or(mark("never"));
                    prop_assert!(!file.take(&id("main"), old, &got("late", &fresh(n), now)));
                }
                Event::Fail(0) => {
                    file.fail(&id("main"), current, &TokenError::invalid_grant("refused"), at(now), &pace());
                    dead.push(current);
                }
                Event::Fail(_) => {
                    file.fail(&id("main"), current, &TokenError::transient("no"), at(now), &pace());
                    dead.retain(|mark| *mark != current);
                }
                Event::Wait(seconds) => now += i64::from(seconds),
            }
            let kept = file.logins[&id("main")].refresh_mark().unwrap();
            prop_assert!(!spent.contains(&kept));
            if dead.contains(&kept) && file.logins[&id("main")].trouble.as_ref().is_some_and(|t| t.kind == TroubleKind::Dead) {
                let is_sent = matches!(step(&file, Want::Credential, now), Step::Exchange { .. });
                prop_assert!(!is_sent);
            }
        }
    }
}
