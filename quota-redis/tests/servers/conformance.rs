//! The conformance suite of stores, on every kind of server.
//! A cluster and sentinels take seconds to start, so they run all cases in one test.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version};
use quota_redis::RedisStore;
use redis_harness::{Cluster, Sentinels, Server};

use crate::env::open;
use crate::permissions;

/// A store together with its servers, which stop when this is dropped.
#[derive(Debug)]
struct WithServers<S> {
    store: RedisStore,
    _servers: S,
}

impl<S> WithServers<S> {
    fn new(store: RedisStore, servers: S) -> Self {
        Self { store, _servers: servers }
    }
}

#[async_trait]
impl<S: std::fmt::Debug + Send + Sync + 'static> QuotaStore for WithServers<S> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.store.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.store.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.store.wait_for_change(key, seen).await
    }
}

quota_core::store_conformance!(single, || async {
    let server = Server::start();
    WithServers::new(open(&server.url()), server)
});

quota_core::store_conformance!(unix_socket, || async {
    let server = Server::start();
    WithServers::new(open(&format!("redis+unix://{}?db=3", server.socket().display())), server)
});

quota_core::store_conformance!(required_permissions, || async {
    let server = Server::start();
    WithServers::new(permissions::store_with_required_permissions(&server), server)
});

quota_core::store_conformance!(polling, || async {
    let server = Server::builder().with("rename-command HELLO \"\"").start();
    let options: quota_redis::RedisOptions = server.url().parse().unwrap();
    WithServers::new(options.poll_interval(Duration::from_millis(5)).open().unwrap(), server)
});

#[cfg(feature = "tls")]
quota_core::store_conformance!(tls, || async {
    let (authority, server) = crate::tls::server(true);
    WithServers::new(crate::tls::options(&authority, &server).open().unwrap(), server)
});

quota_core::store_conformance!(
    cluster,
    || async {
        let cluster = Cluster::start();
        WithServers::new(open(&cluster.url()), cluster)
    },
    in_one_test
);

quota_core::store_conformance!(
    sentinel,
    || async {
        let sentinels = Sentinels::start_single();
        WithServers::new(open(&sentinels.url()), sentinels)
    },
    in_one_test
);
