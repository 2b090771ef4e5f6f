use super::*;

/// By this process's clock; the store's is an hour behind.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

const AHEAD: SignedDuration = SignedDuration::from_hours(-1);

fn there() -> Timestamp {
    now() + AHEAD
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
    document.add(Reservation::new(WindowId::five_hour(), percent(2.0), there()));
    document
}

fn shares(reservations: &Reservations, now: Timestamp) -> usize {
    reservations.live(now).count()
}

/// One that was let in here, and written.
fn told() -> (LocalReservations, Reservation, Reservations) {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    bring(&mut held, &mut document);
    held.adopt(document.clone(), AHEAD);
    (held, wanted, document)
}

fn bring(held: &mut LocalReservations, document: &mut Reservations) -> bool {
    let before = document.clone();
    held.merge_into(document, there(), AHEAD);
    *document != before
}

#[test]
fn what_fits_here_and_not_beside_others_is_not_written() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), of_others());
    assert!(held.reserve(&wanted, Some(300), now()));

    let is_dirty = bring(&mut held, &mut document);

    assert_eq!((is_dirty, held.admission(wanted.id)), (false, Some(false)));
}

#[test]
fn all_who_wait_are_answered_at_once_as_far_as_it_fits() {
    let (mut held, mut document) = (LocalReservations::default(), of_others());
    let wanted = [of(2.0), of(2.0), of(2.0)];
    wanted.iter().for_each(|wanted| assert!(held.reserve(wanted, Some(700), now())));

    bring(&mut held, &mut document);
    held.adopt(document.clone(), AHEAD);

    assert_eq!(wanted.map(|wanted| held.admission(wanted.id)), [Some(true), Some(true), Some(false)]);
    assert_eq!(shares(&document, there()), 3);
}

#[test]
fn a_rejected_reservation_fits_after_a_faster_release() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), of_others());
    held.reserve(&wanted, Some(300), now());
    bring(&mut held, &mut document);
    held.write_failed();

    let mut next = Reservations::default();
    bring(&mut held, &mut next);
    held.adopt(next, AHEAD);

    assert_eq!(held.admission(wanted.id), Some(true));
}

#[test]
fn times_are_those_of_the_store_there_and_of_this_process_here() {
    let (held, wanted, document) = told();

    let until = there().checked_add(Reservation::TTL).unwrap();
    assert_eq!(document.held[0].until, until);
    assert_eq!(held.known.held[0].until, wanted.until);
}

#[test]
fn one_that_was_let_in_while_the_store_was_away_is_brought_later() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    held.admit_locally(wanted.id);
    let mut document = of_others();

    let is_dirty = bring(&mut held, &mut document);
    held.adopt(document.clone(), AHEAD);

    assert!(is_dirty);
    assert_eq!((shares(&document, there()), held.live(now()).count()), (2, 2));
}

#[test]
fn what_the_store_has_lost_is_brought_again() {
    let (mut held, _, _) = told();
    let mut document = Reservations::default();

    assert!(bring(&mut held, &mut document));

    assert_eq!(shares(&document, there()), 1);
}

#[test]
fn one_that_is_given_back_is_taken_out_of_the_document_once() {
    let (mut held, wanted, mut document) = told();

    assert!(held.release(wanted.id), "others are to be told");
    assert!(bring(&mut held, &mut document));
    held.adopt(document.clone(), AHEAD);

    assert_eq!(shares(&document, there()), 0);
    assert!(held.own.is_empty(), "{held:?}");
    assert!(!held.release(wanted.id));
}

#[test]
fn one_that_is_given_back_does_not_come_back_with_what_was_read_before() {
    let (mut held, wanted, document) = told();
    held.release(wanted.id);

    held.adopt(document, AHEAD);

    assert_eq!(held.live(now()).count(), 0);
    assert!(!held.own.is_empty(), "others are still to be told");
}

#[test]
fn one_that_is_given_back_while_its_write_is_on_the_way_is_taken_out_when_it_arrives() {
    let (mut held, wanted, mut late) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    bring(&mut held, &mut late);
    // It is unknown whether it was applied.
    assert!(held.release(wanted.id));
    bring(&mut held, &mut Reservations::default());
    held.adopt(Reservations::default(), AHEAD);
    assert!(held.has_pending_releases());

    assert!(bring(&mut held, &mut late));
    held.adopt(late.clone(), AHEAD);

    assert_eq!((shares(&late, there()), held.has_pending_releases()), (0, false));
}

#[test]
fn a_write_that_never_arrives_is_looked_for_a_few_times() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    bring(&mut held, &mut Reservations::default());
    held.release(wanted.id);

    for _ in 0..MAX_MISSED {
        assert!(held.has_pending_releases());
        held.adopt(Reservations::default(), AHEAD);
    }

    assert!(!held.has_pending_releases());
}

#[test]
fn one_whose_write_was_not_applied_is_given_back_without_telling() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    bring(&mut held, &mut Reservations::default());
    held.write_failed();

    assert!(!held.release(wanted.id));
}

#[test]
fn a_reservation_unknown_to_the_store_is_released_locally() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());

    assert!(!held.release(wanted.id));

    assert!(held.is_empty() && held.own.is_empty());
}

#[test]
fn a_write_that_was_applied_unheard_is_recognised() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, Some(200), now());
    assert!(bring(&mut held, &mut document));

    assert!(!bring(&mut held, &mut document));

    assert_eq!((held.admission(wanted.id), shares(&document, there())), (Some(true), 1));
}

#[test]
fn an_unreported_reservation_expires_locally_too() {
    let (mut held, _, _) = told();
    let later = now().checked_add(Reservation::TTL).unwrap();

    held.reserve(&of(1.0), None, later);

    assert_eq!(held.own.len(), 1);
}
