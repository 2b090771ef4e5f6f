//! Opens the store of a command: the one on the command line, otherwise the one in the environment, otherwise the
//! default file of this user.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use quota::outage::{Outage, OutageStore};
use quota::policy::StoreOutagePolicy;
use quota::sqlite::{SqliteOpenError, SqliteOptions};
use quota::store::{StoreError, StoreKey};
use quota::{Policy, QuotaStore, Secret};

use crate::command_store::{CommandStore, Limit};
use crate::config::{self, Config};
use crate::exit::{CliError, Exit};
use crate::sanitize::sanitize;
use crate::term;

/// The variable with the store URL, used if the command line has none. A URL may contain a password, and other users
/// can read the arguments of a process.
pub(crate) const URL_VARIABLE: &str = "QUOTA_STORE";
/// The store without a file, which is private to this process.
const MEMORY_URL: &str = "memory:";
/// How long a command waits for the lock of a store file. Two such waits are shorter than [`FILE_TIMEOUT`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a command waits for a store file. On a busy machine, a late result is better than a provider call without the store, or
/// a statusline without data.
pub(crate) const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store, and where its URL came from.
#[derive(Debug, Clone)]
pub(crate) struct OpenedStore {
    pub(crate) store: Arc<dyn QuotaStore>,
    /// The store itself, unless the command only examines it.
    pub(crate) used: Option<Arc<CommandStore>>,
    /// The store with its files for outages; `None` if it is not shared.
    outage: Option<Arc<OutageStore>>,
    /// The URL, for child processes that use the same store. It may contain a password.
    pub(crate) url: Secret,
    /// Whether other processes can use the store.
    pub(crate) is_shared: bool,
    /// No URL was given, and there is no home directory for the default file.
    pub(crate) no_home: bool,
    /// The option or variable that names the store; empty for the default file.
    source: &'static str,
}

impl OpenedStore {
    /// Whether it is the default file of this user, in the folder with the other state of this program.
    pub(crate) fn is_default(&self) -> bool {
        self.source.is_empty()
    }
}

/// Opens the store for a command.
///
/// # Errors
///
/// [`CliError`] if the URL names no store, or the store cannot be opened.
pub(crate) fn open(url: Option<&str>) -> Result<OpenedStore, CliError> {
    find(url, Purpose::Command)
}

/// Opens the store for a statusline. The total wait of all its calls is limited to the store timeout of one call, because the next
/// statusline retries.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn open_quick(url: Option<&str>) -> Result<OpenedStore, CliError> {
    find(url, Purpose::Line)
}

/// Opens the store for a command that diagnoses it. The store is not changed or replaced.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn open_to_examine(url: Option<&str>) -> Result<OpenedStore, CliError> {
    find(url, Purpose::Examination)
}

/// The purpose for which a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Command,
    Line,
    Examination,
}

fn find(url: Option<&str>, purpose: Purpose) -> Result<OpenedStore, CliError> {
    let variable = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
    let (source, url, no_home) = match (url, variable) {
        (Some(url), _) => ("--store", url.to_owned(), false),
        (None, Some(url)) => (URL_VARIABLE, url, false),
        (None, None) => match default_db_path() {
            Some(path) => ("", url_of_file(&path), false),
            None => ("", MEMORY_URL.to_owned(), true),
        },
    };
    let to_open = if purpose == Purpose::Line { Cow::Borrowed(&*url) } else { with_busy_timeout(&url) };
    let is_default = source.is_empty() && !no_home;
    let inner = if is_default && purpose != Purpose::Examination {
        open_default_file(&to_open)
    } else {
        // The error never repeats the URL.
        quota::open_store(&to_open).map_err(|error| with_source(source, &error.to_string()))
    };
    let inner = inner.map_err(|why| CliError::new(Exit::Config, why))?;
    let used = (purpose != Purpose::Examination).then(|| {
        // A statusline shows the error instead of the usage, so it does not continue.
        let continues = purpose == Purpose::Command;
        Arc::new(CommandStore::new(Arc::clone(&inner), limit(&url, purpose), continues))
    });
    let is_shared = !url.starts_with(MEMORY_URL);
    let used_store: Arc<dyn QuotaStore> = used.clone().map_or(inner, |used| used);
    let outage = is_shared.then(|| {
        let timeout = store_timeout(&url, &Policy::default());
        let store = OutageStore::new(Arc::clone(&used_store), quota::outage_files(&url), timeout);
        Arc::new(match purpose {
            // A statusline waits only briefly for the lock of a file, so its timeouts do not indicate an outage.
            Purpose::Line if is_file(&url) => store.brief().ignoring_timeouts(),
            Purpose::Line => store.brief(),
            Purpose::Command | Purpose::Examination => store,
        })
    });
    Ok(OpenedStore {
        store: match &outage {
            Some(outage) if purpose != Purpose::Examination => Arc::clone(outage) as Arc<dyn QuotaStore>,
            _ => used_store,
        },
        used,
        outage,
        is_shared,
        url: Secret::new(url),
        no_home,
        source,
    })
}

/// Opens the default file. It is only a cache of this program, so a new file replaces a damaged one.
fn open_default_file(url: &str) -> Result<Arc<dyn QuotaStore>, String> {
    let options: SqliteOptions = url.parse().map_err(|error: SqliteOpenError| error.to_string())?;
    let report = |copy: &Path| {
        let copy = sanitize(&copy.display().to_string());
        term::eprint(&format!("quota: replaced the damaged store; the damaged file is kept: {copy}\n"));
    };
    let store = options.set_damaged_aside(report).open().map_err(|error| error.to_string())?;
    Ok(Arc::new(store))
}

/// The limit for the total wait for the store. Reads of a file need no limit, because they do not wait for a lock.
fn limit(url: &str, purpose: Purpose) -> Limit {
    let timeout = Policy::default().store_timeout;
    match purpose {
        Purpose::Line if is_file(url) => Limit::Writes(timeout),
        Purpose::Line => Limit::Calls(timeout),
        Purpose::Command | Purpose::Examination => Limit::None,
    }
}

/// The timeout of one store operation.
fn store_timeout(url: &str, policy: &Policy) -> Duration {
    if is_file(url) { policy.store_timeout.max(FILE_TIMEOUT) } else { policy.store_timeout }
}

impl OpenedStore {
    /// Applies the configuration: the timeout of the store, and the behavior without it. Returns the policy of the
    /// command's manager.
    pub(crate) fn policy(&self, config: &Config) -> Policy {
        let mut policy = config.policy.clone();
        policy.store_timeout = store_timeout(self.url.expose(), &policy);
        let Some(outage) = &self.outage else { return policy };
        outage.set_timeout(policy.store_timeout);
        match policy.on_store_unavailable {
            StoreOutagePolicy::FailClosed => outage.disable(),
            _ => {
                policy.store_timeout = outage.max_duration();
                policy.on_store_unavailable = StoreOutagePolicy::RefreshOnly;
            }
        }
        policy
    }

    /// Uses no outage file unless another process has begun an outage. This is for a command that changes shared state:
    /// otherwise it would report a change that other hosts do not see.
    pub(crate) async fn without_new_outage(&self) {
        if let Some(outage) = &self.outage
            && self.find_outage().await.is_none()
        {
            outage.disable();
        }
    }

    /// The outage during which the command ran, if it used a file or found none that it could use.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.outage.as_ref()?.outage()
    }

    /// The store with its files for outages; `None` if it is not shared.
    pub(crate) fn outages(&self) -> Option<&Arc<OutageStore>> {
        self.outage.as_ref()
    }

    /// Looks for the file of an outage, without using the store.
    pub(crate) async fn find_outage(&self) -> Option<Outage> {
        self.outage.as_ref()?.find_outage().await.ok().flatten()
    }

    /// Opens a store file before its first use. Does not connect to other stores.
    pub(crate) async fn warm_up(&self) {
        // Bypass the outage files, because this future may be dropped at any time, and with it a due attempt to end an
        // outage.
        if let Some(used) = self.used.as_ref().filter(|_| self.is_file()) {
            // Ignore errors, because the first operation reports them.
            let _ = used.read(&StoreKey::probe()).await;
        }
    }

    /// Whether the store is a local file.
    pub(crate) fn is_file(&self) -> bool {
        is_file(self.url.expose())
    }

    /// Applies the configuration, and checks that the store can be used.
    ///
    /// Apply the configuration first, because a longer timeout may prevent a slow store from counting as an outage.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store needs repair. Otherwise a manager would run standalone, and few users would notice. An
    /// unavailable store is not an error, because it may respond later.
    pub(crate) async fn check(&self, config: &Config) -> Result<(), CliError> {
        let _ = self.policy(config);
        match self.store.read(&StoreKey::probe()).await {
            Err(error) if !error.is_transient() => {
                let text = if self.source.is_empty() { error.to_string() } else { cause(&error).to_owned() };
                Err(CliError::new(Exit::Config, with_source(self.source, &text)))
            }
            _ => Ok(()),
        }
    }
}

fn is_file(url: &str) -> bool {
    url.starts_with("sqlite:")
}

fn with_source(source: &str, error: &str) -> String {
    if source.is_empty() { error.to_owned() } else { format!("{source}: {error}") }
}

/// The cause of a store error, without the operation, for messages that name the operation themselves.
pub(crate) fn cause(error: &StoreError) -> &str {
    match error {
        StoreError::Unavailable { reason, .. }
        | StoreError::Rejected { reason, .. }
        | StoreError::Corrupt { reason, .. } => reason,
        _ => "the store failed",
    }
}

/// The default store file; `None` without a home directory.
fn default_db_path() -> Option<PathBuf> {
    Some(config::directory("XDG_STATE_HOME", &[".local", "state"])?.join("quota").join("quota.db"))
}

fn url_of_file(path: &Path) -> String {
    // Characters with a meaning in a URL, and characters that are invalid in a URL.
    const RESERVED: AsciiSet =
        CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ').add(b'\\').add(b'"').add(b'<').add(b'>');
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), &RESERVED);
    format!("sqlite://{path}")
}

/// The URL with [`BUSY_TIMEOUT`] if it is a file, unless the URL already has settings.
fn with_busy_timeout(url: &str) -> Cow<'_, str> {
    if is_file(url) && !url.contains('?') {
        Cow::Owned(format!("{url}?busy_ms={}", BUSY_TIMEOUT.as_millis()))
    } else {
        Cow::Borrowed(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_a_busy_timeout_unless_its_url_has_one() {
        let path = Path::new("/home/me/a?b/quota.db");
        let url = url_of_file(path);
        assert_eq!(url, "sqlite:///home/me/a%3Fb/quota.db");

        for (url, opened) in [
            (&*url, "sqlite:///home/me/a%3Fb/quota.db?busy_ms=3000"),
            ("sqlite:///x/quota.db?busy_ms=20", "sqlite:///x/quota.db?busy_ms=20"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(with_busy_timeout(url), opened);
        }
    }

    #[test]
    fn only_statuslines_have_a_limit_and_for_files_only_for_writes() {
        let timeout = Duration::from_millis(225);

        assert_eq!(limit("redis://127.0.0.1", Purpose::Line), Limit::Calls(timeout));
        assert_eq!(limit("sqlite:///x/quota.db", Purpose::Line), Limit::Writes(timeout));
        assert_eq!(limit("redis://127.0.0.1", Purpose::Command), Limit::None);
    }
}
