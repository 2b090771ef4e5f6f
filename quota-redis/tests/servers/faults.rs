//! Faults of a single server, and the errors that callers get.

use std::time::Duration;

use bytes::Bytes;
use quota_core::store::{CasOutcome, StoreError, WriteState};
use quota_core::{Clock, QuotaStore};
use redis_harness::{Proxy, Server, redis};

use crate::env::{TTL, applied, body, key, open, start, swap, until, until_usable, within_deadline};

#[tokio::test]
async fn a_script_missing_on_the_server_is_sent_again() {
    let server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let one = applied(swap(&store, &key, None, "one").await);

    let () = server.command(&["SCRIPT", "FLUSH"]);

    let two = applied(swap(&store, &key, Some(one), "two").await);
    assert_eq!(store.read(&key).await.unwrap().version(), Some(two));
}

#[tokio::test]
async fn values_of_other_programs_are_not_changed() {
    let server = Server::start();
    let store = open(&server.url());
    let plain = "quota:1:{anthropic/plain}";
    let empty = "quota:1:{anthropic/empty}";
    let () = server.command(&["SET", plain, "another's"]);
    let () = server.command(&["SET", empty, ""]);
    let _: i64 = server.command(&["RPUSH", "quota:1:{anthropic/list}", "another's"]);

    for name in ["plain", "empty", "list"] {
        let key = key(name);
        for error in [
            store.read(&key).await.map(drop).unwrap_err(),
            swap(&store, &key, None, "x").await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{name}: {error}");
        }
    }

    assert!(matches!(store.wait_for_change(&key("list"), None).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(server.command::<String>(&["GET", plain]), "another's");
    assert_eq!(server.command::<String>(&["GET", empty]), "");
    assert_eq!(server.command::<i64>(&["LLEN", "quota:1:{anthropic/list}"]), 1);
}

#[tokio::test]
async fn every_ttl_is_accepted() {
    let server = Server::start();
    let store = open(&server.url());

    for (name, ttl) in [("never", Duration::ZERO), ("ever", Duration::MAX)] {
        let swap = store.compare_and_swap(&key(name), None, Bytes::new(), ttl).await;
        assert!(matches!(swap, Ok(CasOutcome::Applied(_))), "{name}: {swap:?}");
    }

    assert!(server.command::<i64>(&["TTL", "quota:1:{anthropic/ever}"]) > 99 * 365 * 24 * 3600);
}

#[tokio::test]
async fn exactly_one_of_64_concurrent_swaps_wins() {
    let server = Server::start();
    let key = key("main");
    let first = applied(swap(&open(&server.url()), &key, None, "start").await);
    let racers: Vec<_> = (0..64)
        .map(|racer| {
            let (store, key) = (open(&server.url()), key.clone());
            start(async move {
                store.compare_and_swap(&key, Some(first), Bytes::from(format!("{racer}")), TTL).await
            })
        })
        .collect();

    let mut winners = Vec::new();
    let mut current = Vec::new();
    for racer in racers {
        match racer.await.unwrap().unwrap() {
            CasOutcome::Applied(version) => winners.push(version),
            CasOutcome::Conflict(reading) => current.extend(reading.version()),
            other => panic!("{other:?}"),
        }
    }

    assert_eq!(winners.len(), 1);
    assert!(current.iter().all(|version| *version == winners[0]), "each loser got the winning version");
    assert_eq!(current.len(), 63);
}

#[tokio::test]
async fn one_connection_is_enough_for_a_thousand_callers() {
    let server = Server::start();
    let store = open(&server.url());
    let before: usize = connections(&server);

    let calls: Vec<_> = (0..1000)
        .map(|index| {
            let store = store.clone();
            start(async move { store.read(&key(&format!("a{index}"))).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }

    // One is the store's connection, the other that of this query.
    assert_eq!(connections(&server) - before, 2);
}

fn connections(server: &Server) -> usize {
    let info: String = server.command(&["INFO", "stats"]);
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.and_then(|count| count.trim().parse().ok()).expect("the server counts its connections")
}

#[tokio::test]
async fn an_unreachable_server_is_reported_at_once() {
    let mut server = Server::start();
    let store = open(&server.url());
    server.kill();

    for _ in 0..3 {
        let error = within_deadline("the error", swap(&store, &key("main"), None, "x")).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Unavailable { applied: WriteState::NotApplied, .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port())), "{error}");
    }
}

#[tokio::test]
async fn a_restarted_server_is_used_again_and_waiters_are_woken() {
    let mut server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);
    let waiting = {
        let (store, key) = (store.clone(), key.clone());
        start(async move { store.wait_for_change(&key, Some(seen)).await })
    };
    until(async || (server.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len() == 1).then_some(())).await;

    server.kill();
    within_deadline("the end of the connection", waiting).await.unwrap().unwrap();
    let error = store.read(&key).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.restart();

    assert_eq!(until_usable(&store, &key).await.document, None);
    let again = applied(swap(&store, &key, None, "two").await);
    assert_ne!(again, seen);
}

#[tokio::test]
async fn a_restart_between_two_calls_causes_no_error() {
    let mut server = Server::start();
    let store = open(&server.url());
    store.read(&key("main")).await.unwrap();

    server.restart();

    store.read(&key("main")).await.unwrap();
}

#[tokio::test]
async fn a_call_to_a_frozen_server_times_out_and_may_be_applied() {
    let server = Server::start();
    let options: quota_redis::RedisOptions = server.url().parse().unwrap();
    let store = options
        .connect_timeout(Duration::from_millis(300))
        .response_timeout(Duration::from_millis(100))
        .open()
        .unwrap();
    let key = key("main");
    let one = applied(swap(&store, &key, None, "one").await);
    server.suspend();

    let bound = Duration::from_millis(1000);
    let clock = Clock::system();
    let error = clock
        .bounded(bound, swap(&store, &key, Some(one), "two"))
        .await
        .expect("the call has a timeout")
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::Unknown, .. }), "{error:?}");
    let error = clock
        .bounded(bound, swap(&store, &key, Some(one), "three"))
        .await
        .expect("the call has a timeout")
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::NotApplied, .. }), "{error:?}");
    server.resume();

    until_usable(&store, &key).await;
    // A command that was in flight when the server froze is executed late. Either of the two values may be the current one.
    let current = body(store.read(&key).await).unwrap();
    assert!(current == "one" || current == "two", "{current:?}");
}

#[tokio::test]
async fn a_read_without_a_reply_reports_no_write() {
    let server = Server::start();
    let options: quota_redis::RedisOptions = server.url().parse().unwrap();
    let store = options.response_timeout(Duration::from_millis(50)).open().unwrap();
    store.read(&key("main")).await.unwrap();
    server.suspend();

    let error = store.read(&key("main")).await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::NotApplied, .. }), "{error:?}");
    server.resume();
}

#[tokio::test]
async fn a_replica_serves_reads_and_rejects_writes_over_one_connection() {
    let master = Server::builder().with("repl-diskless-sync-delay 0").start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();
    let main = key("main");
    let version = applied(swap(&open(&master.url()), &main, None, "one").await);
    let store = open(&replica.url());
    until(async || (store.read(&main).await.unwrap().version() == Some(version)).then_some(())).await;
    let before = connections(&replica);

    for _ in 0..20 {
        let error = swap(&store, &main, Some(version), "two").await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
        assert!(error.to_string().contains("is a read-only replica"), "{error}");
        assert_eq!(store.read(&main).await.unwrap().version(), Some(version));
    }

    // One is the connection of this query.
    assert_eq!(connections(&replica), before + 1);
}

#[tokio::test]
async fn a_server_without_enough_replicas_serves_reads_and_rejects_writes() {
    let server = Server::start();
    let store = open(&server.url());
    let main = key("main");
    let version = applied(swap(&store, &main, None, "one").await);
    let () = server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);

    let error = swap(&store, &main, Some(version), "two").await.unwrap_err();

    assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
    assert!(error.to_string().contains("min-replicas-to-write"), "{error}");
    assert_eq!(store.read(&main).await.unwrap().version(), Some(version));
}

#[tokio::test]
async fn a_replica_without_its_master_that_rejects_reads_is_unavailable() {
    let server = Server::start();
    let store = open(&server.url());
    store.read(&key("main")).await.unwrap();

    let () = server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);

    let error = store.read(&key("main")).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("without a connection to its master"), "{error}");
}

#[tokio::test]
async fn a_server_without_memory_rejects_writes_and_keeps_its_data() {
    let server = Server::start();
    let store = open(&server.url());
    let key = key("main");
    let one = applied(swap(&store, &key, None, "one").await);
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);

    let error = swap(&store, &key, Some(one), "two").await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "the store rejected the operation: redis rejects writes: it is out of memory; raise its maxmemory"
    );
    assert_eq!(store.read(&key).await.unwrap().version(), Some(one));
}

#[tokio::test]
async fn the_error_at_the_maximum_number_of_clients_is_transient() {
    let server = Server::start();
    let store = open(&server.url());
    let mut admin = server.admin();
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).query(&mut admin).unwrap();

    let error = store.read(&key("main")).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).query(&mut admin).unwrap();

    until_usable(&store, &key("main")).await;
}

#[tokio::test]
async fn a_missing_database_is_reported() {
    let server = Server::start();
    let store = open(&format!("{}/99", server.url()));

    let error = store.read(&key("main")).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "the store rejected the operation: redis has no database with this number; use a lower one"
    );
}

#[tokio::test]
async fn a_non_redis_server_is_rejected() {
    for answer in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "*1000000000\r\n", "$99999999999999\r\n", "%-1\r\n", ""]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stranger = start(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
            }
        });
        let options: quota_redis::RedisOptions = format!("redis://127.0.0.1:{port}").parse().unwrap();
        let store = options.connect_timeout(Duration::from_millis(100)).open().unwrap();

        let error = within_deadline("an error", store.read(&key("main"))).await.unwrap_err();

        assert!(error.is_transient(), "{answer:?}: {error:?}");
        stranger.abort();
    }
}

#[tokio::test]
async fn two_prefixes_share_nothing() {
    let server = Server::start();
    let (one, two) = (open(&server.url()), open(&format!("{}?prefix=other", server.url())));
    applied(swap(&one, &key("main"), None, "one").await);

    assert_eq!(two.read(&key("main")).await.unwrap().document, None);
    applied(swap(&two, &key("main"), None, "two").await);

    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(keys, ["other:1:{anthropic/main}", "quota:1:{anthropic/main}"]);
}

#[test]
fn a_store_outlives_the_runtime_it_was_first_used_on() {
    let server = Server::start();
    let store = open(&server.url());

    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(store.read(&key("main"))).unwrap();
    }
}

#[tokio::test]
async fn a_write_whose_reply_was_lost_is_recognized_as_applied() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let store = open(&format!("redis://127.0.0.1:{}", proxy.port()));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);

    proxy.drop_responses(1);
    let version = applied(swap(&store, &key, Some(seen), "two").await);

    assert_eq!(store.read(&key).await.unwrap().version(), Some(version));
    assert_eq!(proxy.connections(), 2);
    let writes = server.calls().into_iter().find(|(name, _)| name == "set");
    assert_eq!(writes, Some(("set".to_owned(), 2)), "it was written once");
}

#[tokio::test]
async fn a_write_whose_replies_are_all_lost_may_be_applied() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let store = open(&format!("redis://127.0.0.1:{}", proxy.port()));
    let key = key("main");
    let seen = applied(swap(&store, &key, None, "one").await);

    proxy.drop_responses(2);
    let error = swap(&store, &key, Some(seen), "two").await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable { applied: WriteState::Unknown, .. }), "{error:?}");
    until_usable(&store, &key).await;
    assert_eq!(body(store.read(&key).await).as_deref(), Some(&b"two"[..]), "and it was");
}
