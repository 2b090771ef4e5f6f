//! Which changes wake which waiters, and what this costs the server.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use quota_core::QuotaStore;
use quota_core::store::{Document, Notice, StoreKey, Version};
use quota_redis::RedisStore;
use redis_harness::{Cluster, Proxy, Server};

use crate::env::{TTL, applied, key, open, start, still_waits, swap, until, within_deadline};

fn count(server: &Server, command: &str) -> u64 {
    server.calls().into_iter().find(|(name, _)| name == command).map_or(0, |(_, calls)| calls)
}

fn subscriptions(server: &Server) -> usize {
    server.command::<Vec<String>>(&["PUBSUB", "CHANNELS", "*"]).len()
}

#[tokio::test]
async fn a_change_by_another_process_wakes_a_waiter() {
    let server = Server::start();
    let (here, there) = (open(&server.url()), open(&server.url()));
    let key = key("main");
    let seen = applied(swap(&here, &key, None, "one").await);
    let mut wait = pin!(here.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&here, &mut wait).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;

    applied(swap(&there, &key, Some(seen), "two").await);

    within_deadline("the notice", wait).await.unwrap();
}

/// The notice of a write of this body by another process, and its version.
async fn notice_of(server: &Server, body: String) -> (Notice, Version) {
    let (here, there) = (open(&server.url()), open(&server.url()));
    let key = key("main");
    let seen = applied(swap(&here, &key, None, "one").await);
    let mut wait = pin!(here.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&here, &mut wait).await);
    // The query that follows the subscription has no document.
    until(async || (count(server, "getrange") == 1).then_some(())).await;

    let version = applied(there.compare_and_swap(&key, Some(seen), body.into(), TTL).await);

    (within_deadline("the notice", wait).await.expect("the server responds"), version)
}

#[tokio::test]
async fn a_notice_contains_the_document() {
    let server = Server::start();

    let (notice, version) = notice_of(&server, "two".to_owned()).await;

    assert_eq!(notice, Notice::of_document(Document::new(version, "two".into())));
}

#[tokio::test]
async fn a_notice_of_a_long_document_contains_only_its_version() {
    let server = Server::start();

    let (notice, version) = notice_of(&server, "x".repeat(16 * 1024)).await;

    assert_eq!(notice, Notice::of_version(version));
}

#[tokio::test]
async fn a_responsive_connection_is_confirmed_to_its_waiters() {
    let server = Server::start();
    let store = with_keepalive(&server.url(), Duration::from_millis(5));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);

    let notice = within_deadline("the confirmation", store.wait_for_change(&key, Some(seen))).await;

    assert_eq!(notice.unwrap(), Notice::unchanged());
}

#[tokio::test]
async fn an_own_write_does_not_wake_a_waiter_with_its_version() {
    let server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let mut seen = applied(swap(&store, &key, None, "0").await);
    let mut first = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut first).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;

    for body in ["1", "2", "3"] {
        seen = applied(swap(&store, &key, Some(seen), body).await);
        let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
        assert!(still_waits(&store, &mut wait).await, "{body}");
    }

    within_deadline("the waiter with the older version", first).await.unwrap();
}

#[tokio::test]
async fn two_swaps_under_a_subscription_cost_two_script_calls_and_nothing_else() {
    let server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let mut seen = applied(swap(&store, &key, None, "0").await);
    {
        let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
        assert!(still_waits(&store, &mut wait).await);
        until(async || (count(&server, "getrange") == 1).then_some(())).await;
        assert!(still_waits(&store, &mut wait).await);
    }
    let () = server.command(&["CONFIG", "RESETSTAT"]);

    for body in ["lease", "commit"] {
        seen = applied(swap(&store, &key, Some(seen), body).await);
        let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
        assert!(wait.as_mut().now_or_never().is_none(), "{body}");
    }

    let mut calls = server.calls();
    calls.sort();
    let named = |name: &str, calls: u64| (name.to_owned(), calls);
    assert_eq!(calls, [named("evalsha", 2), named("get", 2), named("publish", 2), named("set", 2)]);
}

#[tokio::test]
async fn many_waiters_share_one_subscription() {
    let server = Server::start();
    let (store, other) = (open(&server.url()), open(&server.url()));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);

    let waits: Vec<_> = (0..100)
        .map(|_| {
            let (store, key) = (store.clone(), key.clone());
            start(async move { store.wait_for_change(&key, Some(seen)).await })
        })
        .collect();
    until(async || (count(&server, "getrange") == 1).then_some(())).await;
    applied(swap(&other, &key, Some(seen), "two").await);

    for wait in waits {
        within_deadline("the notice", wait).await.unwrap().unwrap();
    }
    assert_eq!((count(&server, "subscribe"), count(&server, "getrange")), (1, 1));
}

#[tokio::test]
async fn a_write_before_the_subscription_wakes_at_once() {
    let server = Server::start();
    let (here, there) = (open(&server.url()), open(&server.url()));
    let key = key("main");
    let seen = applied(swap(&here, &key, None, "one").await);
    applied(swap(&there, &key, Some(seen), "two").await);

    within_deadline("the earlier change", here.wait_for_change(&key, Some(seen))).await.unwrap();
}

#[tokio::test]
async fn an_expired_document_wakes_once() {
    let server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    let mut first = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut first).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;
    let _: i64 = server.command(&["DEL", "quota:1:{anthropic/main}"]);
    assert_eq!(store.read(&key).await.unwrap().version(), None);

    within_deadline("the reply to the read", first).await.unwrap();

    let mut again = pin!(store.wait_for_change(&key, None));
    assert!(still_waits(&store, &mut again).await);
}

#[tokio::test]
async fn an_idle_subscription_ends_and_starts_again() {
    let server = Server::start();
    let options: quota_redis::RedisOptions = server.url().parse().unwrap();
    let store = options.unsubscribe_after(Duration::from_millis(1)).open().unwrap();
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    for _ in 0..3 {
        let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
        assert!(still_waits(&store, &mut wait).await);
        until(async || (subscriptions(&server) == 1).then_some(())).await;
    }

    until(async || (subscriptions(&server) == 0).then_some(())).await;

    let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut wait).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_lost_connection_wakes_all_waiters() {
    let server = Server::start();
    let store = open(&server.url());
    let keys = [key("main"), key("fallback"), StoreKey::probe()];
    let mut waits: Vec<_> = keys.iter().map(|key| Box::pin(store.wait_for_change(key, None))).collect();
    for wait in &mut waits {
        assert!(still_waits(&store, wait).await);
    }
    until(async || (subscriptions(&server) == 3).then_some(())).await;

    let _: i64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);

    for wait in waits {
        within_deadline("the end of the connection", wait).await.unwrap();
    }
}

/// Opens a store with this keepalive interval.
fn with_keepalive(url: &str, every: Duration) -> RedisStore {
    let options: quota_redis::RedisOptions = url.parse().expect("the URL is valid");
    options
        .keepalive_interval(every)
        .response_timeout(Duration::from_millis(100))
        .open()
        .expect("the options are valid")
}

#[tokio::test]
async fn a_frozen_server_wakes_all_waiters() {
    let server = Server::start();
    let store = with_keepalive(&server.url(), Duration::from_millis(50));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut wait).await);
    until(async || (count(&server, "getrange") > 2).then_some(())).await;
    assert!(still_waits(&store, &mut wait).await, "a responsive server wakes no waiter");

    server.suspend();

    within_deadline("the end of the connection", wait).await.unwrap();
    server.resume();
}

#[tokio::test]
async fn a_server_that_replies_with_an_error_keeps_its_connection() {
    let server = Server::start();
    let store = with_keepalive(&server.url(), Duration::from_millis(20));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut wait).await);
    let rejections = || {
        let stats: String = server.command(&["INFO", "errorstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("errorstat_MASTERDOWN:count="));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
    };

    let () = server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    until(async || (rejections() >= 3).then_some(())).await;
    let () = server.command(&["REPLICAOF", "NO", "ONE"]);

    assert!(still_waits(&store, &mut wait).await);
}

#[tokio::test]
async fn a_network_that_drops_all_bytes_wakes_all_waiters() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let store = with_keepalive(&proxy.url(), Duration::from_millis(50));
    let key = key("main");
    let mut wait = pin!(store.wait_for_change(&key, None));
    assert!(still_waits(&store, &mut wait).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;

    proxy.black_hole();

    within_deadline("the end of the connection", wait).await.unwrap();
}

#[tokio::test]
async fn a_connection_without_waiters_is_not_probed() {
    let server = Server::start();
    let store = with_keepalive(&server.url(), Duration::from_millis(10));
    let key = key("main");
    {
        let mut wait = pin!(store.wait_for_change(&key, None));
        assert!(still_waits(&store, &mut wait).await);
        until(async || (count(&server, "getrange") > 2).then_some(())).await;
    }

    until_unchanged(&server).await;
}

/// Checks that the store finds a change by polling, without a subscription.
async fn check_that_polls_find_a_change(server: &Server, url: &str) {
    let options: quota_redis::RedisOptions = url.parse().expect("the URL is valid");
    let store = options.poll_interval(Duration::from_millis(20)).open().expect("the options are valid");
    let other = open(&server.url());
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&store, &mut wait).await);

    applied(swap(&other, &key, Some(seen), "two").await);

    within_deadline("the poll", wait).await.expect("the store is reachable");
    assert_eq!(count(server, "subscribe"), 0);
}

#[tokio::test]
async fn without_the_permission_to_subscribe_the_version_is_polled() {
    let server = Server::start();
    let () = server.command(&[
        "ACL",
        "SETUSER",
        "no-subscribe",
        "on",
        ">pw",
        "~*",
        "resetchannels",
        "+@all",
        "-subscribe",
    ]);
    let url = format!("redis://no-subscribe:pw@127.0.0.1:{}", server.port());
    check_that_polls_find_a_change(&server, &url).await;
}

#[tokio::test]
async fn without_resp3_the_version_is_polled() {
    let server = Server::builder().with("rename-command HELLO \"\"").start();
    check_that_polls_find_a_change(&server, &server.url()).await;
}

#[tokio::test]
async fn polling_stops_without_waiters() {
    let server = Server::builder().with("rename-command HELLO \"\"").start();
    let options: quota_redis::RedisOptions = server.url().parse().unwrap();
    let store = options.poll_interval(Duration::from_millis(10)).open().unwrap();
    let key = key("main");
    {
        let mut wait = pin!(store.wait_for_change(&key, None));
        assert!(still_waits(&store, &mut wait).await);
        until(async || (count(&server, "getrange") > 2).then_some(())).await;
    }

    until_unchanged(&server).await;
}

/// Waits until no version was queried during a time in which ten queries were due.
async fn until_unchanged(server: &Server) {
    let (mut last, mut unchanged) = (0, 0);
    until(async || {
        let now = count(server, "getrange");
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
        // `until` polls every few milliseconds.
        (unchanged == 20).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_databases_have_separate_channels() {
    let server = Server::start();
    let (zero, one) = (open(&server.url()), open(&format!("{}/1", server.url())));
    let key = key("main");
    let seen = applied(swap(&zero, &key, None, "one").await);
    let mut wait = pin!(zero.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&zero, &mut wait).await);
    until(async || (subscriptions(&server) == 1).then_some(())).await;

    applied(swap(&one, &key, None, "another document").await);

    assert!(still_waits(&zero, &mut wait).await);
}

#[tokio::test]
async fn replies_are_not_mixed_up_when_a_subscribed_slot_moves() {
    let cluster = Cluster::start();
    let store = open(&cluster.url());
    let moving = key("main");
    let slot = cluster.slot_of("quota:1:{anthropic/main}");
    let from = cluster.owner_of(slot);
    let seen = applied(swap(&store, &moving, None, "moving").await);
    let mut wait = pin!(store.wait_for_change(&moving, Some(seen)));
    assert!(still_waits(&store, &mut wait).await);
    until(async || {
        let shards: Vec<String> = cluster.nodes()[from].command(&["PUBSUB", "SHARDCHANNELS"]);
        (shards.len() == 1).then_some(())
    })
    .await;
    // Other keys on the same node, read without pause while the slot moves.
    let others: Vec<_> = (0..200).map(|index| key(&format!("other-{index}"))).collect();
    let others: Vec<_> = others
        .into_iter()
        .filter(|key| cluster.owner_of(cluster.slot_of(&format!("quota:1:{{{key}}}"))) == from)
        .take(8)
        .collect();
    for key in &others {
        let body = bytes::Bytes::from(key.to_string());
        let _ = store.compare_and_swap(key, None, body, TTL).await.unwrap();
    }
    let asking: Vec<_> = others
        .iter()
        .map(|key| {
            let (store, key) = (store.clone(), key.clone());
            start(async move {
                for _ in 0..2000 {
                    let body = store.read(&key).await.unwrap().document.map(|document| document.body);
                    assert_eq!(body.as_deref(), Some(key.as_str().as_bytes()), "the reply to another read");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    let to = (from + 1) % 3;
    let moved = tokio::task::spawn_blocking(move || {
        cluster.begin_move(slot, from, to);
        cluster.move_keys(slot, from, to);
        cluster.end_move(slot, from, to);
        cluster
    });

    within_deadline("the end of the subscription", wait).await.unwrap();
    for task in asking {
        within_deadline("all replies", task).await.unwrap();
    }
    let _cluster = moved.await.unwrap();
    assert_eq!(store.read(&moving).await.unwrap().version(), Some(seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_missed_in_2000_rounds_of_two_writers() {
    let server = Server::start();
    let (here, there) = (open(&server.url()), open(&server.url()));
    let key = key("main");
    let mut seen = applied(swap(&here, &key, None, "0").await);

    for round in 0..1000 {
        // One writer writes while the other waits. Then the other writes, possibly while the first notice is still in flight.
        let writing = {
            let (there, key) = (there.clone(), key.clone());
            start(async move { applied(swap(&there, &key, Some(seen), "there").await) })
        };
        within_deadline("the notice", here.wait_for_change(&key, Some(seen))).await.unwrap();
        let other = writing.await.unwrap();
        assert_eq!(here.read(&key).await.unwrap().version(), Some(other), "round {round}");

        seen = applied(swap(&here, &key, Some(other), "here").await);
        within_deadline("the notice", there.wait_for_change(&key, Some(other))).await.unwrap();
    }

    assert_eq!(subscriptions(&server), 1);
    assert_eq!(count(&server, "subscribe"), 2, "one for each connection");
}
