//! A store of quota on one SQLite file, so that many processes of one machine share one record per account.
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
//! // Whichever process asks first makes the one call; the others read what it found.
//! println!("{:?}", main.get().await?);
//! # quota.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Opening does nothing: the file is opened by the first call, made by the first write, and a read of what is not there finds
//! nothing. All clones of a store share two threads and two connections, one that reads and one that writes: SQLite's calls
//! block, so none is made on an async thread, and no read waits behind a writer who waits for the file's lock. It needs no
//! runtime. [`SqliteOptions`] is for what is not in a URL.
//!
//! # URLs
//!
//! `sqlite:///home/me/.local/state/quota/quota.db`: three slashes and an absolute path, percent-decoded. Behind the `?` there may
//! be `busy_ms` (how long a write waits for the lock). What is not known there is an error.
//!
//! # Rights
//!
//! The file is made with the rights 0600, together with its `-wal` and `-shm`, in a folder that is made with 0700 if it is not
//! there. One of the three that others may read or write, or that belongs to somebody else, is refused, and so is a folder in which others
//! may write, for whoever can lay a file beside the database can change what is in it. The error names the command that mends it. A
//! symbolic link is followed, and what it leads to must fulfil the same; one that leads nowhere is refused.
//!
//! # What is in the file
//!
//! One row for each account, and two like it for quiet times: key, version, document, and when it expires. A write now and then
//! takes away what has expired; reads write nothing. Versions are drawn at random from 64 bits, so that one is never used twice,
//! whatever expired, was restored from a copy, or was lost with the power.
//!
//! A file that is no database, is another program's, is damaged, or was written by a newer version of this crate is reported as
//! unusable and left as it is. [`SqliteOptions::set_damaged_aside`] renames a damaged file instead and goes on with a new one, for
//! files that are a cache.
//!
//! # When things break
//!
//! A process that is killed loses nothing it has written, and its locks end with it. One that is stopped in the middle of a write
//! keeps others from writing, not from reading; they wait for 150 ms and are told that the store is unavailable. If the power
//! fails, the last seconds of writes may be gone, and the file is whole: that costs a lease at most, so one more call to the provider.
//!
//! On a full disk, and where the file or its folder is read-only, what is there is still read, and a write is refused. A file
//! that is deleted or replaced while it is open is opened, or made, anew; but where its `-wal` was left behind it is refused, for it
//! would be taken for the next file's.
//!
//! The file must be on a disk of this machine: SQLite's shared memory does not work over NFS or SMB.

mod aside;
mod error;
mod file;
mod folder;
mod from_url;
mod lock_timeout;
mod options;
mod permissions;
mod reader;
mod schema;
mod sql;
mod store;
mod waiters;
mod writer;

pub use error::is_damage;
pub use options::{SqliteOpenError, SqliteOptions};
/// The crates whose types are in the signatures here.
pub use quota_core;
pub use store::SqliteStore;
pub use url;
