//! A server that ends, stops, or forgets: readers go on with what is known, and afterwards all agree.

use std::time::Duration;

use quota::{Clock, Freshness};
use redis_harness::{Monitor, Server};

use crate::world::*;

/// A server, a provider, and two hosts that have both read one answer.
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
async fn while_the_server_is_dead_readers_see_cached_usage_and_no_call_is_made() {
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
async fn a_server_that_comes_back_without_its_data_is_given_what_was_known() {
    let mut server = Server::start();
    let (provider, mut hosts) = shared(&server).await;

    server.kill();
    moves_to(&provider, &hosts, 40.0).await;
    for host in &mut hosts {
        assert_eq!(host.refresh().await, Some(40.0));
        assert!(host.is_alone());
    }
    assert_eq!(provider.calls(), 3, "each host asked once, as it would if there were no other");
    server.restart();

    all_agree(&provider, &mut hosts).await;
    assert_eq!(server.ask::<i64>(&["EXISTS", KEY]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_with_its_data_is_used_again() {
    let mut server = Server::builder().with("appendonly yes").with("appendfsync always").start();
    let (provider, mut hosts) = shared(&server).await;

    server.kill();
    moves_to(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    server.restart();
    assert_eq!(server.ask::<i64>(&["EXISTS", KEY]), 1, "it has its data");
    hosts[1].until_shows(40.0).await;

    assert_eq!(provider.calls(), 2, "what one host has learned alone is not asked again by the other");
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_reading_says_that_the_store_is_away() {
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
            Freshness::Stale { reason: quota::StaleReason::StoreUnavailable, since: Some(_), .. }
        ),
        "{state:?}"
    );
    assert_eq!(host.peek(), Some(30.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_the_hosts_put_back_what_they_know() {
    let server = Server::start();
    let (provider, mut hosts) = shared(&server).await;

    let () = server.ask(&["FLUSHALL"]);
    assert_eq!(hosts[1].get().await, Some(30.0));
    moves_to(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    hosts[1].until_shows(40.0).await;

    assert_eq!(provider.calls(), 2);
    assert_eq!(server.ask::<i64>(&["EXISTS", KEY]), 1);
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_for_thirty_seconds_keeps_no_reader_waiting() {
    let server = Server::start();
    let monitor = Monitor::of(&server);
    let (provider, mut hosts) = shared(&server).await;

    server.freeze();
    moves_to(&provider, &hosts, 40.0).await;
    for host in &mut hosts {
        assert_eq!(host.refresh().await, Some(40.0));
        assert!(host.is_alone());
    }
    for _ in 0..60 {
        for host in &mut hosts {
            assert_eq!((host.get().await, host.peek()), (Some(40.0), Some(40.0)));
        }
        Clock::system().sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(provider.calls(), 3, "each host asked once, as it would if there were no other");
    server.thaw();

    all_agree(&provider, &mut hosts).await;
    assert_good_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hosts_that_all_come_back_ask_once_for_all() {
    let mut server = Server::start();
    let provider = provider();
    let mut hosts: Vec<_> = (0..200).map(|_| Host::on(&server.url(), &provider)).collect();
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    server.kill();
    for host in &hosts {
        let answer = soon("a look at the store", host.main.sync()).await;
        assert!(!answer.is_stale());
    }
    server.restart();

    assert_eq!(provider.calls(), 1);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_whose_clocks_are_two_hours_apart_share_one_call_and_one_age() {
    let server = Server::start();
    let provider = provider();
    let hour = jiff::SignedDuration::from_hours(1);
    let now = Clock::system().now();
    let mut hosts = [now + hour, now - hour]
        .map(|moment| Host::with(&server.url(), &provider, policy(), Clock::anchored(moment)));

    assert_eq!(hosts[0].get().await, Some(30.0));
    assert_eq!(hosts[1].get().await, Some(30.0));

    assert_eq!(provider.calls(), 1);
    assert!(hosts.iter().all(|host| !host.main.is_stale()));
    let ages = hosts.each_ref().map(|host| host.main.peek().age().unwrap());
    assert!(ages.iter().all(|age| *age < Duration::from_secs(300)), "{ages:?}");
    all_agree(&provider, &mut hosts).await;
}
