//! Changes the accounts in the configuration file, under a lock that is held while the file is read, edited and written.
//! `edit` changes the text.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::Clock;
use quota::file::{FileLock, resolve_symlinks};

use super::edit::{self, EditError};
use super::old_accounts::OldAccounts;
use super::{AccountSettings, Config, default_path};
use crate::exit::{CliError, Exit};
use crate::input;
use crate::io_cause;
use crate::sanitize::sanitize;
use crate::term;

/// How long to wait for the lock of another command.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How many attempts to make if an editor saves the file in between.
const MAX_ATTEMPTS: u32 = 5;

/// The beginning of a new file.
const HEAD: &str = "\
# The accounts of `quota`. `quota accounts` edits them here, and keeps your comments and formatting.
# This file has no tokens, only where to find them. See: quota status --help
";

/// The change that a command makes.
#[derive(Debug)]
pub(crate) struct Change<R> {
    /// All accounts in their order; `None` to write nothing.
    pub(crate) accounts: Option<Vec<AccountSettings>>,
    pub(crate) answer: R,
}

impl<R> Change<R> {
    /// Changes to these accounts. Nothing is written if they are unchanged.
    pub(crate) fn to(config: &Config, accounts: Vec<AccountSettings>, answer: R) -> Self {
        let is_same = edit::is_same(&config.accounts, &accounts);
        Self { accounts: (!is_same).then_some(accounts), answer }
    }
}

/// Changes the accounts of the named configuration, or of the default one, which is created if it does not exist.
///
/// `change` gets the configuration under the lock, and is called again if an editor saves the file in between.
///
/// # Errors
///
/// The errors of `change`, and [`CliError`] if the file cannot be read, edited or written. The file is then unchanged, and the error
/// describes the edit to make by hand.
pub(crate) async fn update<R>(
    named: Option<&Path>,
    mut change: impl FnMut(&Config) -> Result<Change<R>, CliError>,
) -> Result<R, CliError> {
    let path = path(named)?;
    move_old_accounts(named, &path).await?;
    let file = ConfigFile::open(&path, named.is_some()).await?;
    for _ in 0..MAX_ATTEMPTS {
        let read = file.read()?;
        let config = read.config.clone();
        let config = if read.bytes.is_none() && named.is_none() { Config::default_account() } else { config };
        let Change { accounts, answer } = change(&config)?;
        let Some(accounts) = accounts else { return Ok(answer) };
        if file.write(&read, &accounts)? {
            return Ok(answer);
        }
    }
    Err(CliError::new(
        Exit::Unavailable,
        format!("{} is being changed by another program; try again", file.name()),
    ))
}

/// The file that commands change.
pub(crate) fn path(named: Option<&Path>) -> Result<PathBuf, CliError> {
    if named.is_some_and(|path| path.as_os_str() == "-") {
        let why = "standard input cannot be changed; name a file with --config";
        return Err(CliError::new(Exit::Usage, why));
    }
    named.map(Path::to_owned).or_else(default_path).ok_or_else(|| {
        let why = "neither XDG_CONFIG_HOME nor HOME is set; name a file with --config";
        CliError::new(Exit::Usage, why)
    })
}

/// Locks a configuration; `None` if another command holds the lock for too long. The lock file is removed on release, because the
/// folder belongs to the user.
pub(crate) async fn lock(path: &Path) -> io::Result<Option<FileLock>> {
    let lock = FileLock::acquire(path, ".lock", &Clock::system(), LOCK_TIMEOUT).await?;
    Ok(lock.map(FileLock::remove_on_release))
}

/// Converts the `accounts.json` of an earlier version once, into the default configuration and the named one.
///
/// It holds the lock of the default one until the old file is renamed. If the process is killed before that, the next command
/// repeats the conversion, which is idempotent.
async fn move_old_accounts(named: Option<&Path>, path: &Path) -> Result<(), CliError> {
    if OldAccounts::load()?.is_none() {
        return Ok(());
    }
    let default = default_path().unwrap_or_else(|| path.to_owned());
    let file = ConfigFile::open(&default, false).await?;
    // Another command may have converted it before the lock was free.
    let Some(old) = OldAccounts::load()? else { return Ok(()) };
    file.merge(&old, false)?;
    if named.is_some() && path.exists() && resolve_symlinks(path) != resolve_symlinks(&default) {
        let other = ConfigFile::open(path, true).await?;
        other.merge(&old, true)?;
    }
    let old_name = old.path().display();
    let is_left = old.set_aside().map_err(|error| {
        let why = io_cause::of_write(&error);
        let line = format!("could not rename {old_name}: {why}; its accounts are in {} now", file.name());
        CliError::new(Exit::IoErr, line)
    })?;
    let rest = if is_left {
        format!("{old_name} is kept, because it has settings of another program, but it is no longer read")
    } else {
        format!("renamed {old_name} to {old_name}.converted")
    };
    // This command cannot find other configurations that are used with --config.
    let elsewhere = if old.has_settings() {
        "; its limits, order and disabled accounts no longer apply to other files that are used with --config; set them there"
    } else {
        ""
    };
    term::eprint(&format!(
        "quota: moved the accounts of {old_name} into {}{elsewhere}; {rest}\n",
        file.name()
    ));
    Ok(())
}

/// The locked configuration file. The lock is an error if the file cannot be written.
struct ConfigFile {
    path: PathBuf,
    is_named: bool,
    lock: Result<FileLock, io::Error>,
}

/// The content of the file.
#[derive(Clone)]
struct Contents {
    /// `None` if there is no file.
    bytes: Option<Vec<u8>>,
    text: String,
    config: Config,
}

impl ConfigFile {
    async fn open(path: &Path, is_named: bool) -> Result<Self, CliError> {
        let lock = match lock(path).await {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => {
                let why = format!("another command is changing {}; try again", input::display_name(path));
                return Err(CliError::new(Exit::Unavailable, why));
            }
            // `write` reports this error together with the change.
            Err(error) => Err(error),
        };
        Ok(Self { path: path.to_owned(), is_named, lock })
    }

    fn name(&self) -> String {
        input::display_name(&self.path)
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn read(&self) -> Result<Contents, CliError> {
        // A broken symlink is not a missing file.
        if !self.is_named && self.path.symlink_metadata().is_err() {
            let config = Config { path: None, ..Config::empty() };
            return Ok(Contents { bytes: None, text: HEAD.to_owned(), config });
        }
        let bytes = input::read_trusted(&self.path)?;
        let config = Config::of_bytes(&self.path, &bytes, &[])?;
        let text = String::from_utf8(bytes.clone()).expect("the configuration was parsed as UTF-8");
        Ok(Contents { bytes: Some(bytes), text, config })
    }

    /// Writes the accounts, unless the file has changed since it was read (`false`).
    fn write(&self, read: &Contents, accounts: &[AccountSettings]) -> Result<bool, CliError> {
        let by_hand = || edit::by_hand(&read.config.accounts, accounts);
        let not_changed = |why: &str| {
            let line = format!("could not change {}: {why}; edit it by hand: {}", self.name(), by_hand());
            CliError::new(Exit::IoErr, sanitize(&line))
        };
        let edited = edit::with_accounts(&read.text, self.directory(), &read.config, accounts);
        let text = edited.map_err(|error| {
            let name = self.name();
            let line = match error {
                EditError::Form { line } => format!(
                    "{name}:{line}: cannot be edited automatically without losing content; edit it by hand: {}",
                    by_hand()
                ),
                EditError::Hook { line, account } => {
                    format!("{name}:{line}: a hook names {account}; remove it from the hook first")
                }
            };
            CliError::new(Exit::Config, sanitize(&line))
        })?;
        if read.bytes.as_deref() == Some(text.as_bytes()) || (read.bytes.is_none() && accounts.is_empty()) {
            return Ok(true);
        }
        let lock = self.lock.as_ref().map_err(|error| not_changed(&io_cause::of_write(error)))?;
        if read.bytes.is_some() {
            check_writable(lock.target()).map_err(not_changed)?;
        }
        lock.replace_if_unchanged(read.bytes.as_deref(), text.as_bytes())
            .map_err(|error| not_changed(&io_cause::of_write(&error)))
    }

    /// Writes the settings of the old file.
    fn merge(&self, old: &OldAccounts, is_named: bool) -> Result<(), CliError> {
        for _ in 0..MAX_ATTEMPTS {
            let read = self.read()?;
            let default = Config::default_account();
            let is_default = read.bytes.is_none() && !old.adds_accounts();
            let before = if is_default { default.clone() } else { read.config.clone() };
            let joined = before.join(old, is_named).accounts;
            if is_default && edit::is_same(&joined, &default.accounts) {
                return Ok(());
            }
            if self.write(&read, &joined)? {
                return Ok(());
            }
        }
        Err(CliError::new(
            Exit::Unavailable,
            format!("{} is being changed by another program; try again", self.name()),
        ))
    }
}

/// Checks whether the file may be replaced. Replacing needs only permission on the folder, so check the file itself here.
fn check_writable(path: &Path) -> Result<(), &'static str> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if !found.is_file() {
        return Err("it is not a regular file");
    }
    if found.permissions().readonly() {
        return Err("it is read-only");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let own = rustix::process::geteuid().as_raw();
        if own != 0 && found.uid() != own {
            return Err("it belongs to another user");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_concurrent_edit_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = "[[accounts]]\nid = \"anthropic/a\"\n";
        fs::write(&path, text).unwrap();
        let mut calls = 0;

        let updated = update(Some(&path), |config| {
            calls += 1;
            if calls == 1 {
                fs::write(&path, format!("{text}killswitch = 5\n")).unwrap();
            }
            let mut accounts = config.accounts.clone();
            accounts[0].disabled = true;
            Ok(Change::to(config, accounts, ()))
        });

        updated.await.unwrap();
        assert_eq!(calls, 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}killswitch = 5\ndisabled = true\n"));
    }

    #[tokio::test]
    async fn update_gives_up_if_the_file_keeps_changing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "[[accounts]]\nid = \"anthropic/a\"\n").unwrap();
        let mut calls = 0;

        let updated = update(Some(&path), |config| {
            calls += 1;
            fs::write(&path, format!("# {calls}\n[[accounts]]\nid = \"anthropic/a\"\n")).unwrap();
            let mut accounts = config.accounts.clone();
            accounts[0].disabled = true;
            Ok(Change::to(config, accounts, ()))
        });

        assert!(updated.await.unwrap_err().to_string().contains("by another program; try again"));
        assert_eq!(calls, MAX_ATTEMPTS);
    }
}
