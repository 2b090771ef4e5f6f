//! The wire between one of two hosts and the server: cut, silent, or one byte a second.

use redis_harness::{Monitor, Proxy, Server};

use crate::world::*;

/// One of two hosts loses the server by `fault`, which ends when `Proxy::heal` says so.
async fn one_host_loses_the_server(fault: fn(&Proxy)) {
    let server = Server::start();
    let monitor = Monitor::of(&server);
    let proxy = Proxy::before(server.port());
    let provider = provider();
    let mut hosts = [Host::on(&proxy.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    fault(&proxy);
    moves_to(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0), "it is served while the wire is still bad");
    assert!(hosts[0].is_alone() && !hosts[1].is_alone());
    moves_to(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[1].refresh().await, Some(50.0));
    assert_eq!(hosts[0].get().await, Some(40.0), "what it knows itself, and no call for it");
    assert_eq!(provider.calls(), 3);
    proxy.heal();

    hosts[0].until_shows(50.0).await;
    all_agree(&provider, &mut hosts).await;
    assert_good_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_wire_is_cut_goes_on_alone_and_comes_back() {
    one_host_loses_the_server(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_packets_vanish_goes_on_alone_and_comes_back() {
    one_host_loses_the_server(Proxy::black_hole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hears_one_byte_a_second_goes_on_alone_and_comes_back() {
    one_host_loses_the_server(Proxy::drag).await;
}
