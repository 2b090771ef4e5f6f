//! What becomes of blocks and looks when the clock is set back under a running program.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::model::CredentialFingerprint;
use quota_core::provider::RejectionKind;
use quota_core::{Clock, MemoryStore, QuotaManager};

use super::*;
use crate::routing::evaluate;
use crate::{Request, RoutingPolicy};

fn slot(clock: &Clock) -> AccountSlot {
    let id: AccountId = "example/main".parse().unwrap();
    let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone())).clock(clock.clone());
    let usage = quota.build().unwrap().account(&id);
    AccountSlot::new(Role::Main, &AccountConfig::new(id), usage)
}

fn clock() -> Clock {
    Clock::anchored("2026-06-01T12:00:00Z".parse().unwrap())
}

fn until(slot: &AccountSlot, now: Timestamp) -> Option<Timestamp> {
    evaluate(&slot.candidate(), &Request::new(), now, &RoutingPolicy::default()).retry_at
}

/// A block of a clock that was an hour ahead, which was to last ten minutes.
fn ahead(now: Timestamp) -> Block {
    let since = now + SignedDuration::from_hours(1);
    Block::new(RejectionKind::Throttled, since).until(since + SignedDuration::from_mins(10))
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_made_before_the_clock_was_set_back_lasts_as_long_from_now() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.block(ahead(now), now);

    assert_eq!(until(&slot, now), Some(now + SignedDuration::from_mins(10)));

    clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(until(&slot, now), Some(now + SignedDuration::from_mins(10)), "it is brought back once");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_brought_back_takes_its_own_place_on_disk() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.load_blocks(&[ahead(now)], now);

    let (live, removed) = slot.dirty_blocks().expect("there is something to write");

    assert_eq!(removed, [ahead(now)]);
    assert_eq!(live.iter().map(|block| block.since).collect::<Vec<_>>(), [now]);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_kept_as_they_were_are_not_written_again() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());

    slot.load_blocks(&[Block::new(RejectionKind::Forbidden, now)], now);

    assert!(slot.dirty_blocks().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_looked_at_again_although_the_clock_was_set_back_since_the_last_look() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.block(
        Block::new(RejectionKind::Unauthorized, now).fingerprint(CredentialFingerprint::from_hash(7)),
        now,
    );

    assert!(slot.should_recheck_credential(now + SignedDuration::from_hours(1)));
    assert!(slot.should_recheck_credential(now), "the last look was not a moment ago");
    assert!(!slot.should_recheck_credential(now + SignedDuration::from_secs(4)));
}
