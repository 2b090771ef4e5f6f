//! A server that ends, is suspended, or loses its data. Readers continue with cached readings, and afterwards all hosts agree.

use std::time::Duration;

use quota::{Clock, Freshness};
use redis_harness::{Monitor, Server};

use crate::fixture::*;

/// A provider and two hosts that share one reading.
async fn shared(server: &Server) -> (quota::testing::FakeProvider, Vec<Host>) {
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    assert_eq!(provider.calls(), 1);
    (provider, hosts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_cached_usage_while_the_server_is_down() {
    let mut server = Server::start();
    let (provider, mut hosts) = shared(&server).await;

    server.kill();
    for host in &mut hosts {
        for _ in 0..100 {
            assert_eq!((host.get().await, host.peek()), (Some(30.0), Some(30.0)));
        }
    }

    assert_eq!(provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_restore_their_records_on_a_server_that_lost_its_data() {
    let mut server = Server::start();
    let (provider, mut hosts) = shared(&server).await;

    server.kill();
    set_usage(&provider, &hosts, 40.0).await;
    for host in &mut hosts {
        assert_eq!(host.refresh().await, Some(40.0));
        assert!(host.is_standalone());
    }
    assert_eq!(provider.calls(), 3, "each host made one call of its own");
    server.restart();

    all_agree(&provider, &mut hosts).await;
    assert_eq!(server.command::<i64>(&["EXISTS", KEY]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_used_again() {
    let mut server = Server::builder().with("appendonly yes").with("appendfsync always").start();
    let (provider, mut hosts) = shared(&server).await;

    server.kill();
    set_usage(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    server.restart();
    assert_eq!(server.command::<i64>(&["EXISTS", KEY]), 1, "the server has its data");
    hosts[1].until_shows(40.0).await;

    assert_eq!(provider.calls(), 2, "the other host uses the reading without a call");
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_reading_has_the_reason_store_unavailable() {
    let mut server = Server::start();
    let provider = provider();
    let brief = policy().max_age(Duration::from_millis(1));
    let mut host = Host::with(&server.url(), &provider, brief, Clock::system());
    assert_eq!(host.get().await, Some(30.0));

    server.kill();
    host.refresh().await;
    until("the reading is stale", || host.main.is_stale()).await;

    let state = host.main.peek().freshness();
    assert!(
        matches!(
            state,
            Freshness::Stale { reason: quota::manager::StaleReason::StoreUnavailable, since: Some(_), .. }
        ),
        "{state:?}"
    );
    assert_eq!(host.peek(), Some(30.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_restore_their_records_after_a_flush() {
    let server = Server::start();
    let (provider, mut hosts) = shared(&server).await;

    let () = server.command(&["FLUSHALL"]);
    assert_eq!(hosts[1].get().await, Some(30.0));
    set_usage(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    hosts[1].until_shows(40.0).await;

    assert_eq!(provider.calls(), 2);
    assert_eq!(server.command::<i64>(&["EXISTS", KEY]), 1);
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_suspended_for_30_seconds_blocks_no_reader() {
    let server = Server::start();
    let monitor = Monitor::start(&server);
    let (provider, mut hosts) = shared(&server).await;

    server.suspend();
    set_usage(&provider, &hosts, 40.0).await;
    for host in &mut hosts {
        assert_eq!(host.refresh().await, Some(40.0));
        assert!(host.is_standalone());
    }
    for _ in 0..60 {
        for host in &mut hosts {
            assert_eq!((host.get().await, host.peek()), (Some(40.0), Some(40.0)));
        }
        Clock::system().sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(provider.calls(), 3, "each host made one call of its own");
    server.resume();

    all_agree(&provider, &mut hosts).await;
    assert_valid_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reconnecting_hosts_make_one_call() {
    let mut server = Server::start();
    let provider = provider();
    let mut hosts: Vec<_> = (0..200).map(|_| Host::on(&server.url(), &provider)).collect();
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    server.kill();
    for host in &hosts {
        let answer = within_deadline("a sync with the store", host.main.sync()).await;
        assert!(!answer.is_stale());
    }
    server.restart();

    assert_eq!(provider.calls(), 1);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_with_clocks_two_hours_apart_share_one_call_and_one_age() {
    let server = Server::start();
    let provider = provider();
    let hour = jiff::SignedDuration::from_hours(1);
    let now = Clock::system().now();
    let mut hosts = [now + hour, now - hour]
        .map(|now| Host::with(&server.url(), &provider, policy(), Clock::virtual_at(now)));

    assert_eq!(hosts[0].get().await, Some(30.0));
    assert_eq!(hosts[1].get().await, Some(30.0));

    assert_eq!(provider.calls(), 1);
    assert!(hosts.iter().all(|host| !host.main.is_stale()));
    let ages = hosts.each_ref().map(|host| host.main.peek().age().unwrap());
    assert!(ages.iter().all(|age| *age < Duration::from_secs(300)), "{ages:?}");
    all_agree(&provider, &mut hosts).await;
}
