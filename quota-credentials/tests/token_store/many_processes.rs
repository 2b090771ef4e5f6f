//! Several processes that share one file, or that have separate files and share a store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::store::StoreKey;
use quota_core::testing::{ScriptedStore, Step};
use quota_core::{MemoryStore, QuotaStore};
use quota_credentials::TokenStore;
use tokio::task::JoinSet;

use super::{Env, token};

async fn all(processes: &[(TokenStore, &'static str)]) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for (logins, name) in processes.iter().cloned() {
        tasks.spawn(async move {
            loop {
                if let Ok(token) = token(&logins, name).await {
                    return token;
                }
            }
        });
    }
    tasks.join_all().await
}

fn max_concurrent(env: &Env) -> u64 {
    env.provider.max_concurrent.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn eight_processes_on_one_file_renew_once() {
    let env = Env::new();
    env.provider.set_latency(Duration::from_secs(1));
    env.log_in(&env.process(), "main", 0).await;
    let processes: Vec<_> = (0..8).map(|_| (env.process(), "main")).collect();

    let tokens = all(&processes).await;

    assert!(tokens.iter().all(|token| token == "access-main-1"), "{tokens:?}");
    assert_eq!(env.provider.request_count(), 1);
}

// Siblings share an OAuth client. Concurrent renewals have invalidated all tokens of a client before.
#[tokio::test(start_paused = true)]
async fn siblings_in_one_file_are_renewed_sequentially() {
    let env = Env::new();
    env.provider.set_latency(Duration::from_secs(1));
    let logins = env.process();
    let names = ["a", "b", "c", "d"];
    for name in names {
        env.log_in(&logins, name, 0).await;
    }
    let processes: Vec<_> = names.map(|name| (env.process(), name)).into();

    all(&processes).await;

    assert_eq!((env.provider.request_count(), max_concurrent(&env)), (4, 1));
}

fn on_own_files(env: &Env, store: Option<&Arc<dyn QuotaStore>>) -> Vec<(TokenStore, &'static str)> {
    let process = |name: &'static str| {
        let builder = env.process_on(&format!("{name}.json"));
        let builder = match store {
            Some(store) => builder.store(store.clone()),
            None => builder,
        };
        (builder.build(), name)
    };
    ["a", "b", "c"].map(process).into()
}

#[tokio::test(start_paused = true)]
async fn with_a_store_siblings_on_several_hosts_renew_in_turn() {
    for has_store in [true, false] {
        let env = Env::new();
        env.provider.set_latency(Duration::from_secs(1));
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(env.clock.clone()));
        let hosts = on_own_files(&env, has_store.then_some(&store));
        for (logins, name) in &hosts {
            env.log_in(logins, name, 0).await;
        }

        all(&hosts).await;

        assert_eq!((env.provider.request_count(), max_concurrent(&env)), (3, if has_store { 1 } else { 3 }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_store_does_not_prevent_a_renewal() {
    let env = Env::new();
    let store = ScriptedStore::new(MemoryStore::with_clock(env.clock.clone()), vec![Step::HangBefore; 100]);
    let logins = env.process_on("logins.json").store(Arc::new(store)).build();
    env.log_in(&logins, "main", 0).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}

#[tokio::test(start_paused = true)]
async fn the_store_holds_no_token_and_no_fingerprint() {
    let env = Env::new();
    let store = Arc::new(MemoryStore::with_clock(env.clock.clone()));
    let logins = env.process_on("logins.json").store(store.clone()).build();
    env.log_in(&logins, "main", 0).await;
    token(&logins, "main").await.unwrap();
    logins.close().await;

    let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
    let document = store.read(&key).await.unwrap().document.expect("the lease was acquired and released");
    let text = String::from_utf8(document.body.to_vec()).unwrap();

    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["format"], "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_lease_document_is_unchanged_and_does_not_block() {
    for body in ["damaged", r#"{"format":2,"holder":"07","until_ms":9999999999999}"#] {
        let env = Env::new();
        let store = Arc::new(MemoryStore::with_clock(env.clock.clone()));
        let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
        let _ = store.compare_and_swap(&key, None, body.into(), Duration::from_secs(3600)).await.unwrap();
        let logins = env.process_on("logins.json").store(store.clone()).build();
        env.log_in(&logins, "main", 0).await;

        assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1", "{body}");

        logins.close().await;
        assert_eq!(&store.read(&key).await.unwrap().document.unwrap().body[..], body.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_killed_holder_is_taken_over_at_its_end() {
    let env = Env::new();
    let store = Arc::new(MemoryStore::with_clock(env.clock.clone()));
    let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
    let until = env.clock.now().as_millisecond() + 3_000;
    let held = format!(r#"{{"format":1,"holder":"07","until_ms":{until}}}"#);
    let _ = store.compare_and_swap(&key, None, held.into(), Duration::from_secs(3600)).await.unwrap();
    let logins = env.process_on("logins.json").store(store.clone()).build();
    env.log_in(&logins, "main", 0).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    assert!(env.clock.now().as_millisecond() >= until);
}

#[tokio::test(start_paused = true)]
async fn a_login_by_another_process_is_used_at_once() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 0).await;
    env.provider.set_error(Some(quota_core::provider::TokenError::invalid_grant("refused")));
    assert!(token(&logins, "main").await.is_err());
    env.provider.set_error(None);
    assert!(token(&logins, "main").await.is_err(), "the rejected token is not sent again");

    env.log_in(&env.process(), "main", 3600).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(env.provider.request_count(), 1);
}
