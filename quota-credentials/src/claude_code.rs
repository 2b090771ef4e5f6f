//! The login of Claude Code: where it may be stored, and which copy is used. The login belongs to Claude Code. This module only reads
//! it, and never renews, repairs or copies it.

mod keychain;
mod location;
mod login_file;
mod login_memory;
mod state_file;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::file::{self, FileVersion};
use quota_core::model::LoginId;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};

use self::keychain::Keychain;
pub use self::location::{CredentialLocation, DiscoveredCredential};
use self::location::{LookupError, no_login_error};
use self::login_file::ParseError;
use self::login_memory::LoginMemory;
use self::state_file::ClaudeState;
pub use self::state_file::UnparsedUsage;
use crate::Environment;
use crate::error::{check_provider, read_error};
use crate::session_files;
use crate::token::{self, InvalidToken};

/// The variable that Claude Code reads before it searches for a login.
const TOKEN_VARIABLE: &str = "CLAUDE_CODE_OAUTH_TOKEN";

/// The maximum size of a login. A login is shorter than a kilobyte, but the file may also contain logins of other services.
const LOGIN_LIMIT: u64 = 1024 * 1024;

/// The maximum size of the state file, which grows with every project.
const STATE_LIMIT: u64 = 32 * 1024 * 1024;

/// The delay before an incomplete file is read again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Finds the current login of Claude Code.
///
/// ```
/// use quota_core::CredentialSource;
/// use quota_credentials::ClaudeCode;
///
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join(".credentials.json"), r#"{"claudeAiOauth":{"accessToken":"sk-ant-oat01-abc",
/// #     "subscriptionType":"max","rateLimitTier":"default_claude_max_20x"}}"#)?;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let source = ClaudeCode::in_dir(dir.path());
///
/// let credential = source.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
/// assert_eq!(credential.plan.as_deref(), Some("max 20x"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Locations
///
/// 1. `CLAUDE_CODE_OAUTH_TOKEN`. If it is set, its token is the login, as in Claude Code, and no other location is read. The provider
///    may reject usage calls with a token that `claude setup-token` created. [`in_dir`](Self::in_dir) ignores the variable.
/// 2. On macOS, the item `Claude Code-credentials` of the keychain whose account is the user's login name (`$USER`). If there is none,
///    the only item with that name.
/// 3. `.credentials.json` in `$CLAUDE_CONFIG_DIR`. If that is not set, in `~/.claude` and in `$XDG_CONFIG_HOME/claude`
///    (`~/.config/claude`).
///
/// If there are several copies, the one that expires last is used. If several expire at the same time, the first in this order is used.
/// [`discover`](Self::discover) lists all copies. An expired login is returned too, with its expiry.
///
/// # Login id
///
/// The [login id](quota_core::model::LoginInfo::login_id) is a hash of the account and the organization in Claude
/// Code's state file (`.claude.json` in `$CLAUDE_CONFIG_DIR`, otherwise in the home directory). If `$CLAUDE_CONFIG_DIR`
/// is another path to `~/.claude` and has no state file, the one in the home directory is used, because both have the
/// same login. The id stays the same when the token is renewed. If another program replaces the login, the state file
/// may still name the previous account. The owner that the provider reports then reveals the change. A token from the
/// variable has no login id, because the state file may name another account.
///
/// The state file can have several megabytes. [`remember_logins`](Self::remember_logins) avoids parsing it in each process.
///
/// This source needs a tokio runtime with timers, and on macOS also with I/O.
#[derive(Debug, Clone)]
pub struct ClaudeCode {
    /// The token from the variable, if it is set.
    token: Option<Result<Credential, InvalidToken>>,
    keychain: Option<Keychain>,
    locations: Vec<CredentialLocation>,
    state_file: Option<PathBuf>,
    /// The default directory, unless this source was created for it. The directory of this source may be a link to it.
    default_dir: Option<PathBuf>,
    memory: Option<LoginMemory>,
}

impl ClaudeCode {
    /// Uses the locations that Claude Code would use in the environment of this process. The environment is read now.
    #[must_use]
    pub fn from_env() -> Self {
        Self::in_environment(&Environment::process())
    }

    /// Uses the locations that Claude Code would use in this environment. The environment is read now.
    #[must_use]
    pub fn in_environment(environment: &Environment) -> Self {
        Self::from_parts(environment, Keychain::system())
    }

    /// Uses only the locations of a Claude Code whose `CLAUDE_CONFIG_DIR` is `dir`.
    ///
    /// A leading `~/` means the home directory. `~/.claude` is the default of Claude Code, so it has the same locations as an unset
    /// variable.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self::in_dir_from_parts(dir.into(), &Environment::process(), Keychain::system())
    }

    /// Remembers the login id of an unchanged state file in the file at `path`, for short-lived processes.
    ///
    /// The state file counts as unchanged if its metadata is unchanged ([`FileVersion`]). The file at `path` contains only hashes and is
    /// accessible to its owner only. It is a cache: if it is missing, damaged or cannot be written, the state file is parsed. By
    /// default nothing is remembered.
    #[must_use]
    pub fn remember_logins(mut self, path: impl Into<PathBuf>) -> Self {
        self.memory = Some(LoginMemory::at(path.into(), Clock::system()));
        self
    }

    fn from_parts(environment: &Environment, keychain: Option<Keychain>) -> Self {
        let keychain = keychain.map(|keychain| keychain.for_user_of(environment));
        let mut source = match (environment.path("CLAUDE_CONFIG_DIR"), environment.home()) {
            (Some(dir), _) => Self::at(&dir, false, keychain).or_default(environment),
            (None, Some(home)) => {
                let mut source = Self::at(&home.join(".claude"), true, keychain);
                let config = environment.xdg_dir("XDG_CONFIG_HOME", ".config");
                let files =
                    config.map(|config| CredentialLocation::File(login_file_in(&config.join("claude"))));
                source.locations.extend(files);
                source
            }
            (None, None) => Self::without_locations(),
        };
        let token = environment.var(TOKEN_VARIABLE);
        source.token = token.and_then(|value| token::parse(value.as_encoded_bytes()).transpose());
        source
    }

    fn in_dir_from_parts(dir: PathBuf, environment: &Environment, keychain: Option<Keychain>) -> Self {
        let keychain = keychain.map(|keychain| keychain.for_user_of(environment));
        let dir = environment.expand(dir);
        let is_default = environment.home().is_some_and(|home| dir == home.join(".claude"));
        let source = Self::at(&dir, is_default, keychain);
        if is_default { source } else { source.or_default(environment) }
    }

    fn without_locations() -> Self {
        Self {
            token: None,
            keychain: None,
            locations: Vec::new(),
            state_file: None,
            default_dir: None,
            memory: None,
        }
    }

    /// Uses the state file of the default directory if the directory is a link to it and has none.
    fn or_default(mut self, environment: &Environment) -> Self {
        self.default_dir = environment.home().map(|home| home.join(".claude"));
        self
    }

    /// The locations for the default directory, or for one that the user set.
    fn at(dir: &Path, is_default: bool, keychain: Option<Keychain>) -> Self {
        let (state_dir, set_by_user) =
            if is_default { (dir.parent().unwrap_or(dir), None) } else { (dir, Some(dir)) };
        let item = keychain.as_ref().map(|_| CredentialLocation::Keychain(keychain::item_name(set_by_user)));
        let file = CredentialLocation::File(login_file_in(dir));
        let locations = item.into_iter().chain([file]).collect();
        let state_file = Some(state_dir.join(".claude.json"));
        Self { keychain, locations, state_file, ..Self::without_locations() }
    }

    /// Reads all [locations](Self#locations), in their order.
    ///
    /// Dropping the future is safe.
    pub async fn discover(&self) -> Vec<DiscoveredCredential> {
        let from_env = self.token_from_env().map(|result| DiscoveredCredential {
            location: CredentialLocation::Variable(TOKEN_VARIABLE),
            result,
            is_active: true,
        });
        let (found, active) = self.read_all().await;
        let active = active.filter(|_| from_env.is_none());
        let stored = self.locations.iter().zip(found).enumerate().map(|(index, (location, result))| {
            DiscoveredCredential {
                location: location.clone(),
                result: result.map_err(|error| error.into_credential_error(location)),
                is_active: active == Some(index),
            }
        });
        from_env.into_iter().chain(stored).collect()
    }

    /// Reads the usage that Claude Code cached for its login, without calling the provider.
    ///
    /// `None` if there is none, or if it belongs to a login other than the current one. Also `None` if the token comes
    /// from `CLAUDE_CODE_OAUTH_TOKEN`, because the account of that token is unknown. Dropping the future is safe.
    pub async fn cached_usage(&self) -> Option<UnparsedUsage> {
        if self.token.is_some() {
            return None;
        }
        let mut usage = self.read_state().await?.cached_usage()?;
        usage.login_since = self.login_since().await;
        Some(usage)
    }

    /// When the login was last written or replaced: the newest time of all login files, because any of them may contain the login in use.
    /// `None` if there is none, or if the login may be in the keychain.
    async fn login_since(&self) -> Option<Timestamp> {
        let mut paths = Vec::new();
        for location in &self.locations {
            match location {
                CredentialLocation::File(path) => paths.push(path.clone()),
                CredentialLocation::Keychain(_) => return None,
                CredentialLocation::Variable(_) => {}
            }
        }
        let written = move || {
            let times = paths.iter().filter_map(|path| session_files::written_at(path).ok());
            times.max().ok_or(io::ErrorKind::NotFound.into())
        };
        file::blocking(written).await.ok()
    }

    /// The token from the environment variable, if it is set.
    fn token_from_env(&self) -> Option<Result<Credential, CredentialError>> {
        let token = self.token.clone()?;
        Some(token.map_err(|error| {
            let reason = format!(
                "the environment variable {TOKEN_VARIABLE} does not contain a token; set it to one, or unset it"
            );
            CredentialError::unreadable(reason, error)
        }))
    }

    /// Reads all locations. Returns their results and the index of the copy to use. Only that copy has a login id.
    async fn read_all(&self) -> (Vec<Result<Credential, LookupError>>, Option<usize>) {
        let mut found = Vec::with_capacity(self.locations.len());
        for location in &self.locations {
            found.push(self.read_location(location).await);
        }
        let active = latest_expiring(&found);
        if let Some(Ok(credential)) = active.map(|index| &mut found[index]) {
            credential.login.login_id = self.login_id().await;
        }
        (found, active)
    }

    async fn read_location(&self, location: &CredentialLocation) -> Result<Credential, LookupError> {
        match (location, &self.keychain) {
            (CredentialLocation::Keychain(item), Some(keychain)) => {
                let contents = keychain.read(item).await.map_err(LookupError::Unreadable)?;
                login_file::parse(&contents.ok_or(LookupError::NotFound)?).map_err(LookupError::NoLogin)
            }
            (CredentialLocation::File(path), _) => {
                let found = read_file(path).await;
                if !matches!(found, Err(LookupError::NoLogin(ParseError::Empty | ParseError::Malformed))) {
                    return found;
                }
                // Claude Code may be writing the file. An error now would tell the user to log in again.
                Clock::system().sleep(RETRY_DELAY).await;
                read_file(path).await
            }
            (CredentialLocation::Keychain(_) | CredentialLocation::Variable(_), _) => {
                Err(LookupError::NotFound)
            }
        }
    }

    /// The login id that the state file names.
    async fn login_id(&self) -> Option<LoginId> {
        if let Some(login_id) = self.read_login_id().await.ok()? {
            return login_id;
        }
        // Claude Code may be writing the file. Without a login id, the account would show the readings of no login.
        Clock::system().sleep(RETRY_DELAY).await;
        self.read_login_id().await.ok()??
    }

    /// Reads the login id; `None` if the state file is not JSON.
    async fn read_login_id(&self) -> io::Result<Option<Option<LoginId>>> {
        let Some(path) = self.state_file.clone() else { return Ok(Some(None)) };
        let (memory, default_dir) = (self.memory.clone(), self.default_dir.clone());
        // Parsing is part of the blocking closure, because a large file takes several milliseconds.
        file::blocking(move || {
            let path = default_state_file(&path, default_dir.as_deref()).unwrap_or(path);
            let opened = file::open(&path)?;
            let version = FileVersion::of(&opened.metadata()?);
            if let Some(known) = memory.as_ref().and_then(|memory| memory.get(&path, &version)) {
                return Ok(Some(known));
            }
            let Some(state) = ClaudeState::parse(&file::read(opened, STATE_LIMIT)?) else { return Ok(None) };
            let login_id = state.login_id();
            if let Some(memory) = memory {
                memory.put(&path, &version, login_id.as_ref());
            }
            Ok(Some(login_id))
        })
        .await
    }

    async fn read_state(&self) -> Option<ClaudeState> {
        let (path, default_dir) = (self.state_file.clone()?, self.default_dir.clone());
        let find = move || Ok(default_state_file(&path, default_dir.as_deref()).unwrap_or(path));
        ClaudeState::parse(&file::load(&file::blocking(find).await.ok()?, STATE_LIMIT).await.ok()?)
    }
}

#[async_trait]
impl CredentialSource for ClaudeCode {
    /// Reads the current login, for any account of Anthropic. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if no location has a login, or the account belongs to another provider.
    /// [`CredentialError::Unreadable`] if no location has a login and at least one of them cannot be read.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        check_provider(account, "anthropic", "Claude Code")?;
        // Read no other location, because the keychain could prompt the user for a password.
        if let Some(result) = self.token_from_env() {
            return result;
        }
        let (mut found, active) = self.read_all().await;
        match active {
            Some(index) => {
                let location = &self.locations[index];
                found.swap_remove(index).map_err(|error| error.into_credential_error(location))
            }
            None => Err(no_login_error(self.locations.iter().zip(found.into_iter().filter_map(Result::err)))),
        }
    }

    /// Only reading an item in the keychain detects a change.
    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        if self.token.is_some() {
            return None;
        }
        let files = self.locations.iter().filter_map(|location| match location {
            CredentialLocation::File(path) => Some(path.clone()),
            CredentialLocation::Keychain(_) | CredentialLocation::Variable(_) => None,
        });
        let default_state_file = self.default_dir.as_deref().and_then(state_file_beside);
        let files = files.chain(self.state_file.clone()).chain(default_state_file);
        let version = SourceVersion::of_files(files).await;
        Some(if self.keychain.is_some() { version.and_undetectable() } else { version })
    }
}

async fn read_file(path: &Path) -> Result<Credential, LookupError> {
    match file::load(path, LOGIN_LIMIT).await {
        Ok(contents) => login_file::parse(&contents).map_err(LookupError::NoLogin),
        Err(error) if file::is_not_found(&error) => Err(LookupError::NotFound),
        Err(error) => Err(LookupError::Unreadable(read_error(path, error))),
    }
}

/// The index of the copy that expires last; if several do, the first. A copy without an expiry is used only if there is
/// no other.
fn latest_expiring(found: &[Result<Credential, LookupError>]) -> Option<usize> {
    let copies = found.iter().enumerate().filter_map(|(index, found)| Some((index, found.as_ref().ok()?)));
    copies.min_by_key(|(_, credential)| Reverse(credential.expires_at)).map(|(index, _)| index)
}

/// The state file of the default directory, if the directory of `own` is another path to it and `own` does not exist.
fn default_state_file(own: &Path, default_dir: Option<&Path>) -> Option<PathBuf> {
    let default_dir = default_dir.filter(|_| !own.exists())?;
    let is_same = own.parent()?.canonicalize().ok()? == default_dir.canonicalize().ok()?;
    state_file_beside(default_dir).filter(|_| is_same)
}

fn state_file_beside(default_dir: &Path) -> Option<PathBuf> {
    Some(default_dir.parent()?.join(".claude.json"))
}

fn login_file_in(dir: &Path) -> PathBuf {
    dir.join(".credentials.json")
}
