//! The login of Claude Code: where it may be, and which copy counts.
//! It belongs to Claude Code, so it is only ever read: not renewed, not repaired, not copied.

mod keychain;
mod location;
mod login_file;
mod state_file;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource, Secret};

use self::keychain::Keychain;
pub use self::location::{CredentialLocation, DiscoveredCredential};
use self::location::{Miss, nobody};
use self::login_file::Flaw;
use self::state_file::State;
pub use self::state_file::UnparsedUsage;
use crate::Environment;
use crate::token::{self, NotAToken};
use crate::unreadable::unreadable;
use quota_core::file;

/// What Claude Code itself takes a token from before it looks for a login.
const VARIABLE: &str = "CLAUDE_CODE_OAUTH_TOKEN";

/// A login takes less than a kilobyte, and the logins of other services may lie beside it.
const LOGIN_LIMIT: u64 = 1024 * 1024;

/// The state file grows with every project.
const STATE_LIMIT: u64 = 32 * 1024 * 1024;

/// How long a file may be in the middle of being written.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Finds the login of Claude Code, as it is now.
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
/// # Where it looks
///
/// 1. `CLAUDE_CODE_OAUTH_TOKEN`: if it is set, it is the login, as it is for Claude Code, and nothing else is looked at.
///    A token that `claude setup-token` made may be refused when it asks for usage; [`in_dir`](Self::in_dir) does not
///    look at the variable.
/// 2. On macOS, the item `Claude Code-credentials` of the keychain whose account is the user's login name (`$USER`). If there
///    is none, the item of that name, if there is only one.
/// 3. `.credentials.json` in `$CLAUDE_CONFIG_DIR`, and only there if that is set; else in `~/.claude`, and in
///    `$XDG_CONFIG_HOME/claude` (`~/.config/claude`).
///
/// Of several copies of a login, the one that expires last counts; of equal ones, the first in this order.
/// [`discover`](Self::discover) lists them all. An expired login is still found: its expiry says so.
///
/// # Whose it is
///
/// The [`lineage`](quota_core::LoginInfo::lineage) is a hash of the account and the organization that Claude Code's state
/// file names (`.claude.json` in `$CLAUDE_CONFIG_DIR`, else in the home directory). It stays when the token is renewed.
/// A program that swaps the login behind Claude Code's back may leave the old name there; who the provider says it is
/// settles that. A token in the variable has no lineage, since the file may name somebody else.
///
/// It needs a tokio runtime with its timers enabled, and on macOS its I/O.
#[derive(Debug, Clone)]
pub struct ClaudeCode {
    variable: Option<Result<Secret, NotAToken>>,
    keychain: Option<Keychain>,
    places: Vec<CredentialLocation>,
    state_file: Option<PathBuf>,
}

impl ClaudeCode {
    /// Looks where Claude Code looks when it is started in the environment of this process, read now.
    #[must_use]
    pub fn from_env() -> Self {
        Self::in_environment(&Environment::process())
    }

    /// Looks where Claude Code looks when it is started in that environment, read now.
    #[must_use]
    pub fn in_environment(environment: &Environment) -> Self {
        Self::on_machine(environment, Keychain::of_this_machine())
    }

    /// Looks where Claude Code looks when it is started with `CLAUDE_CONFIG_DIR` set to `dir`, and nowhere else.
    ///
    /// A leading `~/` is the home directory. For `~/.claude`, which Claude Code uses by itself, it looks as if the
    /// variable was not set.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self::in_dir_on_machine(dir.into(), &Environment::process(), Keychain::of_this_machine())
    }

    fn on_machine(environment: &Environment, keychain: Option<Keychain>) -> Self {
        let keychain = keychain.map(|keychain| keychain.for_user_of(environment));
        let mut source = match (environment.path("CLAUDE_CONFIG_DIR"), environment.home()) {
            (Some(dir), _) => Self::configured(&dir, keychain),
            (None, Some(home)) => {
                // By its specification, a relative path there is to be ignored.
                let config = environment.path("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
                let config = config.unwrap_or_else(|| home.join(".config"));
                let mut source = Self::by_itself(&home, keychain);
                source.places.push(CredentialLocation::File(login_file_in(&config.join("claude"))));
                source
            }
            (None, None) => Self { variable: None, keychain: None, places: Vec::new(), state_file: None },
        };
        source.variable = environment.var(VARIABLE).and_then(|value| {
            let taken = value.to_str().map_or(Err(NotAToken), token::take);
            taken.transpose()
        });
        source
    }

    fn in_dir_on_machine(dir: PathBuf, environment: &Environment, keychain: Option<Keychain>) -> Self {
        let keychain = keychain.map(|keychain| keychain.for_user_of(environment));
        let dir = environment.expand(dir);
        match environment.home() {
            Some(home) if dir == home.join(".claude") => Self::by_itself(&home, keychain),
            _ => Self::configured(&dir, keychain),
        }
    }

    fn by_itself(home: &Path, keychain: Option<Keychain>) -> Self {
        Self::at(&home.join(".claude"), home.join(".claude.json"), keychain::item(None), keychain)
    }

    fn configured(dir: &Path, keychain: Option<Keychain>) -> Self {
        Self::at(dir, dir.join(".claude.json"), keychain::item(Some(dir)), keychain)
    }

    fn at(dir: &Path, state_file: PathBuf, item: String, keychain: Option<Keychain>) -> Self {
        let file = CredentialLocation::File(login_file_in(dir));
        let places = match keychain {
            Some(_) => vec![CredentialLocation::Keychain(item), file],
            None => vec![file],
        };
        Self { variable: None, keychain, places, state_file: Some(state_file) }
    }

    /// Looks everywhere and lists what there is, in the order of [where it looks](Self#where-it-looks).
    ///
    /// The future may be dropped.
    pub async fn discover(&self) -> Vec<DiscoveredCredential> {
        let given = self.given_token();
        let (stored, newest) = self.stored().await;
        let newest = newest.filter(|_| given.is_none());
        let given = given.map(|state| DiscoveredCredential {
            location: CredentialLocation::Variable(VARIABLE),
            result: state,
            is_active: true,
        });
        let stored =
            self.places.iter().zip(stored).enumerate().map(|(at, (place, state))| DiscoveredCredential {
                location: place.clone(),
                result: state.map_err(|miss| miss.into_error(place)),
                is_active: newest == Some(at),
            });
        given.into_iter().chain(stored).collect()
    }

    /// Reads the usage that Claude Code cached for its login, without a call to the provider.
    ///
    /// `None` if there is none, if it belongs to another login than the present one, or if the token comes from
    /// `CLAUDE_CODE_OAUTH_TOKEN`, whose account is unknown. Dropping the future is safe.
    pub async fn cached_usage(&self) -> Option<UnparsedUsage> {
        if self.variable.is_some() {
            return None;
        }
        self.state().await?.cached_usage()
    }

    /// The token of the environment variable, if that is set.
    fn given_token(&self) -> Option<Result<Credential, CredentialError>> {
        let why = "the environment variable CLAUDE_CODE_OAUTH_TOKEN does not hold a token; set it to one, or unset it";
        let taken = self.variable.clone()?;
        Some(taken.map(token::credential).map_err(|flaw| CredentialError::unreadable(why, flaw)))
    }

    /// What every place holds, and which copy counts; of that one it is also known whose it is.
    async fn stored(&self) -> (Vec<Result<Credential, Miss>>, Option<usize>) {
        let mut found = Vec::with_capacity(self.places.len());
        for place in &self.places {
            found.push(self.look_at(place).await);
        }
        let newest = newest(&found);
        if let Some(Ok(credential)) = newest.map(|at| &mut found[at]) {
            credential.login.lineage = self.state().await.and_then(|state| state.lineage());
        }
        (found, newest)
    }

    async fn look_at(&self, place: &CredentialLocation) -> Result<Credential, Miss> {
        match (place, &self.keychain) {
            (CredentialLocation::Keychain(item), Some(keychain)) => {
                let contents = keychain.read(item).await.map_err(Miss::Unreadable)?.ok_or(Miss::Absent)?;
                login_file::parse(&contents).map_err(Miss::Flawed)
            }
            (CredentialLocation::File(path), _) => {
                let found = look_into(path).await;
                if !matches!(found, Err(Miss::Flawed(Flaw::Empty | Flaw::Damaged))) {
                    return found;
                }
                // Whoever reads a file that is being written finds it empty or cut short, and must not send the user to
                // log in again.
                Clock::system().sleep(A_MOMENT).await;
                look_into(path).await
            }
            (CredentialLocation::Keychain(_) | CredentialLocation::Variable(_), _) => Err(Miss::Absent),
        }
    }

    async fn state(&self) -> Option<State> {
        let path = self.state_file.clone()?;
        let contents = file::blocking(move || file::read(file::open(&path)?, STATE_LIMIT)).await.ok()?;
        State::parse(&contents)
    }
}

#[async_trait]
impl CredentialSource for ClaudeCode {
    /// Reads the login as it is now; which account of Anthropic is asked for does not matter. The future may be dropped.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no login at any place, or the account is not one of Anthropic's, so
    /// that no other provider is ever sent this token. [`CredentialError::Unreadable`] if there is none that can be read,
    /// and a place that could not be.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        if account.provider().as_str() != "anthropic" {
            return Err(CredentialError::not_logged_in(format!(
                "the login of Claude Code does not open {account}: name another source for that account"
            )));
        }
        // The variable decides alone: looking further could make the keychain ask the user for a password.
        if let Some(given) = self.given_token() {
            return given;
        }
        let (mut found, newest) = self.stored().await;
        match newest {
            Some(at) => found.swap_remove(at).map_err(|miss| miss.into_error(&self.places[at])),
            None => Err(nobody(self.places.iter().zip(found.into_iter().filter_map(Result::err)))),
        }
    }
}

async fn look_into(path: &Path) -> Result<Credential, Miss> {
    let opened = path.to_owned();
    match file::blocking(move || file::read(file::open(&opened)?, LOGIN_LIMIT)).await {
        Ok(contents) => login_file::parse(&contents).map_err(Miss::Flawed),
        Err(error) if file::is_not_found(&error) => Err(Miss::Absent),
        Err(error) => Err(Miss::Unreadable(unreadable(path, error))),
    }
}

/// The copy that expires last; of equal ones the first. One that does not say goes after all that do.
fn newest(found: &[Result<Credential, Miss>]) -> Option<usize> {
    let copies = found.iter().enumerate().filter_map(|(at, found)| Some((at, found.as_ref().ok()?)));
    copies.min_by_key(|(_, credential)| Reverse(credential.expires_at)).map(|(at, _)| at)
}

fn login_file_in(dir: &Path) -> PathBuf {
    dir.join(".credentials.json")
}
