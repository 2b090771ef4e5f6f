use super::*;

/// The time by this process's clock. The store's clock is an hour behind.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

const OFFSET: SignedDuration = SignedDuration::from_hours(-1);

fn store_now() -> Timestamp {
    now() + OFFSET
}

fn percent(percent: f64) -> Percent {
    Percent::from_percent(percent).unwrap()
}

fn of(share: f64) -> Reservation {
    Reservation::new(WindowId::five_hour(), percent(share), now())
}

/// A reservation of two percent by another host, by the store's clock.
fn other_hosts() -> Reservations {
    let mut document = Reservations::default();
    document.add(Reservation::new(WindowId::five_hour(), percent(2.0), store_now()));
    document
}

fn count(reservations: &Reservations, now: Timestamp) -> usize {
    reservations.live(now).count()
}

/// A reservation of this process that was admitted and written.
fn written() -> (LocalReservations, Reservation, Reservations) {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    merge(&mut held, &mut document);
    held.adopt(document.clone(), OFFSET);
    (held, wanted, document)
}

fn merge(held: &mut LocalReservations, document: &mut Reservations) -> bool {
    let before = document.clone();
    held.merge_into(document, store_now(), OFFSET);
    *document != before
}

#[test]
fn a_reservation_that_does_not_fit_beside_others_is_not_written() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), other_hosts());
    assert!(held.reserve(&wanted, Some(300), now()));

    let is_dirty = merge(&mut held, &mut document);

    assert_eq!((is_dirty, held.admission(wanted.id)), (false, Some(false)));
}

#[test]
fn one_sync_decides_all_pending_reservations() {
    let (mut held, mut document) = (LocalReservations::default(), other_hosts());
    let wanted = [of(2.0), of(2.0), of(2.0)];
    wanted.iter().for_each(|wanted| assert!(held.reserve(wanted, Some(700), now())));

    merge(&mut held, &mut document);
    held.adopt(document.clone(), OFFSET);

    assert_eq!(wanted.map(|wanted| held.admission(wanted.id)), [Some(true), Some(true), Some(false)]);
    assert_eq!(count(&document, store_now()), 3);
}

#[test]
fn a_rejected_reservation_fits_after_a_faster_release() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), other_hosts());
    held.reserve(&wanted, Some(300), now());
    merge(&mut held, &mut document);
    held.write_failed();

    let mut next = Reservations::default();
    merge(&mut held, &mut next);
    held.adopt(next, OFFSET);

    assert_eq!(held.admission(wanted.id), Some(true));
}

#[test]
fn times_are_converted_between_the_clocks() {
    let (held, wanted, document) = written();

    let until = store_now().checked_add(Reservation::TTL).unwrap();
    assert_eq!(document.reservations[0].until, until);
    assert_eq!(held.cached.reservations[0].until, wanted.until);
}

#[test]
fn a_locally_admitted_reservation_is_written_later() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    held.admit_locally(wanted.id);
    let mut document = other_hosts();

    let is_dirty = merge(&mut held, &mut document);
    held.adopt(document.clone(), OFFSET);

    assert!(is_dirty);
    assert_eq!((count(&document, store_now()), held.live(now()).count()), (2, 2));
}

#[test]
fn a_reservation_that_the_store_lost_is_written_again() {
    let (mut held, _, _) = written();
    let mut document = Reservations::default();

    assert!(merge(&mut held, &mut document));

    assert_eq!(count(&document, store_now()), 1);
}

#[test]
fn a_release_removes_the_reservation_once() {
    let (mut held, wanted, mut document) = written();

    assert!(held.release(wanted.id), "it must be removed from the store");
    assert!(merge(&mut held, &mut document));
    held.adopt(document.clone(), OFFSET);

    assert_eq!(count(&document, store_now()), 0);
    assert!(held.own.is_empty(), "{held:?}");
    assert!(!held.release(wanted.id));
}

#[test]
fn a_released_reservation_does_not_return_from_an_older_document() {
    let (mut held, wanted, document) = written();
    held.release(wanted.id);

    held.adopt(document, OFFSET);

    assert_eq!(held.live(now()).count(), 0);
    assert!(!held.own.is_empty(), "the store must still lose it");
}

#[test]
fn a_release_before_its_write_arrives_removes_it_later() {
    let (mut held, wanted, mut late) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, None, now());
    merge(&mut held, &mut late);
    // It is unknown whether it was applied.
    assert!(held.release(wanted.id));
    merge(&mut held, &mut Reservations::default());
    held.adopt(Reservations::default(), OFFSET);
    assert!(held.has_pending_releases());

    assert!(merge(&mut held, &mut late));
    held.adopt(late.clone(), OFFSET);

    assert_eq!((count(&late, store_now()), held.has_pending_releases()), (0, false));
}

#[test]
fn a_release_of_a_lost_write_is_retried_a_few_times() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    merge(&mut held, &mut Reservations::default());
    held.release(wanted.id);

    for _ in 0..MAX_MISSED {
        assert!(held.has_pending_releases());
        held.adopt(Reservations::default(), OFFSET);
    }

    assert!(!held.has_pending_releases());
}

#[test]
fn a_release_after_a_failed_write_needs_no_sync() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());
    merge(&mut held, &mut Reservations::default());
    held.write_failed();

    assert!(!held.release(wanted.id));
}

#[test]
fn a_reservation_unknown_to_the_store_is_released_locally() {
    let (mut held, wanted) = (LocalReservations::default(), of(2.0));
    held.reserve(&wanted, None, now());

    assert!(!held.release(wanted.id));

    assert!(held.cached.reservations.is_empty() && held.own.is_empty());
}

#[test]
fn a_write_with_a_lost_answer_is_recognized() {
    let (mut held, wanted, mut document) = (LocalReservations::default(), of(2.0), Reservations::default());
    held.reserve(&wanted, Some(200), now());
    assert!(merge(&mut held, &mut document));

    assert!(!merge(&mut held, &mut document));

    assert_eq!((held.admission(wanted.id), count(&document, store_now())), (Some(true), 1));
}

#[test]
fn an_unreported_reservation_expires_locally_too() {
    let (mut held, _, _) = written();
    let later = now().checked_add(Reservation::TTL).unwrap();

    held.reserve(&of(1.0), None, later);

    assert_eq!(held.own.len(), 1);
}
