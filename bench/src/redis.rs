//! Group `redis`: the cost of sharing through Redis, on a local server that the benchmark starts.

mod documents;
mod followers;
mod herds;
mod million;
mod notices;
mod outages;
mod reads;
mod reconnects;
mod slow;
mod swaps;
mod trips;

use std::sync::Arc;

use quota_core::{QuotaManager, QuotaStore};
use quota_redis::RedisStore;
use redis_harness::Server;
use tokio::runtime::Runtime;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let runtime = runtime();
    let mut rows = reads::rows(&runtime);
    rows.extend(runtime.block_on(trips::rows()));
    rows.extend(runtime.block_on(swaps::rows()));
    rows.extend(runtime.block_on(notices::rows()));
    rows.extend(runtime.block_on(followers::rows()));
    rows.extend(runtime.block_on(herds::rows()));
    rows.extend(runtime.block_on(outages::rows()));
    rows.extend(runtime.block_on(reconnects::rows()));
    rows.extend(runtime.block_on(slow::rows()));
    rows.extend(runtime.block_on(million::rows()));
    rows
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// A store with its own connection, as in another process.
fn open(server: &Server) -> RedisStore {
    RedisStore::open(&server.url()).expect("the URL is valid")
}

/// A manager on such a store.
fn manager(server: &Server) -> quota_core::manager::QuotaManagerBuilder {
    QuotaManager::builder(Arc::new(open(server)) as Arc<dyn QuotaStore>)
}
