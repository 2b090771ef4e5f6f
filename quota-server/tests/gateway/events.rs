//! The stream of events: its messages, what a client gets after a pause, and its limits.

use std::sync::Arc;
use std::time::Duration;

use quota::{MemoryStore, Percent, QuotaStore as _, UsageReport, WindowId, WindowReading};
use quota_journal::Rules;
use quota_server::AccessTokens;
use quota_sim::{Account, Window};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::support::{Running, Setup, main};

/// A client of the stream.
struct Stream(BufReader<TcpStream>);

/// An event of the stream.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    /// Opens the stream with these headers, and reads the head of the response.
    async fn open(gateway: &Running, headers: &str) -> Self {
        let mut stream = gateway.connect().await;
        // A response to HTTP/1.0 has no chunks.
        let request = format!("GET /v1/events HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(stream));
        let mut head = Vec::new();
        while let Some(line) = stream.line().await.filter(|line| !line.is_empty()) {
            head.push(line.to_lowercase());
        }
        assert!(head[0].contains(" 200 ") && head.contains(&"content-type: text/event-stream".to_owned()));
        stream
    }

    async fn resume(gateway: &Running, id: &str) -> Self {
        Self::open(gateway, &format!("Last-Event-ID: {id}\r\n")).await
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).await.unwrap_or(0);
        (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        let mut event = Event { name: String::new(), id: None, data: Value::Null };
        while let Some(line) = self.line().await {
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if event.name.is_empty() => {}
                _ => return Some(event),
            }
        }
        None
    }

    /// The next event with this name.
    async fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream is open");
            if event.name == name {
                return event;
            }
        }
    }

    /// Reads to the end of the stream.
    async fn end(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn setup() -> Setup {
    Setup::new([Account::new("main").windows([Window::five_hour().used(62.0)])])
}

/// A gateway whose journal has its first observation, so that each later call is an event.
async fn observed(store: &Arc<MemoryStore>) -> Running {
    let gateway = setup().store(store).start().await;
    let _ = gateway.main().get().await.unwrap();
    quota_journal::update(&**store, &main(), &Rules::default()).await.unwrap();
    gateway
}

/// Refreshes the account, and returns the event of that call.
async fn refreshed(gateway: &Running, stream: &mut Stream) -> Event {
    let _ = gateway.main().refresh().await.unwrap();
    stream.until("journal").await
}

#[tokio::test]
async fn a_change_names_its_account() {
    let gateway = setup().start().await;
    let _ = gateway.main().get().await.unwrap();
    let mut stream = Stream::open(&gateway, "").await;
    assert_eq!(stream.next().await.unwrap().name, "ready");

    let used = Percent::from_percent(91.0).unwrap();
    let report = UsageReport::from_headers([WindowReading::new(WindowId::five_hour(), used)]);
    gateway.main().observe(&report).unwrap();

    let changed = stream.until("changed").await;
    assert_eq!((changed.id, changed.data), (None, json!({ "account": "anthropic/main" })));
}

#[tokio::test]
async fn a_call_is_an_event_of_the_journal() {
    let store = Arc::default();
    let gateway = observed(&store).await;
    let mut stream = Stream::open(&gateway, "").await;

    let event = refreshed(&gateway, &mut stream).await;

    assert_eq!(
        (&event.data["kind"], &event.data["account"]),
        (&json!("refreshed"), &json!("anthropic/main"))
    );
    assert!(event.data["id"].as_str().unwrap().starts_with("anthropic/main:refreshed@"));
    assert!(event.id.is_some());
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_once() {
    let store = Arc::default();
    let gateway = observed(&store).await;
    let mut live = Stream::open(&gateway, "").await;
    let ready = live.next().await.unwrap();
    let mut events = vec![ready];
    for _ in 0..2 {
        events.push(refreshed(&gateway, &mut live).await);
    }

    for from in 0..3 {
        let mut stream = Stream::resume(&gateway, events[from].id.as_ref().unwrap()).await;
        assert_eq!(stream.next().await.unwrap().name, "ready");
        for event in &events[from + 1..] {
            assert_eq!(stream.next().await.as_ref(), Some(event));
        }
        events.push(refreshed(&gateway, &mut live).await);
        assert_eq!(&stream.until("journal").await, events.last().unwrap());
    }
}

#[tokio::test]
async fn another_gateway_continues_the_stream() {
    let store = Arc::default();
    let gateway = observed(&store).await;
    let mut live = Stream::open(&gateway, "").await;
    let ready = live.next().await.unwrap();
    let events = [refreshed(&gateway, &mut live).await, refreshed(&gateway, &mut live).await];

    let other = setup().store(&store).start().await;
    let mut stream = Stream::resume(&other, ready.id.as_ref().unwrap()).await;

    assert_eq!(stream.next().await.unwrap().name, "ready");
    for event in events {
        assert_eq!(stream.next().await, Some(event));
    }
}

#[tokio::test]
async fn two_gateways_send_each_event_once() {
    let store = Arc::default();
    let gateway = observed(&store).await;
    let other = setup().store(&store).start().await;
    let mut streams = [Stream::open(&gateway, "").await, Stream::open(&other, "").await];

    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        let _ = gateway.main().refresh().await.unwrap();
        for (stream, seen) in streams.iter_mut().zip(&mut seen) {
            seen.push(stream.until("journal").await.data);
        }
    }

    assert_eq!(seen[0], seen[1]);
    let ids: std::collections::BTreeSet<_> = seen[0].iter().map(|data| data["id"].to_string()).collect();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn an_unknown_position_is_answered_with_missed() {
    let store = Arc::default();
    let gateway = observed(&store).await;
    let mut live = Stream::open(&gateway, "").await;
    let id = refreshed(&gateway, &mut live).await.id.unwrap();
    let from_the_future = format!("{id}000");
    let of_another_journal = format!("{}00000000{}", &id[..8], &id[16..]);

    for (id, reason) in [
        ("made-up", "unknown_id"),
        ("1", "unknown_id"),
        (from_the_future.as_str(), "not_in_journal"),
        (of_another_journal.as_str(), "not_in_journal"),
    ] {
        let mut stream = Stream::resume(&gateway, id).await;
        assert_eq!(stream.next().await.unwrap().name, "ready");

        let missed = stream.next().await.unwrap();

        assert_eq!((missed.name.as_str(), &missed.data["reason"]), ("missed", &json!(reason)), "{id}");
        assert_eq!(missed.data["accounts"], json!(["anthropic/main"]));
    }
}

#[tokio::test]
async fn a_journal_that_starts_over_is_reported() {
    let store: Arc<MemoryStore> = Arc::default();
    let gateway = observed(&store).await;
    let mut stream = Stream::open(&gateway, "").await;
    refreshed(&gateway, &mut stream).await;

    let key = quota::store::StoreKey::account_extension(&main(), "journal");
    let version = store.read(&key).await.unwrap().version();
    let damaged = store.compare_and_swap(&key, version, "{".into(), Duration::from_secs(60)).await;
    assert!(matches!(damaged, Ok(quota::store::CasOutcome::Applied(_))));

    let missed = stream.until("missed").await;
    assert_eq!(missed.data, json!({ "reason": "journal_replaced", "accounts": ["anthropic/main"] }));
    refreshed(&gateway, &mut stream).await;
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let mut gateway = setup().start().await;
    let mut streams = [Stream::open(&gateway, "").await, Stream::open(&gateway, "").await];
    assert_eq!(streams[0].next().await.unwrap().name, "ready");

    assert!(gateway.stop().await);

    for stream in &mut streams {
        stream.end().await;
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    let store = Arc::default();
    let limits = |limits: &mut quota_server::Limits| limits.write_timeout = Duration::from_millis(100);
    let accounts = (0..40).map(|number| Account::new(format!("account-{number}")));
    let gateway = Setup::new(accounts).store(&store).limits(limits).start().await;
    // Each account has 400 events after the position of the client, together more than the buffers of the system.
    let mut position = Vec::new();
    for number in 0..40 {
        let id: quota::AccountId = format!("anthropic/account-{number}").parse().unwrap();
        position.push(journal_with_events(&store, &id, 400).await);
    }
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {}\r\n\r\n",
        position.join(".")
    );

    let mut stream = gateway.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();

    let open = "quota_event_streams 0";
    while !gateway.get("/metrics", "").await.body().contains(open) {}
}

/// Writes a journal, and returns the id before its events.
async fn journal_with_events(store: &MemoryStore, account: &quota::AccountId, count: u64) -> String {
    let event = |number: u64| json!({ "at_ms": 1_800_000_000_000_u64 + number, "kind": "refreshed" });
    let events: Vec<_> = (0..count).map(event).collect();
    let journal = json!({ "format": 3, "next_number": count, "events": events }).to_string();
    let key = quota::store::StoreKey::account_extension(account, "journal");
    let version = store.read(&key).await.unwrap().version();
    let _ = store.compare_and_swap(&key, version, journal.into(), Duration::from_secs(60)).await.unwrap();
    let hash: String =
        sha2::Sha256::digest(account.as_str())[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hash}000000000")
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_counted() {
    let limits = |limits: &mut quota_server::Limits| limits.max_event_streams = 1;
    let gateway = setup().limits(limits).start().await;
    let mut open = Stream::open(&gateway, "").await;
    open.until("ready").await;

    let refused = gateway.get("/v1/events", "").await;

    assert_eq!((refused.status(), refused.header("content-type")), (503, Some("application/problem+json")));
    assert!(gateway.get("/metrics", "").await.body().contains("quota_event_streams 1\n"));
    drop(open);
    while gateway.get("/metrics", "").await.body().contains("quota_event_streams 1\n") {}
    Stream::open(&gateway, "").await.until("ready").await;
}

#[tokio::test]
async fn a_stream_needs_the_role_read() {
    const TOKEN: &str = "0123456789abcdef";
    let tokens = AccessTokens::parse(&format!("read {TOKEN}")).unwrap();
    let gateway = setup().configure(|builder, _| builder.tokens(tokens)).start().await;

    assert_eq!(gateway.get("/v1/events", "").await.status(), 401);
    assert_eq!(gateway.get_with("/v1/events", "sim-token-main").await.status(), 401);
    let mut stream = Stream::open(&gateway, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert_eq!(stream.next().await.unwrap().name, "ready");

    // A reload with other tokens ends the stream before its next event.
    gateway.gateway.replace_tokens(AccessTokens::parse("read fedcba9876543210").unwrap());
    let used = Percent::from_percent(91.0).unwrap();
    let report = UsageReport::from_headers([WindowReading::new(WindowId::five_hour(), used)]);
    let _ = gateway.main().get().await.unwrap();
    gateway.main().observe(&report).unwrap();
    stream.end().await;
}
