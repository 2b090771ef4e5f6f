//! The latency of a change notice, compared with a bare push through the same client, and the cost of many subscribers for the
//! server.

use std::time::Instant;

use quota_core::QuotaStore;
use quota_core::store::StoreKey;
use redis_harness::Server;
use redis_harness::redis::aio::MultiplexedConnection;
use redis_harness::redis::{AsyncConnectionConfig, Client, Connection, PushInfo, PushKind, cmd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::documents::{record, write};
use super::{million, open};
use crate::row::Row;

const ROUNDS: usize = 3_000;

pub(super) async fn rows() -> Vec<Row> {
    let server = Server::start();
    let (mut ours, mut bare) = times(&server).await;
    ours.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let at = |figures: &[f64], share: f64| figures[(figures.len() as f64 * share) as usize];
    let mut rows = vec![
        Row::at_most("redis.notice", (at(&ours, 0.5), "µs"), ("bare push", at(&bare, 0.5)), 2.0),
        Row::reported("redis.notice.p99", (at(&ours, 0.99), "µs"), ("bare push", at(&bare, 0.99))),
    ];
    for listeners in [0, 100, 1_000] {
        rows.push(fan_out(listeners).await);
    }
    rows
}

/// The microseconds from the start of a write to its notice in another process, and the same for a bare message.
async fn times(server: &Server) -> (Vec<f64>, Vec<f64>) {
    let (writer, listener) = (open(server), open(server));
    let key = StoreKey::account(&"bench/main".parse().expect("a valid name"));
    let reading = writer.read(&key).await.expect("the server responds");
    let body = record(&reading, 4_200);
    let mut seen = None;
    write(&writer, &key, &mut seen, body.clone()).await;
    let (mut publisher, mut pushes) = bare(server).await;

    let (mut ours, mut theirs) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for round in 0..ROUNDS + ROUNDS / 10 {
        let since = seen;
        let noticed = async {
            listener.wait_for_change(&key, since).await.expect("the server responds");
            Instant::now()
        };
        let write = async {
            // The wait is already registered, because the listener was polled first.
            tokio::task::yield_now().await;
            let start = Instant::now();
            write(&writer, &key, &mut seen, body.clone()).await;
            start
        };
        let (noticed, start) = tokio::join!(noticed, write);
        let ours_took = noticed.duration_since(start);

        let start = Instant::now();
        let message = async {
            let _: i64 = cmd("PUBLISH")
                .arg("bare")
                .arg("0123456789abcdef")
                .query_async(&mut publisher)
                .await
                .expect("the server responds");
        };
        let received = async {
            while pushes.recv().await.is_some_and(|push| push.kind != PushKind::Message) {}
            start.elapsed()
        };
        let ((), theirs_took) = tokio::join!(message, received);

        // The first rounds are a warm-up.
        if round >= ROUNDS / 10 {
            ours.push(ours_took.as_secs_f64() * 1e6);
            theirs.push(theirs_took.as_secs_f64() * 1e6);
        }
    }
    (ours, theirs)
}

/// A connection that publishes, and the messages that are pushed to another connection, which has subscribed.
async fn bare(server: &Server) -> (MultiplexedConnection, UnboundedReceiver<PushInfo>) {
    let client = Client::open(format!("{}?protocol=resp3", server.url())).expect("the URL is valid");
    let publisher = client.get_multiplexed_async_connection().await.expect("the server responds");
    let (sender, pushes) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let mut listener =
        client.get_multiplexed_async_connection_with_config(&config).await.expect("the server responds");
    listener.subscribe("bare").await.expect("the server responds");
    // Leak the connection, because the receiving task needs it open.
    std::mem::forget(listener);
    (publisher, pushes)
}

/// The cost of one write for the server with this many subscribers.
async fn fan_out(listeners: usize) -> Row {
    // Few enough that the messages fit into the subscribers' sockets, because the subscribers do not read them.
    const WRITES: u64 = 200;
    let server = Server::start();
    let mut connections: Vec<Connection> = (0..listeners).map(|_| server.admin()).collect();
    for connection in &mut connections {
        connection
            .send_packed_command(&cmd("SUBSCRIBE").arg("quota:1:{bench/main}@0").get_packed_command())
            .expect("the server responds");
        let _ = connection.recv_response().expect("the server responds");
    }
    let writer = open(&server);
    let key = StoreKey::account(&"bench/main".parse().expect("a valid name"));
    let reading = writer.read(&key).await.expect("the server responds");
    let (body, mut seen) = (record(&reading, 4_200), None);
    let before = million::server_seconds(&server);
    for _ in 0..WRITES {
        write(&writer, &key, &mut seen, body.clone()).await;
    }
    let cpu_seconds = million::server_seconds(&server) - before;
    let name = format!("redis.fan_out.{listeners}");
    Row::absolute(&name, (cpu_seconds * 1e6 / WRITES as f64, "µs of the server/write"), "reported", true)
}
