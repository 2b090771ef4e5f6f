//! A server that answers with an error: no reader is told of it, and the provider is asked no more often.

use std::slice;
use std::time::Duration;

use quota::testing::FakeProvider;
use quota::{Clock, Event};
use redis_harness::{Cluster, Server, redis};

use crate::world::*;

/// A host on a store that cannot be used is served like one that has no store.
async fn is_served_alone(url: &str) -> Host {
    let provider = provider();
    let mut host = Host::on(url, &provider);

    for _ in 0..20 {
        assert_eq!(host.get().await, Some(30.0));
    }

    assert!(host.is_alone());
    assert_eq!(provider.calls(), 1);
    host
}

#[tokio::test]
async fn a_replica_serves_like_no_store() {
    let master = Server::start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();

    drop(is_served_alone(&replica.url()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_a_replica_shows_what_a_host_on_the_master_writes() {
    let master = Server::builder().with("repl-diskless-sync-delay 0").start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();
    until("the replica follows", || {
        replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let (provider, own_provider) = (provider(), FakeProvider::answering("anthropic", 30.0));
    let mut hosts = vec![Host::on(&master.url(), &provider), Host::on(&replica.url(), &own_provider)];
    assert_eq!(hosts[0].get().await, Some(30.0));
    let version = || master.ask::<String>(&["GET", KEY]);
    until("the replica has it", || replica.ask::<Option<String>>(&["GET", KEY]) == Some(version())).await;

    assert_eq!(hosts[1].get().await, Some(30.0));
    assert_eq!(own_provider.calls(), 0);
    // Its write is refused, and it goes on with a copy of its own.
    moves_to(&own_provider, &hosts, 40.0).await;
    assert_eq!(hosts[1].refresh().await, Some(40.0));
    assert!(hosts[1].is_alone());
    moves_to(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[0].refresh().await, Some(50.0));

    hosts[1].until_shows(50.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_that_the_account_has_moved_serves_like_no_store() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let stranger = (cluster.owner_of(cluster.slot_of(KEY)) + 1) % 3;
    let node = &cluster.nodes()[stranger];
    let refusal = node.try_ask::<Option<String>>(&["GET", KEY]).unwrap_err();
    assert_eq!(refusal.code(), Some("MOVED"));

    // As a single server, by a client without cluster support.
    drop(is_served_alone(&node.url()).await);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_one_serve_like_no_store() {
    let server = Server::start();
    let () = server.ask(&["CONFIG", "SET", "requirepass", "right"]);

    for login in ["", ":wrong@"] {
        drop(is_served_alone(&format!("redis://{login}127.0.0.1:{}", server.port())).await);
    }
}

#[tokio::test]
async fn a_user_without_rights_is_served_like_one_without_a_store() {
    let server = Server::start();
    let () = server.ask(&["ACL", "SETUSER", "no-rights", "on", ">secret", "~*", "&*", "+ping"]);

    drop(is_served_alone(&format!("redis://no-rights:secret@127.0.0.1:{}", server.port())).await);
}

#[tokio::test]
async fn a_key_of_another_type_is_left_alone_and_serves_like_no_store() {
    let server = Server::start();
    let _: i64 = server.ask(&["RPUSH", KEY, "another program's"]);

    drop(is_served_alone(&server.url()).await);

    assert_eq!(server.ask::<String>(&["TYPE", KEY]), "list");
}

#[tokio::test]
async fn a_damaged_record_is_left_as_it_is_and_serves_like_no_store() {
    for damaged in ["0123456789abcdef {\"format\":1,\"fen", "0123456789abcdef ", "no version at all"] {
        let server = Server::start();
        let () = server.ask(&["SET", KEY, damaged]);

        drop(is_served_alone(&server.url()).await);

        assert_eq!(server.ask::<String>(&["GET", KEY]), damaged);
    }
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_not_rewritten_and_causes_no_call() {
    let server = Server::start();
    let provider = provider();
    let newer = "0123456789abcdef {\"format\":999,\"fence\":7,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let () = server.ask(&["SET", KEY, newer]);
    let host = Host::on(&server.url(), &provider);

    let got = soon("an answer", host.main.get()).await;

    assert!(got.is_err(), "{got:?}");
    assert_eq!(provider.calls(), 0);
    assert_eq!(server.ask::<String>(&["GET", KEY]), newer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_five_megabytes_delays_no_reader_and_is_not_cut() {
    let server = Server::start();
    let large =
        format!("0123456789abcdef {{\"format\":1,\"fence\":7,\"later\":\"{}\"}}", "x".repeat(5 << 20));
    let () = server.ask(&["SET", KEY, &large]);
    let provider = provider();
    let mut host = Host::on(&server.url(), &provider);

    assert_eq!(host.get().await, Some(30.0));

    assert_eq!(provider.calls(), 1);
    let kept: String = server.ask(&["GET", KEY]);
    assert!(kept.contains(&"x".repeat(5 << 20)), "what is not known is carried along");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_and_is_used_again_once_it_has_some() {
    let server = Server::start();
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    moves_to(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    assert!(hosts[0].is_alone());
    assert_eq!((hosts[1].get().await, provider.calls()), (Some(30.0), 2));
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    moves_to(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[0].refresh().await, Some(50.0));

    hosts[1].until_shows(50.0).await;
    assert_eq!(provider.calls(), 3);
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_evicted_is_put_back_by_those_who_know_it() {
    let server = Server::start();
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    let () = server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    until("everything was evicted", || {
        // A write makes room first; there is none to be had, so it is refused.
        let _ = server.try_ask::<()>(&["SET", "other", "x"]);
        server.ask::<i64>(&["EXISTS", KEY]) == 0
    })
    .await;
    assert_eq!((hosts[0].get().await, hosts[1].get().await), (Some(30.0), Some(30.0)));
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);

    all_agree(&provider, &mut hosts).await;
    assert_eq!(provider.calls(), 2);
    assert_eq!(server.ask::<i64>(&["EXISTS", KEY]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_too_many_clients_is_away_and_is_found_again() {
    let server = Server::start();
    let mut admin = server.admin();
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).query(&mut admin).unwrap();

    let host = is_served_alone(&server.url()).await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).query(&mut admin).unwrap();

    host.until_shared().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_script_is_no_outage() {
    let server = Server::start();
    let provider = provider();
    let mut host = Host::on(&server.url(), &provider);
    assert_eq!(host.get().await, Some(30.0));

    let () = server.ask(&["SCRIPT", "FLUSH"]);
    moves_to(&provider, slice::from_ref(&host), 40.0).await;
    assert_eq!(host.refresh().await, Some(40.0));

    assert!(!host.is_alone());
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_once_however_many_ask() {
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
        lost += usize::from(matches!(event, Event::StoreLost));
    }
    assert_eq!(lost, 1);
}
