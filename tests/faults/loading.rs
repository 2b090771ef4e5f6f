//! A server that loads its data set for as long as the test needs, and replies `LOADING` until then.

use redis_harness::{Server, redis};

use crate::fixture::*;

/// A server that needs ten milliseconds to load one key, and serves clients after each key.
pub(crate) fn slow_reader() -> Server {
    Server::builder()
        .with("enable-debug-command yes")
        .with("key-load-delay 10000")
        .with("loading-process-events-interval-bytes 1024")
        .with("rdbcompression no")
        .start()
}

/// Fills the server with data that takes half a minute to load, unless a test shortens it.
pub(crate) fn fill(server: &Server) {
    let () = server.command(&["DEBUG", "POPULATE", "3000", "other", "1100"]);
}

/// Makes the server load at full speed from now on.
pub(crate) fn finish_loading(server: &Server) {
    let () = server.command(&["CONFIG", "SET", "key-load-delay", "0"]);
}

pub(crate) fn is_loading(url: &str) -> bool {
    let answer = redis::Client::open(url).and_then(|client| {
        redis::cmd("GET").arg("anything").query::<Option<String>>(&mut client.get_connection()?)
    });
    answer.is_err_and(|error| error.code() == Some("LOADING"))
}

/// Checks that readers see cached readings and that one call is made.
async fn is_served_while_loading(provider: &quota::testing::FakeProvider, hosts: &mut [Host]) {
    set_usage(provider, hosts, 40.0).await;
    for _ in 0..20 {
        assert_eq!((hosts[0].get().await, hosts[0].peek()), (Some(30.0), Some(30.0)));
    }
    assert_eq!(hosts[0].refresh().await, Some(40.0));
    assert!(hosts[0].is_standalone());
    assert_eq!((hosts[1].get().await, provider.calls()), (Some(30.0), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_a_reloading_server_work_standalone() {
    let server = slow_reader();
    let provider = provider();
    let mut hosts = vec![Host::on(&server.url(), &provider), Host::on(&server.url(), &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    fill(&server);

    let mut admin = server.admin();
    let reload = tokio::task::spawn_blocking(move || redis::cmd("DEBUG").arg("RELOAD").exec(&mut admin));
    until("the server loads", || is_loading(&server.url())).await;
    is_served_while_loading(&provider, &mut hosts).await;
    assert!(is_loading(&server.url()), "the server has been loading the whole time");
    finish_loading(&server);
    reload.await.unwrap().unwrap();

    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_work_standalone_until_a_restarted_server_has_loaded() {
    let mut server = slow_reader();
    let url = server.url();
    let provider = provider();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    fill(&server);
    let () = server.command(&["SAVE"]);
    let (socket, starting) = (
        server.socket(),
        tokio::task::spawn_blocking(move || {
            server.restart();
            server
        }),
    );

    until("the server loads", || is_loading(&url)).await;
    is_served_while_loading(&provider, &mut hosts).await;
    assert!(is_loading(&url), "the server has been loading the whole time");
    let mut admin = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
    redis::cmd("CONFIG").arg(&["SET", "key-load-delay", "0"]).exec(&mut admin).unwrap();
    let server = starting.await.unwrap();

    assert_eq!(server.command::<i64>(&["EXISTS", KEY]), 1, "the server has loaded its data");
    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
}
