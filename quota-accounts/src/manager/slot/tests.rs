//! Blocks and credential checks when the clock is set back while the program runs.

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
    Clock::virtual_at("2026-06-01T12:00:00Z".parse().unwrap())
}

fn until(slot: &AccountSlot, now: Timestamp) -> Option<Timestamp> {
    evaluate(&slot.candidate(), &Request::new(), now, &RoutingPolicy::default()).retry_at
}

/// A block of ten minutes, made by a clock that was an hour ahead.
fn future_block(now: Timestamp) -> Block {
    let since = now + SignedDuration::from_hours(1);
    Block::new(RejectionKind::Throttled, since).until(since + SignedDuration::from_mins(10))
}

#[tokio::test(start_paused = true)]
async fn a_block_from_the_future_is_moved_to_now() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.block(future_block(now), now);

    assert_eq!(until(&slot, now), Some(now + SignedDuration::from_mins(10)));

    clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(until(&slot, now), Some(now + SignedDuration::from_mins(10)), "it is rebased only once");
}

#[tokio::test(start_paused = true)]
async fn a_rebased_block_replaces_the_stored_one() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.load_blocks(&[future_block(now)], now);

    let (active, removed) = slot.dirty_blocks().expect("the blocks are dirty");

    assert_eq!(removed, [future_block(now)]);
    assert_eq!(active.iter().map(|block| block.since).collect::<Vec<_>>(), [now]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_loaded_blocks_are_not_written_again() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());

    slot.load_blocks(&[Block::new(RejectionKind::Forbidden, now)], now);

    assert!(slot.dirty_blocks().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_rechecked_after_the_clock_was_set_back() {
    let clock = clock();
    let (slot, now) = (slot(&clock), clock.now());
    slot.block(
        Block::new(RejectionKind::Unauthorized, now).fingerprint(CredentialFingerprint::from_hash(7)),
        now,
    );

    assert!(slot.should_recheck_credential(None, now + SignedDuration::from_hours(1)));
    assert!(slot.should_recheck_credential(None, now), "the last check is an hour in the future");
    assert!(!slot.should_recheck_credential(None, now + SignedDuration::from_secs(4)));
}

#[test]
fn a_block_that_is_added_during_a_load_is_saved() {
    let clock = clock();
    let now = clock.now();
    let stored = [Block::new(RejectionKind::Forbidden, now)];
    for _ in 0..200 {
        let slot = slot(&clock);
        std::thread::scope(|scope| {
            scope.spawn(|| slot.load_blocks(&stored, now));
            scope.spawn(|| slot.block(Block::new(RejectionKind::Throttled, now), now));
        });

        assert!(slot.dirty_blocks().is_some());
    }
}
