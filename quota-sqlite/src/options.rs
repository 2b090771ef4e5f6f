//! The settings of a store, as plain data.
//! `from_url` parses them from a URL.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quota_core::Clock;

/// The path of the file, and the settings of the store.
///
/// Most programs need only [`SqliteStore::open`](crate::SqliteStore::open) and a URL.
///
/// ```
/// use std::time::Duration;
/// use quota_sqlite::SqliteOptions;
///
/// // The first call opens the file.
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
    pub(crate) must_exist: bool,
}

/// The callback after a damaged file was set aside.
#[derive(Clone)]
pub(crate) struct OnAside(pub(crate) Arc<dyn Fn(&Path) + Send + Sync>);

impl fmt::Debug for OnAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnAside").finish_non_exhaustive()
    }
}

impl SqliteOptions {
    /// The file at this absolute path. A relative path would name another file in each working directory.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            busy_timeout: Duration::from_millis(150),
            min_poll_interval: Duration::from_millis(10),
            max_poll_interval: Duration::from_millis(200),
            clock: Clock::system(),
            on_aside: None,
            must_exist: false,
        }
    }

    /// How long a write waits for another process's lock: 150 ms by default, less than a manager's store timeout. After a write has timed
    /// out, later writes wait at most 50 ms until one gets the lock.
    pub fn busy_timeout(mut self, duration: Duration) -> Self {
        self.busy_timeout = duration;
        self
    }

    /// How often the store polls for writes of other processes while a caller waits. The interval doubles from `min` (10 ms by default)
    /// to `max` (200 ms), and returns to `min` after a change.
    pub fn poll_interval(mut self, min: Duration, max: Duration) -> Self {
        self.min_poll_interval = min;
        self.max_poll_interval = max;
        self
    }

    /// Sets a damaged file aside and uses a new one. Use this for files that are only a cache. By default a damaged file stays unchanged,
    /// and calls fail.
    ///
    /// This applies only if SQLite reports that the file is damaged or not a database. It never applies to a file of another program or
    /// of a newer version of this crate, nor through a symbolic link. The store renames the file to `NAME.damaged-TIME`, together with
    /// its `-wal` and `-shm`, and deletes nothing. If several processes find the damage, one of them renames the file and calls `notice`
    /// with the new path, on a thread of the store. If a process is killed in between, the next one renames the log that has lost its
    /// file. If a damaged file stays in place, each process examines it only once.
    pub fn set_damaged_aside(mut self, notice: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        self.on_aside = Some(OnAside(Arc::new(notice)));
        self
    }

    /// Never creates the file. A write without the file fails as unavailable.
    ///
    /// For a file that another process may remove at any time, and that must not come back.
    pub fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// Replaces the system clock, for tests. All stores on a file must share one clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), SqliteOpenError> {
        for (is_invalid, reason) in [
            (!self.path.is_absolute(), "the path must be absolute: sqlite:///home/me/quota.db"),
            (self.path.file_name().is_none(), "the path must name a file: sqlite:///home/me/quota.db"),
            (self.busy_timeout > MAX_LOCK_TIMEOUT, "the lock timeout must be at most one hour"),
            (self.min_poll_interval.is_zero(), "the poll interval must be greater than zero"),
            (
                self.max_poll_interval < self.min_poll_interval,
                "the longest poll interval must not be shorter than the first",
            ),
        ] {
            if is_invalid {
                return Err(SqliteOpenError::setting(reason));
            }
        }
        Ok(())
    }
}

/// SQLite stores the lock timeout in 31 bits of milliseconds.
const MAX_LOCK_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why a store cannot be created.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// The text is not a URL.
    #[error("not a sqlite URL; try sqlite:///home/me/quota.db")]
    #[non_exhaustive]
    InvalidUrl {
        /// The parse error.
        #[source]
        error: url::ParseError,
    },
    /// A setting is not valid.
    #[error("{reason}")]
    #[non_exhaustive]
    Setting {
        /// The setting, and the expected value.
        reason: Cow<'static, str>,
    },
}

impl SqliteOpenError {
    pub(crate) fn setting(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Setting { reason: reason.into() }
    }
}
