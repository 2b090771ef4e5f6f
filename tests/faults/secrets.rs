//! The server never stores a secret: not in a key, not in a value, and not in an earlier write.

use std::sync::Arc;

use quota::Secret;
use quota::anthropic::{self, parse_headers};
use quota::credentials::{CredentialMap, StaticCredential};
use quota::http::Fetcher;
use quota::{AccountId, QuotaManager, open_store};
use quota_sim::{Account, Answer, Change, Script, Simulator, Window};
use redis_harness::{Monitor, Server, redis};

use crate::fixture::*;

/// The secrets. The tests search for each one in full, and for its second half.
const SECRETS: [&str; 4] = ["sim-token-main", "sim-token-spare", "url-password-k7w", "header-secret-q9x"];

/// A server that stores values uncompressed, so that a search finds their content.
fn plain_server() -> Server {
    Server::builder().with("rdbcompression no").start()
}

/// All contents of the server: keys, values, and dumps of values.
fn contents(server: &Server) -> Vec<Vec<u8>> {
    let mut admin = server.admin();
    let mut scan = redis::cmd("SCAN");
    scan.cursor_arg(0);
    let keys: Vec<Vec<u8>> = scan.iter(&mut admin).unwrap().map(Result::unwrap).collect();
    let mut contents = Vec::new();
    for key in keys {
        contents.push(redis::cmd("DUMP").arg(&key).query(&mut admin).unwrap());
        // A key that is not a string is searched through its dump.
        contents.extend(redis::cmd("GET").arg(&key).query::<Vec<u8>>(&mut admin));
        contents.push(key);
    }
    contents
}

fn leaks<'a>(texts: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<String> {
    let has = |text: &[u8], secret: &str| text.windows(secret.len()).any(|part| part == secret.as_bytes());
    let is_leak = |text: &&Vec<u8>| {
        SECRETS.iter().any(|secret| has(text, secret) || has(text, &secret[secret.len() / 2..]))
    };
    texts.into_iter().filter(is_leak).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

fn host(url: &str, simulator: &Simulator) -> QuotaManager {
    let logins = ["main", "spare"].into_iter().fold(CredentialMap::new(), |all, name| {
        all.with(account(name), Arc::new(StaticCredential::new(Secret::new(format!("sim-token-{name}")))))
    });
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(simulator.url()).build().unwrap();
    QuotaManager::builder(open_store(url).unwrap())
        .provider(fetcher, logins)
        .policy(policy())
        .build()
        .unwrap()
}

fn account(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stores_no_secret_after_calls_failures_and_responses() {
    let server = plain_server();
    let () = server.command(&["ACL", "SETUSER", "quota", "on", ">url-password-k7w", "~*", "&*", "+@all"]);
    let monitor = Monitor::start(&server);
    let accounts = ["main", "spare"].map(|name| Account::new(name).windows([Window::five_hour().used(30.0)]));
    let simulator = Simulator::builder(Script::new(accounts)).start().await.unwrap();
    let url = format!("redis://quota:url-password-k7w@127.0.0.1:{}", server.port());
    let hosts = [host(&url, &simulator), host(&url, &simulator)];
    let main = hosts[0].account(&account("main"));
    let spare = hosts[1].account(&account("spare"));

    drop(within_deadline("a read", main.get()).await.unwrap());
    let headers = [
        ("anthropic-ratelimit-unified-5h-utilization", "0.45"),
        ("anthropic-ratelimit-unified-5h-status", "header-secret-q9x"),
        ("anthropic-ratelimit-unified-header-secret-q9x", "header-secret-q9x"),
        ("authorization", "Bearer header-secret-q9x"),
        ("set-cookie", "header-secret-q9x"),
    ];
    main.observe(&parse_headers(Some(200), headers).usage).unwrap();
    for answer in [Answer::Unauthorized, Answer::Scope, Answer::Html, Answer::ThrottleZero] {
        simulator.set("spare", Change::answer(answer)).unwrap();
        drop(within_deadline("a refresh", spare.refresh()).await);
    }
    for host in hosts {
        host.close().await;
    }

    let written: Vec<_> = monitor.recorded(&server).into_iter().flatten().collect();
    let contents = contents(&server);
    assert!(contents.iter().any(|text| text == KEY.as_bytes()), "the contents are searched");
    assert!(written.iter().any(|word| word == KEY.as_bytes()), "the writes were recorded");
    assert_eq!(leaks(&contents), [""; 0]);
    assert_eq!(leaks(&written), [""; 0]);
}

#[tokio::test]
async fn the_search_finds_a_secret_anywhere_in_the_server() {
    let server = plain_server();
    let long = format!("{}sim-token-main", "x".repeat(10_000));

    let () = server.command(&["SET", "a", &long]);
    let _: i64 = server.command(&["HSET", "b", "field", "url-password-k7w"]);
    let _: i64 = server.command(&["RPUSH", "c", "sim-token-spare"]);
    let () = server.command(&["SET", "header-secret-q9x", "in the key's name"]);
    let () = server.command(&["SET", "clean", "nothing"]);

    // Two leaks in a value and its dump, one in each of two dumps, and one in a key.
    assert_eq!(leaks(&contents(&server)).len(), 2 + 1 + 1 + 1);
}
