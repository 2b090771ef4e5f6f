//! Every promise of a store, on every kind of server.

use quota_redis::RedisStore;
use redis_harness::Server;

/// A store together with the server it is on.
#[derive(Debug)]
struct On<S>(RedisStore, #[expect(dead_code, reason = "it runs for as long as this is held")] S);

#[async_trait::async_trait]
impl<S: std::fmt::Debug + Send + Sync + 'static> quota_core::QuotaStore for On<S> {
    async fn read(&self, key: &quota_core::StoreKey) -> Result<quota_core::Reading, quota_core::StoreError> {
        self.0.read(key).await
    }

    async fn swap(
        &self,
        key: &quota_core::StoreKey,
        expected: Option<quota_core::Version>,
        body: bytes::Bytes,
        keep: std::time::Duration,
    ) -> Result<quota_core::Swap, quota_core::StoreError> {
        self.0.swap(key, expected, body, keep).await
    }

    async fn changed(
        &self,
        key: &quota_core::StoreKey,
        seen: Option<quota_core::Version>,
    ) -> Result<(), quota_core::StoreError> {
        self.0.changed(key, seen).await
    }
}

quota_core::store_conformance!(single, || async {
    let server = Server::start();
    On(RedisStore::open(&server.url()).unwrap(), server)
});
