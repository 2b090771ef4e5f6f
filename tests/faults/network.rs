//! Network faults between the server and one of two hosts: a closed connection, a black hole, or one byte per second.

use redis_harness::{Monitor, Proxy, Server};

use crate::fixture::*;

/// One of two hosts loses the server through `fault`, until `Proxy::restore`.
async fn one_host_loses_the_server(fault: fn(&Proxy)) {
    let server = Server::start();
    let monitor = Monitor::start(&server);
    let proxy = Proxy::new(server.port());
    let provider = provider();
    let mut hosts = [Host::on(&proxy.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }

    fault(&proxy);
    set_usage(&provider, &hosts, 40.0).await;
    assert_eq!(hosts[0].refresh().await, Some(40.0), "the host still gets readings during the fault");
    assert!(hosts[0].is_standalone() && !hosts[1].is_standalone());
    set_usage(&provider, &hosts, 50.0).await;
    assert_eq!(hosts[1].refresh().await, Some(50.0));
    assert_eq!(hosts[0].get().await, Some(40.0), "its cached reading, without a call");
    assert_eq!(provider.calls(), 3);
    proxy.restore();

    hosts[0].until_shows(50.0).await;
    all_agree(&provider, &mut hosts).await;
    assert_valid_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_a_connection_goes_standalone_and_recovers() {
    one_host_loses_the_server(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_in_a_black_hole_goes_standalone_and_recovers() {
    one_host_loses_the_server(Proxy::black_hole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_one_byte_per_second_goes_standalone_and_recovers() {
    one_host_loses_the_server(Proxy::throttle).await;
}
