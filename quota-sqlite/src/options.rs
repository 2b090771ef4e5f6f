//! The settings of a store, as plain data.
//! How they are read from a URL is in `from_url`.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quota_core::Clock;

/// Where the file is, and how it is to be used.
///
/// Most programs need no more than [`SqliteStore::open`](crate::SqliteStore::open) and a URL.
///
/// ```
/// use std::time::Duration;
/// use quota_sqlite::SqliteOptions;
///
/// // Nothing is opened before the first call.
/// let store = SqliteOptions::file("/home/me/.local/state/quota/quota.db").busy_timeout(Duration::from_millis(50)).open()?;
/// # Ok::<(), quota_sqlite::SqliteOpenError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) busy_timeout: Duration,
    pub(crate) min_poll_interval: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) on_aside: Option<OnAside>,
}

/// What is to be done once a damaged file was set aside.
#[derive(Clone)]
pub(crate) struct OnAside(pub(crate) Arc<dyn Fn(&Path) + Send + Sync>);

impl fmt::Debug for OnAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnAside").finish_non_exhaustive()
    }
}

impl SqliteOptions {
    /// The file at this path, as an absolute one: a relative path would be another file in every directory.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            busy_timeout: Duration::from_millis(150),
            min_poll_interval: Duration::from_millis(10),
            max_poll_interval: Duration::from_millis(200),
            clock: Clock::system(),
            on_aside: None,
        }
    }

    /// How long a write waits for another process's lock: 150 ms by default, less than a manager waits for its store. Once a write has
    /// waited so long in vain, the next ones wait 50 ms at most, until one gets the lock.
    pub fn busy_timeout(mut self, duration: Duration) -> Self {
        self.busy_timeout = duration;
        self
    }

    /// How often it is looked whether another process has written, while somebody waits for that: after 10 ms, then less and
    /// less often, down to every 200 ms by default.
    pub fn poll_interval(mut self, from: Duration, to: Duration) -> Self {
        self.min_poll_interval = from;
        self.max_poll_interval = to;
        self
    }

    /// Sets a damaged file aside and goes on with a new one, for files that are a cache. By default a damaged file is left as it is,
    /// and calls fail.
    ///
    /// Only if SQLite reports that the file is damaged, or no database; never a file of another program or of a newer version of this
    /// crate, and never by way of a symbolic link. The file is renamed to `NAME.damaged-TIME`, together with its `-wal` and `-shm`;
    /// nothing is deleted. Of several processes that find it damaged, one does so. A log that was left without its file, by a process
    /// that was killed in between, is renamed too. `notice` is called with the new path in the process that did, on a thread of the
    /// store. A damaged file that stays is examined once in each process.
    pub fn set_damaged_aside(mut self, notice: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        self.on_aside = Some(OnAside(Arc::new(notice)));
        self
    }

    /// Another clock than the system's, for tests. All who share a file must share the clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), SqliteOpenError> {
        for (is_invalid, reason) in [
            (!self.path.is_absolute(), "the path must be absolute: sqlite:///home/me/quota.db"),
            (self.path.file_name().is_none(), "the path names no file: sqlite:///home/me/quota.db"),
            (self.busy_timeout > LONGEST_WAIT, "a wait for the lock must not be longer than an hour"),
            (self.min_poll_interval.is_zero(), "a pause between two looks must be longer than nothing"),
            (
                self.max_poll_interval < self.min_poll_interval,
                "the longest pause must not be shorter than the first",
            ),
        ] {
            if is_invalid {
                return Err(SqliteOpenError::setting(reason));
            }
        }
        Ok(())
    }
}

/// SQLite counts the wait in 31 bits of milliseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Why a store cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// The text is no URL.
    #[error("a SQLite store is named by a URL such as sqlite:///home/me/quota.db, and this is none")]
    #[non_exhaustive]
    InvalidUrl {
        /// What is wrong with it.
        #[source]
        error: url::ParseError,
    },
    /// A setting makes no sense.
    #[error("{reason}")]
    #[non_exhaustive]
    Setting {
        /// What is wrong, and what it should be.
        reason: Cow<'static, str>,
    },
}

impl SqliteOpenError {
    pub(crate) fn setting(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Setting { reason: reason.into() }
    }
}
