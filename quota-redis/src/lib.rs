//! A store of quota on Redis or Valkey, so that many hosts share one record per account.
//!
//! ```no_run
//! // Not run: it needs a server.
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
//! // Whichever host asks first makes the one call; the others read what it found.
//! println!("{:?}", main.get().await?);
//! # quota.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Opening connects to nothing: the first call does, and every call after a connection was lost. All clones of a store, and
//! all who call it, share one connection to each server. [`RedisOptions`] is for what should not be in a URL.
//!
//! # URLs
//!
//! | URL | servers |
//! |---|---|
//! | `redis://user:password@host:6379/0` | one server, by its address |
//! | `redis+unix://user:password@/run/redis.sock?db=0` | one server, by its unix socket |
//! | `redis+cluster://host:6379?node=host2:6379` | a cluster, by any of its nodes |
//! | `redis+sentinel://host:26379/0?master=name&node=host2:26379` | the master of that name, by its sentinels |
//! | `rediss://`, `rediss+cluster://`, `rediss+sentinel://` | the same over TLS; needs the feature `tls` |
//!
//! Behind the `?` there may also be `prefix` (what all keys begin with, `quota` by default), `connect_ms` and `response_ms`
//! (time-outs), and with TLS `ca` (a file with the authority to trust instead of the system's), `cert` and `key` (files with
//! what this client shows). What is not known there is an error. User and password are percent-decoded, and shown by no
//! error, log or `Debug`.
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | TLS by rustls with ring; whether the process has installed a provider of its own does not matter |
//!
//! # What is in Redis
//!
//! One string for each account, `quota:1:{anthropic/main}`, and two like it for quiet times: a version of 16 digits, a space,
//! and the document. It expires if nobody writes it for as long as the manager keeps records. What is found there and is
//! not of this form is reported as unusable and left alone. Versions are drawn at random from 64 bits, so that one is never used
//! twice, whatever expired, failed over or was flushed.
//!
//! # Rights
//!
//! A user needs these, and no others; [`prefix`](RedisOptions::prefix) takes the place of `quota`:
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
//! In addition `+select` for a database other than 0, and `+role` behind sentinels. Sentinels have users of their own, who need
//! `+sentinel|get-master-addr-by-name`. All who share a store should have the same rights: who may not publish tells nobody.
//!
//! # Servers
//!
//! Redis from 6.0 and Valkey, which speaks the same protocol: the tests run on either (Redis 7.0 and Valkey 9.1 so far).
//! Changes are told by notices over RESP3, on a cluster by sharded channels (from 7.0). Where the server or the user's rights
//! do not let that be, versions are polled every second for as long as somebody waits.
//!
//! # When Redis is away
//!
//! Every wait has a bound: 1 s to connect and 500 ms for an answer unless set otherwise, and callers share one attempt to
//! connect. After an attempt that failed, calls fail at once for 100 to 200 ms; the first one after that tries again. A
//! connection that was lost under a call is made anew and the call repeated once. A swap that is repeated is recognised by its
//! version if it had been applied; one of which that cannot be said fails with
//! [`Applied::Perhaps`](quota_core::Applied::Perhaps). When a connection is lost, everybody who waits for a change is woken;
//! and where somebody only waits, the connection is asked every 5 s whether it still carries anything.
//!
//! A server that answers with an error keeps its connection. A replica is read, and refuses writes with
//! [`StoreError::Refused`](quota_core::StoreError::Refused); so does a server without memory, disk or enough replicas. A node of a
//! cluster that is named as a single server is refused, with the URL of the cluster.
//!
//! A master that fails may take its last writes along, since replicas follow a little behind. What that can cost is a lease: one
//! more call to the provider, never a wrong or an older reading, as managers put back what they know and the store has lost.

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
/// The crates whose types are in the signatures here.
pub use quota_core;
pub use store::RedisStore;
pub use url;
