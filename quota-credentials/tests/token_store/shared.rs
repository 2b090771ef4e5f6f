//! Several processes, on one file or on files of their own with a store between them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{CasOutcome, MemoryStore, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_credentials::TokenStore;
use tokio::task::JoinSet;

use super::{World, token};

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

fn most_at_once(world: &World) -> u64 {
    world.provider.most_at_once.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn eight_on_one_file_make_one_exchange() {
    let world = World::new();
    world.provider.set_takes(Duration::from_secs(1));
    world.log_in(&world.process(), "main", 0).await;
    let processes: Vec<_> = (0..8).map(|_| (world.process(), "main")).collect();

    let tokens = all(&processes).await;

    assert!(tokens.iter().all(|token| token == "access-main-1"), "{tokens:?}");
    assert_eq!(world.provider.asked(), 1);
}

// Siblings share a client: several at once have cost whole families of tokens.
#[tokio::test(start_paused = true)]
async fn siblings_in_one_file_are_never_renewed_at_once() {
    let world = World::new();
    world.provider.set_takes(Duration::from_secs(1));
    let logins = world.process();
    let names = ["a", "b", "c", "d"];
    for name in names {
        world.log_in(&logins, name, 0).await;
    }
    let processes: Vec<_> = names.map(|name| (world.process(), name)).into();

    all(&processes).await;

    assert_eq!((world.provider.asked(), most_at_once(&world)), (4, 1));
}

fn on_files_of_their_own(
    world: &World,
    store: Option<&Arc<dyn QuotaStore>>,
) -> Vec<(TokenStore, &'static str)> {
    let process = |name: &'static str| {
        let builder = world.process_on(&format!("{name}.json"));
        let builder = match store {
            Some(store) => builder.store(store.clone()),
            None => builder,
        };
        (builder.build(), name)
    };
    ["a", "b", "c"].map(process).into()
}

#[tokio::test(start_paused = true)]
async fn siblings_on_other_hosts_are_never_renewed_at_once_if_there_is_a_store() {
    for has_store in [true, false] {
        let world = World::new();
        world.provider.set_takes(Duration::from_secs(1));
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(world.clock.clone()));
        let hosts = on_files_of_their_own(&world, has_store.then_some(&store));
        for (logins, name) in &hosts {
            world.log_in(logins, name, 0).await;
        }

        all(&hosts).await;

        assert_eq!((world.provider.asked(), most_at_once(&world)), (3, if has_store { 1 } else { 3 }));
    }
}

/// A store that is away.
#[derive(Debug)]
struct Away;

#[async_trait]
impl QuotaStore for Away {
    async fn read(&self, _: &StoreKey) -> Result<StoreRead, StoreError> {
        std::future::pending().await
    }

    async fn compare_and_swap(
        &self,
        _: &StoreKey,
        _: Option<Version>,
        _: Bytes,
        _: Duration,
    ) -> Result<CasOutcome, StoreError> {
        Err(StoreError::unavailable(WriteState::NotApplied, "it is away"))
    }

    async fn wait_for_change(&self, _: &StoreKey, _: Option<Version>) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

// B100
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_keeps_nobody_from_renewing() {
    let world = World::new();
    let logins = world.process_on("logins.json").store(Arc::new(Away)).build();
    world.log_in(&logins, "main", 0).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}

#[tokio::test(start_paused = true)]
async fn no_token_and_no_mark_of_one_is_in_the_store() {
    let world = World::new();
    let store = Arc::new(MemoryStore::with_clock(world.clock.clone()));
    let logins = world.process_on("logins.json").store(store.clone()).build();
    world.log_in(&logins, "main", 0).await;
    token(&logins, "main").await.unwrap();
    logins.close().await;

    let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
    let document = store.read(&key).await.unwrap().document.expect("the lease was acquired and released");
    let text = String::from_utf8(document.body.to_vec()).unwrap();

    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["format"], "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_document_that_is_not_ours_is_left_and_keeps_no_process_from_renewing() {
    for body in ["damaged", r#"{"format":2,"holder":"07","until_ms":9999999999999}"#] {
        let world = World::new();
        let store = Arc::new(MemoryStore::with_clock(world.clock.clone()));
        let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
        let _ = store.compare_and_swap(&key, None, body.into(), Duration::from_secs(3600)).await.unwrap();
        let logins = world.process_on("logins.json").store(store.clone()).build();
        world.log_in(&logins, "main", 0).await;

        assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1", "{body}");

        logins.close().await;
        assert_eq!(&store.read(&key).await.unwrap().document.unwrap().body[..], body.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_holder_was_killed_is_waited_for_and_taken_over() {
    let world = World::new();
    let store = Arc::new(MemoryStore::with_clock(world.clock.clone()));
    let key = StoreKey::provider_extension(super::id("main").provider(), "logins");
    let until = world.clock.now().as_millisecond() + 3_000;
    let held = format!(r#"{{"format":1,"holder":"07","until_ms":{until}}}"#);
    let _ = store.compare_and_swap(&key, None, held.into(), Duration::from_secs(3600)).await.unwrap();
    let logins = world.process_on("logins.json").store(store.clone()).build();
    world.log_in(&logins, "main", 0).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    assert!(world.clock.now().as_millisecond() >= until);
}

// B39
#[tokio::test(start_paused = true)]
async fn another_process_that_logs_in_again_is_noticed_at_once() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 0).await;
    world.provider.set_fails(Some(quota_core::TokenError::invalid_grant("refused")));
    assert!(token(&logins, "main").await.is_err());
    world.provider.set_fails(None);
    assert!(token(&logins, "main").await.is_err(), "a refusal is final");

    world.log_in(&world.process(), "main", 3600).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(world.provider.asked(), 1);
}
