//! A store on Redis or Valkey, so that many hosts share one record per account.
//!
//! ```no_run
//! // Not run, because it needs a server.
//! use quota_core::{AccountId, QuotaManager};
//! use quota_core::testing::FakeProvider;
//! use quota_redis::RedisStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::open("redis://quota:secret@10.0.0.1:6379/0?prefix=team-a")?;
//! let quota = QuotaManager::builder(store).fetcher(FakeProvider::answering("example", 42.0)).build()?;
//! let main = quota.account(&"example/main".parse::<AccountId>()?);
//!
//! // The first host makes the call to the provider; the others read its result.
//! println!("{:?}", main.get().await?);
//! # quota.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Creating a store does not connect. The first call connects, and the first call after a lost connection reconnects. All
//! clones and callers of a store share one connection to each server. [`RedisOptions`] is for settings that should not be in a
//! URL.
//!
//! # URLs
//!
//! | URL | servers |
//! |---|---|
//! | `redis://user:password@host:6379/0` | one server |
//! | `redis+unix://user:password@/run/redis.sock?db=0` | one server, through its unix socket |
//! | `redis+cluster://host:6379?node=host2:6379` | a cluster, through any of its nodes |
//! | `redis+sentinel://host:26379/0?master=name&node=host2:26379` | the master of this name, as its sentinels report it |
//! | `rediss://`, `rediss+cluster://`, `rediss+sentinel://` | the same over TLS; needs the feature `tls` |
//!
//! The query may also contain `prefix` (of all keys, `quota` by default), `connect_ms` and `response_ms` (timeouts). With TLS
//! it may contain `ca` (a file with the CA certificates to trust instead of the system's), `cert` and `key` (files with the
//! client certificate and its key). An unknown query key is an error. User and password are percent-decoded. No error, log or
//! `Debug` shows them.
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | TLS by rustls with ring; the process need not install a crypto provider |
//!
//! # Stored data
//!
//! Each document is one string, such as `quota:1:{anthropic/main}`: a version of 16 digits, a space, and the document. It
//! expires when no process has written it for the manager's record lifetime. The store reports a value of another format as
//! corrupt and never changes it. Versions are random 64-bit numbers, so none is used twice, even after an expiry, a failover or
//! a flush.
//!
//! # Permissions
//!
//! A user needs exactly these permissions; replace `quota` by the [`prefix`](RedisOptions::prefix):
//!
//! ```text
//! ACL SETUSER quota on >secret ~quota:1:* &quota:1:* +evalsha +eval +get +set +getrange +time +publish +subscribe +unsubscribe
//! ```
//!
//! and on every node of a cluster:
//!
//! ```text
//! ACL SETUSER quota on >secret ~quota:1:* &quota:1:* +evalsha +eval +get +set +getrange +time +spublish +ssubscribe +asking +cluster|slots
//! ```
//!
//! Add `+select` for a database other than 0, and `+role` behind sentinels. Sentinels have their own users, which need
//! `+sentinel|get-master-addr-by-name`. Give all users of a store the same permissions, because a write by a user
//! without permission to publish wakes no other process.
//!
//! # Servers
//!
//! The store works with Redis 6.0 or later, and with Valkey, which has the same protocol. The tests have run on Redis 7.0 and
//! Valkey 9.1. Changes arrive as notices over RESP3, and on a cluster over sharded channels (7.0 or later). If the server or
//! the user's permissions do not allow that, the store polls versions every second while a caller waits.
//!
//! # Outages
//!
//! Every wait has a timeout: by default 1 s to connect and 500 ms for a reply. Concurrent callers share one attempt to connect.
//! After a failed attempt, calls fail at once for 100 to 200 ms; the next one tries again. If a connection is lost during a
//! call, the call reconnects and retries once. The version of a retried swap shows whether it was already applied. If that is
//! uncertain, the swap fails with [`WriteState::Unknown`](quota_core::store::WriteState::Unknown). A lost connection wakes all callers
//! that wait for a change. While callers only wait, the store probes the connection every 5 s.
//!
//! A server that replies with an error keeps its connection. A replica serves reads, and rejects writes with
//! [`StoreError::Rejected`](quota_core::store::StoreError::Rejected). So does a server that lacks memory, disk space or replicas. If a
//! cluster node is configured as a single server, the store rejects it and names the URL of the cluster.
//!
//! A failover may lose the last writes, because replication is asynchronous. That can lose a lease, which costs at most
//! one extra call to the provider. Readings never become older, because managers restore lost writes.

mod address;
mod client;
mod cluster;
mod connection;
mod connector;
mod error;
mod from_url;
mod keepalive;
mod key;
mod node;
mod options;
mod script;
mod store;
mod subscription_task;
mod subscriptions;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod topology;
mod version_tracker;
mod wait;
mod watchdog;
mod write_coalescer;

pub use options::{RedisOpenError, RedisOptions};
/// The crate whose types appear in this API.
pub use quota_core;
pub use store::RedisStore;
pub use url;
