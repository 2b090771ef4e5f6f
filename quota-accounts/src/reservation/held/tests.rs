use super::*;

/// By this process's clock; the store's is an hour behind.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

const AHEAD: SignedDuration = SignedDuration::from_hours(-1);

fn there() -> (Timestamp, SignedDuration) {
    (now() + AHEAD, AHEAD)
}

fn percent(percent: f64) -> Percent {
    Percent::from_percent(percent).unwrap()
}

fn of(share: f64) -> Reservation {
    Reservation::new(WindowId::five_hour(), percent(share), now())
}

/// Another host's share of two percent, by the store's clock.
fn of_others() -> Reservations {
    let mut document = Reservations::default();
    document.add(Reservation::new(WindowId::five_hour(), percent(2.0), there().0));
    document
}

fn shares(reservations: &Reservations, now: Timestamp) -> usize {
    reservations.live(now).count()
}

/// One that was let in here, and written.
fn told() -> (Held, Reservation, Reservations) {
    let (mut held, wanted, mut document) = (Held::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    held.bring(&mut document, Some((wanted.id, None)), there());
    held.take_over(document.clone(), AHEAD);
    (held, wanted, document)
}

#[test]
fn what_fits_here_and_not_beside_others_is_not_written() {
    let (mut held, wanted, mut document) = (Held::default(), of(2.0), of_others());
    let left = Some(percent(3.0));
    assert!(held.reserve(&wanted, left, now()));

    let brought = held.bring(&mut document, Some((wanted.id, left)), there());

    assert_eq!(brought, Brought { fits: false, is_changed: false });
}

#[test]
fn times_are_those_of_the_store_there_and_of_this_process_here() {
    let (held, wanted, document) = told();

    let until = there().0.checked_add(Reservation::LASTS).unwrap();
    assert_eq!(document.held[0].until, until);
    assert_eq!(held.known.held[0].until, wanted.until);
}

#[test]
fn one_that_was_let_in_while_the_store_was_away_is_brought_later() {
    let (mut held, wanted) = (Held::default(), of(2.0));
    held.reserve(&wanted, None, now());
    held.go_alone(wanted.id);
    let mut document = of_others();

    let brought = held.bring(&mut document, None, there());
    held.take_over(document.clone(), AHEAD);

    assert!(brought.is_changed);
    assert_eq!((shares(&document, there().0), held.live(now()).count()), (2, 2));
}

#[test]
fn one_whose_request_still_asks_is_left_to_it() {
    let (mut held, wanted) = (Held::default(), of(2.0));
    held.reserve(&wanted, None, now());
    let mut document = of_others();

    let brought = held.bring(&mut document, None, there());
    held.take_over(document, AHEAD);

    assert!(!brought.is_changed);
    assert_eq!(held.live(now()).count(), 2, "here it counts");
}

#[test]
fn what_the_store_has_lost_is_brought_again() {
    let (mut held, _, _) = told();
    let mut document = Reservations::default();

    assert!(held.bring(&mut document, None, there()).is_changed);

    assert_eq!(shares(&document, there().0), 1);
}

#[test]
fn one_that_is_given_back_is_taken_out_of_the_document_once() {
    let (mut held, wanted, mut document) = told();

    assert!(held.release(wanted.id), "others are to be told");
    assert!(held.bring(&mut document, None, there()).is_changed);
    held.take_over(document.clone(), AHEAD);

    assert_eq!(shares(&document, there().0), 0);
    assert!(held.own.is_empty(), "{held:?}");
    assert!(!held.release(wanted.id));
}

#[test]
fn one_that_is_given_back_does_not_come_back_with_what_was_read_before() {
    let (mut held, wanted, document) = told();
    held.release(wanted.id);

    held.take_over(document, AHEAD);

    assert_eq!(held.live(now()).count(), 0);
    assert!(!held.own.is_empty(), "others are still to be told");
}

#[test]
fn one_that_is_given_back_while_its_write_is_on_the_way_is_taken_out_when_it_arrives() {
    let (mut held, wanted, mut late) = (Held::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    held.bring(&mut late, Some((wanted.id, None)), there());
    // Nobody has heard whether it was applied.
    assert!(held.release(wanted.id));
    held.bring(&mut Reservations::default(), None, there());
    held.take_over(Reservations::default(), AHEAD);

    assert!(held.bring(&mut late, None, there()).is_changed);

    assert_eq!(shares(&late, there().0), 0);
}

#[test]
fn one_that_nobody_else_heard_of_is_given_back_without_telling() {
    let (mut held, wanted) = (Held::default(), of(2.0));
    held.reserve(&wanted, None, now());

    assert!(!held.release(wanted.id));

    assert!(held.is_empty() && held.own.is_empty());
}

#[test]
fn a_write_that_was_applied_unheard_is_recognised() {
    let (mut held, wanted, mut document) = (Held::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    let first = held.bring(&mut document, Some((wanted.id, Some(percent(2.0)))), there());

    let second = held.bring(&mut document, Some((wanted.id, Some(percent(2.0)))), there());

    assert!(first.is_changed && first.fits);
    assert_eq!(second, Brought { fits: true, is_changed: false });
}

#[test]
fn what_nobody_reports_is_forgotten_here_too() {
    let (mut held, _, _) = told();
    let later = now().checked_add(Reservation::LASTS).unwrap();

    held.reserve(&of(1.0), None, later);

    assert_eq!(held.own.len(), 1);
}
