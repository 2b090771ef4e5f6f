//! A server that replies with errors: no reader gets an error, and the provider gets no extra calls.

use std::slice;
use std::time::Duration;

use quota::testing::FakeProvider;
use quota::{Clock, Event};
use redis_harness::{Cluster, Server, redis};

use crate::fixture::*;

/// Checks that a host with an unusable store behaves like one without a store.
async fn is_served_standalone(url: &str) -> Host {
    let provider = provider();
    let mut host = Host::on(url, &provider);

    for _ in 0..20 {
        assert_eq!(host.get().await, Some(30.0));
    }

    assert!(host.is_standalone());
    assert_eq!(provider.calls(), 1);
    host
}

#[tokio::test]
async fn a_host_on_a_read_only_replica_works_standalone() {
    let master = Server::start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();

    drop(is_served_standalone(&replica.url()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_a_replica_shows_the_masters_writes() {
    let master = Server::builder().with("repl-diskless-sync-delay 0").start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();
    until("the replica is in sync", || {
        replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let (provider, own_provider) = (provider(), FakeProvider::answering("anthropic", 30.0));
    let mut hosts = vec![Host::on(&master.url(), &provider), Host::on(&replica.url(), &own_provider)];
    assert_eq!(hosts[0].get().await, Some(30.0));
    let version = || master.command::<String>(&["GET", KEY]);
    until("the replica has the record", || {
        replica.command::<Option<String>>(&["GET", KEY]) == Some(version())
    })
    .await;

    assert_eq!(hosts[1].get().await, Some(30.0));
    assert_eq!(own_provider.calls(), 0);
    // The write is rejected, so the host goes standalone.
    set_usage(&own_provider, &hosts, 40.0).await;
    assert_eq!(hosts[1].refresh().await, Some(40.0));
    assert!(hosts[1].is_standalone());
    set_usage(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[0].refresh().await, Some(50.0));

    hosts[1].until_shows(50.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_a_node_that_replies_moved_works_standalone() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let stranger = (cluster.owner_of(cluster.slot_of(KEY)) + 1) % 3;
    let node = &cluster.nodes()[stranger];
    let refusal = node.try_command::<Option<String>>(&["GET", KEY]).unwrap_err();
    assert_eq!(refusal.code(), Some("MOVED"));

    // The client treats the node as a single server.
    drop(is_served_standalone(&node.url()).await);
}

#[tokio::test]
async fn a_host_with_a_wrong_or_missing_password_works_standalone() {
    let server = Server::start();
    let () = server.command(&["CONFIG", "SET", "requirepass", "right"]);

    for login in ["", ":wrong@"] {
        drop(is_served_standalone(&format!("redis://{login}127.0.0.1:{}", server.port())).await);
    }
}

#[tokio::test]
async fn a_host_without_permissions_works_standalone() {
    let server = Server::start();
    let () = server.command(&["ACL", "SETUSER", "no-rights", "on", ">secret", "~*", "&*", "+ping"]);

    drop(is_served_standalone(&format!("redis://no-rights:secret@127.0.0.1:{}", server.port())).await);
}

#[tokio::test]
async fn a_host_works_standalone_and_keeps_a_key_of_another_type() {
    let server = Server::start();
    let _: i64 = server.command(&["RPUSH", KEY, "another program's"]);

    drop(is_served_standalone(&server.url()).await);

    assert_eq!(server.command::<String>(&["TYPE", KEY]), "list");
}

#[tokio::test]
async fn a_host_works_standalone_and_keeps_a_corrupt_record() {
    for damaged in ["0123456789abcdef {\"format\":1,\"fen", "0123456789abcdef ", "without a version"] {
        let server = Server::start();
        let () = server.command(&["SET", KEY, damaged]);

        drop(is_served_standalone(&server.url()).await);

        assert_eq!(server.command::<String>(&["GET", KEY]), damaged);
    }
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_not_rewritten_and_causes_no_call() {
    let server = Server::start();
    let provider = provider();
    let newer = "0123456789abcdef {\"format\":999,\"fence\":7,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let () = server.command(&["SET", KEY, newer]);
    let host = Host::on(&server.url(), &provider);

    let got = within_deadline("a read", host.main.get()).await;

    assert!(got.is_err(), "{got:?}");
    assert_eq!(provider.calls(), 0);
    assert_eq!(server.command::<String>(&["GET", KEY]), newer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_five_megabytes_delays_no_reader_and_is_not_truncated() {
    let server = Server::start();
    let large =
        format!("0123456789abcdef {{\"format\":1,\"fence\":7,\"later\":\"{}\"}}", "x".repeat(5 << 20));
    let () = server.command(&["SET", KEY, &large]);
    let provider = provider();
    let mut host = Host::on(&server.url(), &provider);

    assert_eq!(host.get().await, Some(30.0));

    assert_eq!(provider.calls(), 1);
    let stored: String = server.command(&["GET", KEY]);
    assert!(stored.contains(&"x".repeat(5 << 20)), "unknown fields are preserved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_used_again_after_it_gets_some() {
    let server = Server::start();
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    set_usage(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    assert!(hosts[0].is_standalone());
    assert_eq!((hosts[1].get().await, provider.calls()), (Some(30.0), 2));
    let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    set_usage(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[0].refresh().await, Some(50.0));

    hosts[1].until_shows(50.0).await;
    assert_eq!(provider.calls(), 3);
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_record_is_restored_by_hosts_that_cached_it() {
    let server = Server::start();
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    let () = server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    until("everything was evicted", || {
        // A write evicts keys first. If no key can be evicted, the write is rejected.
        let _ = server.try_command::<()>(&["SET", "other", "x"]);
        server.command::<i64>(&["EXISTS", KEY]) == 0
    })
    .await;
    assert_eq!((hosts[0].get().await, hosts[1].get().await), (Some(30.0), Some(30.0)));
    let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]);

    all_agree(&provider, &mut hosts).await;
    assert_eq!(provider.calls(), 2);
    assert_eq!(server.command::<i64>(&["EXISTS", KEY]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_too_many_clients_is_unavailable_and_recovers() {
    let server = Server::start();
    let mut admin = server.admin();
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).query(&mut admin).unwrap();

    let host = is_served_standalone(&server.url()).await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).query(&mut admin).unwrap();

    host.until_shared().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_script_is_not_an_outage() {
    let server = Server::start();
    let provider = provider();
    let mut host = Host::on(&server.url(), &provider);
    assert_eq!(host.get().await, Some(30.0));

    let () = server.command(&["SCRIPT", "FLUSH"]);
    set_usage(&provider, slice::from_ref(&host), 40.0).await;
    assert_eq!(host.refresh().await, Some(40.0));

    assert!(!host.is_standalone());
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_logged_once_for_all_callers() {
    let mut server = Server::start();
    let provider = provider();
    let mut host = Host::on(&server.url(), &provider);
    assert_eq!(host.get().await, Some(30.0));
    let mut events = host.quota.events();

    server.kill();
    for _ in 0..20 {
        host.refresh().await;
    }

    let mut lost = 0;
    let clock = Clock::system();
    while let Some(Some(event)) = clock.bounded(Duration::from_millis(300), events.next()).await {
        lost += usize::from(matches!(event, Event::StoreUnavailable));
    }
    assert_eq!(lost, 1);
}
