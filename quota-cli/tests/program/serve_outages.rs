//! Gateways while a part of their surroundings fails: real processes, real servers, and the provider's ledger.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use quota::record::Seed;
use quota::{Percent, QuotaManager, Snapshot, UsageReport, WindowId, WindowReading};
use quota_sim::{Account, Answer, Change, Script, Window};
use redis_harness::{Proxy, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::serve::{ANY_PORT, Running, serve};
use super::support::{Machine, Provider, argument};

const USAGE: &str = "/account/anthropic/main/api/oauth/usage";
const ACCOUNT: &str = "/v1/accounts/anthropic/main";

fn provider() -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]))
}

/// A machine with this store, and its configuration with these lines in the policy.
fn machine(provider: &Provider, store: &str, policy: &str) -> (Machine, PathBuf) {
    let (machine, config) = provider.configure(Machine::new().set("QUOTA_STORE", store));
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[policy]\n", &format!("[policy]\n{policy}\n"))).unwrap();
    (machine, config)
}

/// Stores a reading of 40 % that is ten minutes old, so that a call is due.
fn seed(store: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let manager = QuotaManager::builder(quota::open_store(store).unwrap()).build().unwrap();
        let now = quota::Clock::system().now();
        let after = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let window = WindowReading::new(WindowId::five_hour(), Percent::from_percent(40.0).unwrap());
        let usage = UsageReport::polled([window.resets_at(after(9000))]);
        let account = manager.account(&"anthropic/main".parse().unwrap());
        account.seed(&Seed::new(Snapshot::of(&usage, after(-600)))).unwrap();
        manager.close().await;
    });
}

/// The body of a successful answer.
fn body(answer: &str) -> Value {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn used(gateway: &Running) -> Option<f64> {
    body(&gateway.get(USAGE, ""))["five_hour"]["utilization"].as_f64()
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

/// Asks for the account until it is like this.
fn wait_until(gateway: &Running, condition: impl Fn(&Value) -> bool) {
    while !condition(&body(&gateway.get(ACCOUNT, ""))) {
        std::thread::yield_now();
    }
}

/// Whether the store answers, by the metrics.
fn is_available(gateway: &Running) -> bool {
    let metrics = gateway.get("/metrics", "");
    let gauge = metrics.lines().find_map(|line| line.strip_prefix("quota_store_available "));
    gauge.expect("the gauge exists") == "1"
}

/// Reports the headers of a response that states this use.
fn observe(gateway: &Running, percent: u8) {
    let reset = quota::Clock::system().now().as_second() + 9000;
    let headers = json!({
        "anthropic-ratelimit-unified-5h-utilization": format!("0.{percent}"),
        "anthropic-ratelimit-unified-5h-reset": reset.to_string(),
    });
    body(
        &gateway
            .post("/v1/observe", &json!({ "account": "anthropic/main", "status": 200, "headers": headers })),
    );
}

/// How Redis fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Away,
    Frozen,
    Slow,
}

/// A client gets what is known during the fault; afterwards the store gets what was learned in it.
fn a_gateway_goes_on_without_redis(fault: Fault) {
    let (provider, mut server) = (provider(), Server::start());
    let proxy = Proxy::new(server.port());
    let (host, config) = machine(&provider, &proxy.url(), "flush_interval = \"1ms\"");
    let gateway = serve(&host, &config, &ANY_PORT);
    assert_eq!(used(&gateway), Some(42.0));

    match fault {
        Fault::Away => server.kill(),
        Fault::Frozen => server.suspend(),
        Fault::Slow => proxy.delay_responses(Duration::from_secs(3600)),
    }
    observe(&gateway, 70);
    let answer = gateway.get(USAGE, "");
    assert_eq!(body(&answer)["five_hour"]["utilization"], 70.0, "{fault:?}");
    assert!(header(&answer, "age").unwrap().parse::<u64>().unwrap() < 300, "{fault:?} {answer}");
    wait_until(&gateway, |account| account["store_unavailable_since"].is_string());
    assert!(!is_available(&gateway), "{fault:?}");
    assert_eq!(used(&gateway), Some(70.0), "{fault:?}");
    match fault {
        Fault::Away => server.restart(),
        Fault::Frozen => server.resume(),
        Fault::Slow => proxy.restore(),
    }
    wait_until(&gateway, |account| account["store_unavailable_since"].is_null());
    assert!(is_available(&gateway), "{fault:?}");

    let (other, config) = machine(&provider, &server.url(), "");
    let shown = other.run(&["status", "--config", argument(&config)]);
    assert!(shown.stdout.contains("70 %"), "{fault:?} {}{}", shown.stdout, shown.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 1, "{fault:?}");
}

#[test]
fn a_gateway_goes_on_while_redis_is_away() {
    a_gateway_goes_on_without_redis(Fault::Away);
}

#[test]
fn a_gateway_goes_on_while_redis_is_frozen() {
    a_gateway_goes_on_without_redis(Fault::Frozen);
}

#[test]
fn a_gateway_goes_on_while_redis_answers_an_hour_late() {
    a_gateway_goes_on_without_redis(Fault::Slow);
}

#[test]
fn a_gateway_starts_and_answers_without_redis() {
    let (provider, mut server) = (provider(), Server::start());
    server.kill();
    let (host, config) = machine(&provider, &server.url(), "");

    let gateway = serve(&host, &config, &ANY_PORT);

    assert_eq!(used(&gateway), Some(42.0));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn an_old_reading_is_sent_with_its_age_while_the_provider_is_away() {
    for (answer, reason) in [(Answer::Unavailable, "on_hold"), (Answer::Html, "on_hold")] {
        let (provider, server) = (provider(), Server::start());
        seed(&server.url());
        provider.simulator.set("main", Change::answer(answer)).unwrap();
        let (host, config) = machine(&provider, &server.url(), "");
        let gateway = serve(&host, &config, &ANY_PORT);

        let response = gateway.get(USAGE, "");

        assert_eq!(body(&response)["five_hour"]["utilization"], 40.0, "{answer:?}");
        assert_eq!(header(&response, "quota-freshness"), Some(&*format!("stale; reason={reason}")));
        assert!(header(&response, "age").unwrap().parse::<u64>().unwrap() >= 600, "{response}");
    }
}

#[test]
fn a_provider_that_hangs_holds_up_no_client() {
    let (provider, server) = (provider(), Server::start());
    seed(&server.url());
    provider.simulator.set("main", Change::answer(Answer::Hang)).unwrap();
    // The call would take longer than the whole test may.
    let (host, config) = machine(&provider, &server.url(), "fetch_timeout = \"1h\"\nget_timeout = \"10ms\"");
    let gateway = serve(&host, &config, &ANY_PORT);

    let response = gateway.get(USAGE, "");

    assert_eq!(body(&response)["five_hour"]["utilization"], 40.0);
    assert!(header(&response, "quota-freshness").unwrap().starts_with("stale; "), "{response}");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn two_gateways_go_on_when_the_third_is_killed_in_mid_call() {
    let (provider, server) = (provider(), Server::start());
    seed(&server.url());
    provider.simulator.set("main", Change::answer(Answer::Hang)).unwrap();
    // The lease of the killed gateway expires two seconds after the timeout of its call.
    let policy = "fetch_timeout = \"2s\"\nget_timeout = \"10ms\"";
    let hosts = [(); 3].map(|()| machine(&provider, &server.url(), policy));
    let start = |(host, config): &(Machine, PathBuf)| serve(host, config, &ANY_PORT);
    let [first, second, third] = &hosts;
    let mut killed = start(first);
    while provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }
    let others = [start(second), start(third)];

    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    for other in &others {
        let answer = other.get(USAGE, "");
        let age: u64 = header(&answer, "age").unwrap().parse().unwrap();
        // On a busy machine the lease may have expired by now.
        let expected = if age >= 600 { 40.0 } else { 42.0 };
        assert_eq!(body(&answer)["five_hour"]["utilization"], expected, "{answer}");
    }
    for other in &others {
        wait_until(other, |account| account["windows"][0]["used_percent"] == 42.0);
    }

    let ledger = provider.simulator.ledger();
    assert_eq!((ledger.calls(), ledger.accounts["main"].abandoned), (2, 1));
}

#[test]
fn a_client_is_answered_beside_five_thousand_idle_connections() {
    const IDLE: usize = 5000;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < 2 * IDLE as u64) {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    }
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let gateway = serve(&machine, &config, &ANY_PORT);
    let mut idle = Vec::new();
    while idle.len() < IDLE {
        idle.extend((0..100).map(|_| TcpStream::connect(&gateway.address).unwrap()));
        // Once this has an answer, the system's queue is empty, so no later connection is dropped.
        gateway.get("/healthz", "");
    }

    assert_eq!(used(&gateway), Some(42.0));

    // The gateway has accepted the last of them too.
    let mut last = idle.last().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}
