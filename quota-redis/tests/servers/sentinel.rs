//! Sentinels: how the master is found, even after a failover.

use std::time::Duration;

use quota_core::store::StoreError;
use quota_core::{Clock, QuotaStore};
use redis_harness::{Sentinels, redis};

use crate::env::{applied, body, key, open, start, swap, until, within_deadline};

#[tokio::test]
async fn after_a_failover_the_new_master_is_found_with_the_data() {
    let mut sentinels = Sentinels::start();
    let store = open(&sentinels.url());
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "before").await);
    let _: i64 = redis::cmd("WAIT").arg(1).arg(5000).query(&mut sentinels.initial_master().admin()).unwrap();
    let waiting = {
        let (store, key) = (store.clone(), key.clone());
        start(async move { store.wait_for_change(&key, Some(seen)).await })
    };
    until(async || {
        (sentinels.initial_master().command::<Vec<String>>(&["PUBSUB", "CHANNELS", "quota*"]).len() == 1)
            .then_some(())
    })
    .await;

    sentinels.initial_master().kill();

    within_deadline("the end of the connection", waiting).await.unwrap().unwrap();
    let next = until(async || swap(&store, &key, Some(seen), "after").await.ok()).await;
    let next = applied(Ok(next));
    sentinels.wait_for_failover();
    assert_eq!(sentinels.replica().command::<i64>(&["EXISTS", "quota:1:{anthropic/main}"]), 1);
    assert_eq!(store.read(&key).await.unwrap().version(), Some(next));
}

#[tokio::test]
async fn callers_that_wait_for_no_reply_leave_a_frozen_master() {
    let mut sentinels = Sentinels::start();
    let store = open(&sentinels.url());
    let key = key("main");
    applied(swap(&store, &key, None, "before").await);
    let _: i64 = redis::cmd("WAIT").arg(1).arg(5000).query(&mut sentinels.initial_master().admin()).unwrap();

    sentinels.initial_master().suspend();
    sentinels.wait_for_failover();

    let clock = Clock::system();
    let patience = Duration::from_millis(100);
    let read = until(async || clock.bounded(patience, store.read(&key)).await.and_then(Result::ok)).await;
    assert_eq!(body(Ok(read)).as_deref(), Some(&b"before"[..]));
    sentinels.initial_master().resume();
}

#[tokio::test]
async fn the_store_works_while_one_sentinel_is_down() {
    let mut sentinels = Sentinels::start();
    let url = sentinels.url();
    sentinels.sentinels_mut()[0].kill();
    sentinels.sentinels_mut()[1].suspend();
    let store = open(&url);

    applied(swap(&store, &key("main"), None, "one").await);

    assert_eq!(body(store.read(&key("main")).await).as_deref(), Some(&b"one"[..]));
    sentinels.sentinels_mut()[1].resume();
}

#[tokio::test]
async fn an_unknown_master_name_is_rejected() {
    let sentinels = Sentinels::start_single();
    let store = open(&sentinels.url().replace("quota-master", "unknown"));

    let error = store.read(&key("main")).await.unwrap_err();

    assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
    assert!(error.to_string().contains("have no master of this name"), "{error}");
}
