//! A server that replies too late for its callers keeps its connection.

use std::time::Duration;

use quota_core::{AccountId, Clock, QuotaManager, QuotaStore as _};
use redis_harness::{Proxy, Server};

use crate::env::{applied, key, open, start, swap, until, within_deadline};

/// Longer than a manager's store timeout, and shorter than the response timeout of the store.
const DELAY: Duration = Duration::from_millis(300);

fn subscriptions(server: &Server) -> usize {
    server.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len()
}

#[tokio::test]
async fn a_slow_server_keeps_its_connection_with_100_followed_accounts() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let quota = QuotaManager::builder(open(&proxy.url())).build().unwrap();
    let id = |number| format!("anthropic/a{number}").parse::<AccountId>().unwrap();
    let accounts: Vec<_> = (0..100).map(|number| quota.account(&id(number))).collect();
    for account in &accounts {
        drop(account.sync().await);
    }
    until(async || (subscriptions(&server) >= accounts.len()).then_some(())).await;
    let (connections, clock) = (proxy.connections(), Clock::system());

    proxy.delay_responses(DELAY);
    for _ in 0..150 {
        for account in &accounts {
            drop(account.sync().await);
        }
        clock.sleep(Duration::from_millis(20)).await;
    }

    assert_eq!(proxy.connections(), connections);
    quota.close().await;
}

#[tokio::test]
async fn a_reply_to_a_cancelled_caller_keeps_the_connection() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let store = open(&proxy.url());
    let (clock, main) = (Clock::system(), key("main"));
    let seen = applied(swap(&store, &main, None, "one").await);
    let mut waiting = start({
        let (store, main) = (store.clone(), main.clone());
        async move { store.wait_for_change(&main, Some(seen)).await }
    });
    until(async || (subscriptions(&server) == 1).then_some(())).await;

    proxy.delay_responses(DELAY);
    assert!(clock.bounded(DELAY * 3 / 4, store.read(&main)).await.is_none());
    clock.sleep(Duration::from_millis(500)).await;
    assert_eq!(store.read(&main).await.unwrap().version(), Some(seen));
    proxy.restore();

    assert_eq!(proxy.connections(), 1);
    assert!(!waiting.is_finished());
    applied(swap(&store, &main, Some(seen), "two").await);
    within_deadline("the notice", &mut waiting).await.unwrap().unwrap();
}
