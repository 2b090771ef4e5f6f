//! A store in one SQLite file, so that all processes on a machine share one record per account.
//!
//! ```
//! use quota_core::{AccountId, QuotaManager};
//! use quota_core::testing::FakeProvider;
//! use quota_sqlite::SqliteStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("quota.db");
//! let store = SqliteStore::open(&format!("sqlite://{}", path.display()))?;
//! let quota = QuotaManager::builder(store).fetcher(FakeProvider::answering("example", 42.0)).build()?;
//! let main = quota.account(&"example/main".parse::<AccountId>()?);
//!
//! // The first process makes the call to the provider; the others read its result.
//! println!("{:?}", main.get().await?);
//! # quota.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Creating a store does not touch the file. The first call opens it, the first write creates it, and a read of a missing file finds no
//! document. All clones of a store share two threads and two connections, one for reads and one for writes. SQLite calls block, so none
//! runs on an async thread, and no read waits behind a write that waits for the file lock. The store needs no runtime. [`SqliteOptions`]
//! has the settings that a URL cannot contain.
//!
//! # URLs
//!
//! `sqlite:///home/me/.local/state/quota/quota.db`: three slashes and an absolute path, percent-decoded. The query may contain `busy_ms`,
//! the time that a write waits for the lock. An unknown query key is an error.
//!
//! # Permissions
//!
//! The file and its `-wal` and `-shm` are created with mode 0600, and a missing folder with 0700. The store rejects a
//! file that other users can read or write, or that belongs to another user. It also rejects a folder that other users
//! can write to, because they could place a `-wal` next to the database and so change its content. The error names the
//! command that fixes it. A symbolic link is followed, and its target must pass the same checks. A dangling link is
//! rejected.
//!
//! # Stored data
//!
//! Each document is one row: key, version, body and expiry. One write in 64 also removes expired rows; reads write nothing. Versions are
//! random 64-bit numbers, so none is used twice, even after an expiry, a restore from a backup or a power failure.
//!
//! The store reports a file as corrupt, and never changes it, if the file is not a database, belongs to another program, is damaged, or
//! was written by a newer version of this crate. For files that are only a cache, [`SqliteOptions::set_damaged_aside`] renames a damaged
//! file and uses a new one.
//!
//! # Faults
//!
//! A process that is killed loses no applied write, and the system releases its locks. A process that is stopped during a write blocks
//! other writers but no readers. Those writers fail after 150 ms and report the store as unavailable. A power failure may lose the last seconds of
//! writes but never damages the file. That can lose a lease, which costs at most one extra call to the provider.
//!
//! On a full disk, or if the file or its folder is read-only, reads work and writes are rejected. If the file is deleted or replaced
//! while it is open, the next call opens or creates the new one. If its `-wal` was left behind, calls fail, because SQLite would apply
//! that log to the next file.
//!
//! The file must be on a local disk: SQLite's shared memory does not work over NFS or SMB.

mod aside;
mod create;
mod error;
mod file;
mod folder;
mod from_url;
mod lock_timeout;
mod locks;
mod options;
mod permissions;
mod reader;
mod remove;
mod schema;
mod sql;
mod store;
mod waiters;
mod writer;

pub use error::is_damage;
pub use options::{SqliteOpenError, SqliteOptions};
/// The crate whose types appear in this API.
pub use quota_core;
pub use store::SqliteStore;
pub use url;
