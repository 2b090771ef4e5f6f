//! The manager that a configuration asks for: the one place where store, fetchers and policy come together.
//! What is asked of it is each command's own business.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use quota::CredentialSource;
use quota::anthropic::Anthropic;
use quota::credentials::{ClaudeCode, CommandToken, CredentialMap, EnvToken, FileToken};
use quota::sqlite::{SqliteOpenError, SqliteOptions};
use quota::{Policy, QuotaManager, QuotaManagerBuilder, QuotaStore, Secret, StoreError, StoreKey};

use crate::command_store::{CommandStore, Limit};
use crate::config::{self, Config, LoginSource};
use crate::exit::{Exit, Failure};
use crate::harmless::harmless;
use crate::scope::CommandScope;
use crate::term;

/// The variable that names the store if the command line does not: a URL may hold a password, which others see there.
pub(crate) const STORE_VARIABLE: &str = "QUOTA_STORE";
/// How long a token command may take if the policy does not leave it less.
const TOKEN_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// A store, and how it was named.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) store: Arc<dyn QuotaStore>,
    /// The same, if it is used and not only examined.
    pub(crate) used: Option<Arc<CommandStore>>,
    /// For a process that is to use the same; it may hold a password.
    pub(crate) url: Secret,
    /// Whether other processes see what is in it.
    pub(crate) is_shared: bool,
    /// Nobody named one, and there is no place for a file.
    pub(crate) is_for_want_of_a_home: bool,
    /// Who named it; empty if nobody did, and then its errors stand for themselves.
    what: &'static str,
}

/// The store that is named by the command line, or else by the environment, or else the file of this user.
///
/// # Errors
///
/// [`Failure`] if there is no such store.
pub(crate) fn store(named: Option<&str>) -> Result<Store, Failure> {
    find(named, Use::Command)
}

/// The same for a line, of which the next one comes soon and tries again: it waits for its store once, for as long as a manager
/// waits for one call, however many calls it makes.
///
/// # Errors
///
/// [`Failure`] if there is no such store.
pub(crate) fn store_in_passing(named: Option<&str>) -> Result<Store, Failure> {
    find(named, Use::Line)
}

/// The same for a command that says what is wrong with the store, and so changes and replaces nothing.
///
/// # Errors
///
/// [`Failure`] if there is no such store.
pub(crate) fn store_to_examine(named: Option<&str>) -> Result<Store, Failure> {
    find(named, Use::Examination)
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Command,
    Line,
    Examination,
}

fn find(named: Option<&str>, purpose: Use) -> Result<Store, Failure> {
    let variable = std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty());
    let (what, url, is_for_want_of_a_home) = match (named, variable) {
        (Some(url), _) => ("--store", url.to_owned(), false),
        (None, Some(url)) => (STORE_VARIABLE, url, false),
        (None, None) => match usual_file() {
            Some(path) => ("", url_of_file(&path), false),
            None => ("", OWN_STORE.to_owned(), true),
        },
    };
    let opened = if purpose == Use::Line { Cow::Borrowed(&*url) } else { with_patience(&url) };
    let is_usual = what.is_empty() && !is_for_want_of_a_home;
    let inner = if is_usual && purpose != Use::Examination {
        open_usual_file(&opened)
    } else {
        // Only the error is shown, which never repeats the URL.
        quota::open_store(&opened).map_err(|error| told_of(what, &error.to_string()))
    };
    let inner = inner.map_err(|why| Failure::new(Exit::Config, why))?;
    let used = (purpose != Use::Examination).then(|| {
        // A line says itself what is wrong, in the place of the number.
        let goes_on = purpose == Use::Command;
        Arc::new(CommandStore::new(Arc::clone(&inner), limit(&url, purpose), goes_on))
    });
    Ok(Store {
        store: used.clone().map_or(inner, |used| used),
        used,
        is_shared: !url.starts_with(OWN_STORE),
        url: Secret::new(url),
        is_for_want_of_a_home,
        what,
    })
}

/// Opens the file of this user, which is a cache of this program alone: a damaged one is set aside for a new one.
fn open_usual_file(url: &str) -> Result<Arc<dyn QuotaStore>, String> {
    let options: SqliteOptions = url.parse().map_err(|error: SqliteOpenError| error.to_string())?;
    let tell = |copy: &Path| {
        let copy = harmless(&copy.display().to_string());
        term::eprint(&format!(
            "quota: the store was damaged, so a new one is used; the damaged file is kept: {copy}\n"
        ));
    };
    let store = options.set_damaged_aside(tell).open().map_err(|error| error.to_string())?;
    Ok(Arc::new(store))
}

/// How long it is waited for a store in all. A file's reads wait for no lock.
fn limit(url: &str, purpose: Use) -> Limit {
    let patience = Policy::default().store_timeout;
    match purpose {
        Use::Line if is_file(url) => Limit::Writes(patience),
        Use::Line => Limit::Calls(patience),
        Use::Command | Use::Examination => Limit::None,
    }
}

impl Store {
    /// Opens a file before anything of it is wanted. Only a file: others need not be asked twice.
    pub(crate) async fn open_ahead(&self) {
        if self.is_file() {
            // Whether it can be read is told to whoever wants something.
            let _ = self.store.read(&StoreKey::probe()).await;
        }
    }

    /// Whether it is a file of this machine, so that nothing is connected to.
    pub(crate) fn is_file(&self) -> bool {
        is_file(self.url.expose())
    }

    /// Whether the store can be used, if somebody would have to mend it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it would be of no use without anybody doing anything: a manager would go on alone, share nothing, and
    /// hardly anybody would notice. One that does not answer may come back, and is no failure.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        match self.store.read(&StoreKey::probe()).await {
            Err(error) if !error.is_transient() => {
                let text =
                    if self.what.is_empty() { error.to_string() } else { store_cause(&error).to_owned() };
                Err(Failure::new(Exit::Config, told_of(self.what, &text)))
            }
            _ => Ok(()),
        }
    }
}

fn is_file(url: &str) -> bool {
    url.starts_with("sqlite:")
}

fn told_of(what: &str, error: &str) -> String {
    if what.is_empty() { error.to_owned() } else { format!("{what}: {error}") }
}

/// What went wrong with the store, for a line that says itself what was wanted of it.
pub(crate) fn store_cause(error: &StoreError) -> &str {
    match error {
        StoreError::Unavailable { reason: why, .. }
        | StoreError::Rejected { reason: why, .. }
        | StoreError::Corrupt { reason: why, .. } => why,
        _ => "the store failed",
    }
}

/// How long a command waits for a file of this machine. On a busy one it had better be late than go on alone, for that is a
/// call to the provider more, or a line without a number; nobody is at the other end of a wire who may never answer.
const FILE_PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for the lock of that file; twice that is less than its patience.
const BUSY: Duration = Duration::from_secs(3);

/// Which store is used if there is no place for a file: this process alone.
const OWN_STORE: &str = "memory:";

/// Where this user's file is; `None` if there is no home directory.
fn usual_file() -> Option<PathBuf> {
    Some(config::directory("XDG_STATE_HOME", &[".local", "state"])?.join("quota").join("quota.db"))
}

fn url_of_file(path: &Path) -> String {
    // What has a meaning in a URL, and what cannot stand in one.
    const UNFIT: AsciiSet =
        CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ').add(b'\\').add(b'"').add(b'<').add(b'>');
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), &UNFIT);
    format!("sqlite://{path}")
}

/// The URL with a command's patience for the lock of a file, however the file was named, unless the URL says another.
fn with_patience(url: &str) -> Cow<'_, str> {
    match url.split_once('?') {
        _ if !is_file(url) => Cow::Borrowed(url),
        None => Cow::Owned(format!("{url}?busy_ms={}", BUSY.as_millis())),
        // Whatever it says is for the store to read.
        Some(_) => Cow::Borrowed(url),
    }
}

/// Builds a manager that asks nobody: what is shared is read, judged and joined as by any other.
///
/// # Errors
///
/// [`Failure`] if the settings contradict each other.
pub(crate) fn open_to_read(config: &Config, store: &Store) -> Result<QuotaManager, Failure> {
    builder(config, store, "").build().map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

/// How long a command takes at most, unless its arguments say otherwise.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds the manager, on the runtime this is called in, by the name that its calls are counted under. No call is made yet.
///
/// The scope closes it. A command that ends after `timeout` makes no call that outlasts it. Waits for other processes are
/// told on standard error.
///
/// # Errors
///
/// [`Failure`] if the settings contradict each other.
pub(crate) fn open(
    scope: &CommandScope,
    config: &Config,
    store: &Store,
    name: &str,
    timeout: Option<Duration>,
) -> Result<QuotaManager, Failure> {
    let manager = build(config, store, name, timeout)?;
    scope.own(&manager)?;
    scope.tell_of_waits(&manager);
    Ok(manager)
}

/// The same for a program that has the terminal for itself and runs until it is ended.
///
/// # Errors
///
/// As those of [`open`].
pub(crate) fn open_for_screen(
    scope: &CommandScope,
    config: &Config,
    store: &Store,
    name: &str,
) -> Result<QuotaManager, Failure> {
    let manager = build(config, store, name, None)?;
    scope.own(&manager)?;
    Ok(manager)
}

fn build(
    config: &Config,
    store: &Store,
    name: &str,
    timeout: Option<Duration>,
) -> Result<QuotaManager, Failure> {
    let mut builder = builder(config, store, name).provider(anthropic(config)?, logins(config));
    if let Some(timeout) = timeout {
        builder = builder.deadline(timeout);
    }
    builder.build().map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

fn builder(config: &Config, store: &Store, name: &str) -> QuotaManagerBuilder {
    let mut policy = config.policy.clone();
    if store.is_file() {
        policy.store_timeout = policy.store_timeout.max(FILE_PATIENCE);
    }
    QuotaManager::builder(Arc::clone(&store.store)).policy(policy).name(name)
}

fn anthropic(config: &Config) -> Result<Anthropic, Failure> {
    let settings = &config.anthropic;
    let mut fetcher = Anthropic::builder().timeout(config.policy.fetch_timeout);
    if let Some(url) = &settings.base_url {
        fetcher = fetcher.base_url(url.clone());
    }
    if let Some(text) = &settings.user_agent {
        fetcher = fetcher.user_agent(text);
    }
    for account in &config.accounts {
        if let Some(url) = &account.base_url {
            fetcher = fetcher.base_url_for(account.id.clone(), url.clone());
        }
    }
    fetcher.build().map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

/// Where the logins of all accounts are taken from.
pub(crate) fn logins(config: &Config) -> CredentialMap {
    config.accounts.iter().fold(CredentialMap::new(), |logins, account| {
        logins.with(account.id.clone(), source(&account.login, config))
    })
}

/// How long a token command may take: less than the call that waits for it, so that the error names the command and not the
/// provider.
fn token_command_timeout(config: &Config) -> Duration {
    TOKEN_COMMAND_TIMEOUT.min(config.policy.fetch_timeout.mul_f64(0.75))
}

/// Where the login of an account of this configuration is taken from. A token command gets no other account's token.
pub(crate) fn source(login: &LoginSource, config: &Config) -> Arc<dyn CredentialSource> {
    match login {
        LoginSource::ClaudeCode => Arc::new(ClaudeCode::from_env()),
        LoginSource::ClaudeConfigDir(dir) => Arc::new(ClaudeCode::in_dir(dir)),
        LoginSource::TokenEnv(name) => Arc::new(EnvToken::new(name)),
        LoginSource::TokenFile(path) => Arc::new(FileToken::new(path)),
        LoginSource::TokenCommand(words) => {
            let (program, arguments) =
                words.split_first().map_or(("", &[][..]), |(program, rest)| (program, rest));
            let command = CommandToken::new(program).timeout(token_command_timeout(config));
            let command = arguments.iter().fold(command, CommandToken::arg);
            Arc::new(config.token_variables().into_iter().fold(command, CommandToken::hide))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_patience_with_any_file_and_a_url_may_say_another() {
        let path = Path::new("/home/me/a?b/quota.db");
        let url = url_of_file(path);
        assert_eq!(url, "sqlite:///home/me/a%3Fb/quota.db");

        for (url, opened) in [
            (&*url, "sqlite:///home/me/a%3Fb/quota.db?busy_ms=3000"),
            ("sqlite:///x/quota.db?busy_ms=20", "sqlite:///x/quota.db?busy_ms=20"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(with_patience(url), opened);
        }
    }

    #[test]
    fn only_a_line_is_limited_and_for_a_file_only_its_writes() {
        let patience = Duration::from_millis(225);

        assert_eq!(limit("redis://127.0.0.1", Use::Line), Limit::Calls(patience));
        assert_eq!(limit("sqlite:///x/quota.db", Use::Line), Limit::Writes(patience));
        assert_eq!(limit("redis://127.0.0.1", Use::Command), Limit::None);
    }
}
