//! The accounts as the user configures them: their order, their limits, and which are disabled. The state that the
//! router learns is in `state`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use quota_core::{AccountId, Clock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::AccountLimits;
use crate::routing::Role;
use crate::state::{AccountsState, SessionShards};
use quota_core::file::{FileError, JsonContent, JsonFile};

/// The accounts that requests may use: the main one and its fallbacks, in order of preference.
///
/// ```
/// use quota_accounts::AccountsConfig;
///
/// let config = AccountsConfig::new("anthropic/main".parse()?)
///     .fallback("anthropic/work".parse()?)
///     .fallback("anthropic/spare".parse()?);
/// assert_eq!(config.accounts().len(), 3);
/// # Ok::<(), quota_core::model::InvalidId>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountsConfig {
    /// The format version. A file written by hand may omit it; the current version is then assumed.
    #[serde(default = "current_version")]
    version: u32,
    #[serde(default)]
    accounts: Vec<AccountConfig>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

fn current_version() -> u32 {
    AccountsConfig::VERSION
}

/// One account as the user configures it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountConfig {
    /// The name.
    pub id: AccountId,
    /// Whether the account is disabled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// The limits that replace those of the policy.
    #[serde(default, skip_serializing_if = "has_no_limits")]
    pub limits: AccountLimits,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

fn has_no_limits(limits: &AccountLimits) -> bool {
    *limits == AccountLimits::none()
}

impl AccountConfig {
    /// Creates an enabled account without own limits.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self { id, disabled: false, limits: AccountLimits::none(), unknown: Map::new() }
    }

    /// Disables the account, or enables it.
    #[must_use]
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.disabled = disabled;
        self
    }

    /// Sets the limits of the account.
    #[must_use]
    pub fn limits(mut self, limits: AccountLimits) -> Self {
        self.limits = limits;
        self
    }

    /// A field that another program stores with this account, such as the location of the login. `None` if there is no
    /// such field, or if it has another type.
    ///
    /// ```
    /// use quota_accounts::AccountConfig;
    ///
    /// let mut account = AccountConfig::new("anthropic/main".parse()?);
    /// account.set_extra("color", &"green");
    /// assert_eq!(account.extra("color"), Some("green".to_owned()));
    /// # Ok::<(), quota_core::model::InvalidId>(())
    /// ```
    #[must_use]
    pub fn extra<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.unknown.get(name)?).ok()
    }

    /// Stores a field of another program with this account. Do not store secrets in it. A value that JSON cannot
    /// represent, and a name that this crate uses itself, are ignored.
    pub fn set_extra<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        const RESERVED: [&str; 3] = ["id", "disabled", "limits"];
        if let Ok(value) = serde_json::to_value(value)
            && !RESERVED.contains(&name)
        {
            self.unknown.insert(name.to_owned(), value);
        }
    }
}

impl AccountsConfig {
    /// Creates a configuration with only a main account.
    #[must_use]
    pub fn new(main: AccountId) -> Self {
        Self { version: Self::VERSION, ..Self::default() }.fallback(main)
    }

    /// Adds a fallback account after the existing accounts.
    #[must_use]
    pub fn fallback(self, account: AccountId) -> Self {
        self.with_account(AccountConfig::new(account))
    }

    /// Adds an account at the end, or replaces the account of this name in its position.
    #[must_use]
    pub fn with_account(mut self, account: AccountConfig) -> Self {
        self.upsert(account);
        self
    }

    /// Adds an account at the end, or replaces the account of this name in its position.
    pub fn upsert(&mut self, account: AccountConfig) {
        match self.accounts.iter_mut().find(|other| other.id == account.id) {
            Some(existing) => *existing = account,
            None => self.accounts.push(account),
        }
    }

    /// Removes an account. If it was the main one, the next account becomes the main one.
    pub fn remove(&mut self, id: &AccountId) -> Option<AccountConfig> {
        let at = self.accounts.iter().position(|account| account.id == *id)?;
        Some(self.accounts.remove(at))
    }

    /// Moves these accounts to the front, in this order. The other accounts follow in their previous order. Unknown
    /// names are ignored.
    pub fn move_to_front(&mut self, first: &[AccountId]) {
        let position = |id: &AccountId| first.iter().position(|other| other == id).unwrap_or(first.len());
        self.accounts.sort_by_key(|account| position(&account.id));
    }

    /// The account of this name, mutably.
    pub fn account_mut(&mut self, id: &AccountId) -> Option<&mut AccountConfig> {
        self.accounts.iter_mut().find(|account| account.id == *id)
    }

    /// All accounts, the main one first.
    #[must_use]
    pub fn accounts(&self) -> &[AccountConfig] {
        &self.accounts
    }

    /// The first account that is listed twice. Only a file written by hand can contain one.
    pub(crate) fn first_duplicate(&self) -> Option<&AccountId> {
        let mut seen = HashSet::new();
        self.accounts.iter().map(|account| &account.id).find(|id| !seen.insert(*id))
    }

    /// All accounts with their roles.
    pub(crate) fn with_roles(&self) -> impl Iterator<Item = (Role, &AccountConfig)> {
        let role = |at| if at == 0 { Role::Main } else { Role::Fallback };
        self.accounts.iter().enumerate().map(move |(at, account)| (role(at), account))
    }
}

impl FromIterator<AccountConfig> for AccountsConfig {
    /// Creates a configuration from these accounts. If several have the same name, the last one replaces the first in
    /// its position.
    fn from_iter<I: IntoIterator<Item = AccountConfig>>(accounts: I) -> Self {
        let mut config = Self { version: Self::VERSION, ..Self::default() };
        let mut positions = HashMap::new();
        for account in accounts {
            match positions.get(&account.id) {
                Some(at) => config.accounts[*at] = account,
                None => {
                    positions.insert(account.id.clone(), config.accounts.len());
                    config.accounts.push(account);
                }
            }
        }
        config
    }
}

impl JsonContent for AccountsConfig {
    const VERSION: u32 = 2;

    fn version(&self) -> u32 {
        self.version
    }
}

/// The JSON file that stores the accounts.
///
/// The router never writes it. A change replaces the whole file atomically, readable only by its owner. A lock covers reading
/// and writing, so concurrent programs do not undo each other's changes. A malformed file is an error and stays unchanged; a
/// missing file counts as empty.
#[derive(Debug, Clone)]
pub struct AccountsFile(JsonFile);

impl AccountsFile {
    /// The file at this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(JsonFile::at(path, Clock::system()))
    }

    /// Rejects the file with [`FileError::Untrusted`] if a user other than the current one or root may have written it.
    /// Use this if the file decides which hosts receive a token or which programs run.
    #[must_use]
    pub fn trusted_only(self) -> Self {
        Self(self.0.trusted_only())
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of the [state file](crate::FallbackAccountManagerBuilder::state_file) in the same folder.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.path().with_extension("state.json")
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`FileError::Malformed`] if it has another format, [`FileError::Io`] if it cannot be read.
    pub async fn load(&self) -> Result<AccountsConfig, FileError> {
        self.0.load().await
    }

    /// Reads the file on the current thread, for programs without an async runtime.
    ///
    /// # Errors
    ///
    /// The same as [`load`](Self::load).
    pub fn load_blocking(&self) -> Result<AccountsConfig, FileError> {
        self.0.load_blocking()
    }

    /// Removes the readings, holds, blocks and sessions of these accounts from the file at [`state_path`](Self::state_path). A file
    /// without them is not written.
    ///
    /// A process that still uses one of the accounts may add it to the file again.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]. Then, or if the future is dropped, some of the sessions may be removed already.
    pub async fn forget(&self, accounts: Vec<AccountId>) -> Result<(), FileError> {
        let document = JsonFile::at(self.state_path(), Clock::system());
        SessionShards::of(document.path(), Clock::system()).forget(&accounts).await?;
        let state: AccountsState = document.load().await?;
        if !accounts.iter().any(|account| state.contains(account)) {
            return Ok(());
        }
        document.update(move |state: &mut AccountsState| state.remove(&accounts)).await
    }

    /// Reads the file, applies the change, and writes the file, under a lock.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]; the file is then unchanged. If the future is dropped, the change is made completely or not at all.
    pub async fn update<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut AccountsConfig) -> R + Send + 'static,
    ) -> Result<R, FileError> {
        self.0
            .update(move |config: &mut AccountsConfig| {
                config.version = AccountsConfig::VERSION;
                change(config)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use quota_core::{Percent, WindowId};

    use super::*;
    use crate::Limits;

    fn id(name: &str) -> AccountId {
        format!("anthropic/{name}").parse().unwrap()
    }

    fn names(config: &AccountsConfig) -> Vec<&str> {
        config.accounts().iter().map(|account| account.id.name()).collect()
    }

    fn three() -> AccountsConfig {
        AccountsConfig::new(id("a")).fallback(id("b")).fallback(id("c"))
    }

    #[test]
    fn upsert_replaces_an_existing_account_in_its_position() {
        let mut config = three();

        config.upsert(AccountConfig::new(id("b")).disabled(true));

        assert_eq!(names(&config), ["a", "b", "c"]);
        assert!(config.accounts()[1].disabled);
    }

    #[test]
    fn collecting_accounts_equals_adding_them_one_by_one() {
        let accounts = [
            AccountConfig::new(id("a")),
            AccountConfig::new(id("b")),
            AccountConfig::new(id("a")).disabled(true),
        ];

        let one_by_one =
            accounts.iter().cloned().fold(AccountsConfig::new(id("a")), AccountsConfig::with_account);
        assert_eq!(accounts.into_iter().collect::<AccountsConfig>(), one_by_one);
    }

    #[test]
    fn move_to_front_keeps_the_order_of_the_other_accounts() {
        let mut config = three();

        config.move_to_front(&[id("c"), id("x")]);

        assert_eq!(names(&config), ["c", "a", "b"]);
    }

    #[test]
    fn removing_the_main_account_makes_the_next_one_main() {
        let mut config = three();

        config.remove(&id("a"));

        assert_eq!(config.with_roles().next().unwrap().0, Role::Main);
        assert_eq!(names(&config), ["b", "c"]);
    }

    #[tokio::test]
    async fn unknown_fields_survive_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let file = AccountsFile::at(dir.path().join("accounts.json"));
        let text = r#"{"version":1,"accounts":[{"id":"anthropic/a","color":"green","limits":{"shape":"round","killswitch":{"size":"big"}}}],"note":"mine"}"#;
        std::fs::write(file.path(), text).unwrap();

        file.update(|config| config.upsert(AccountConfig::new("anthropic/b".parse().unwrap())))
            .await
            .unwrap();

        let written = std::fs::read_to_string(file.path()).unwrap();
        for text in ["green", "mine", "round", "big"] {
            assert!(written.contains(text), "{text}: {written}");
        }
        assert_eq!(names(&file.load().await.unwrap()), ["a", "b"]);
    }

    #[test]
    fn set_extra_stores_a_field_but_never_a_reserved_one() {
        let mut account = AccountConfig::new(id("a"));

        account.set_extra("login", &["x", "y"]);
        account.set_extra("id", "anthropic/b");

        assert_eq!(account.extra::<Vec<String>>("login"), Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(account.extra::<u32>("login"), None, "it has another type");
        assert_eq!(account.extra::<String>("id"), None);
        let text = serde_json::to_string(&account).unwrap();
        assert_eq!(text, r#"{"id":"anthropic/a","login":["x","y"]}"#);
    }

    #[test]
    fn load_blocking_reads_missing_valid_and_malformed_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = AccountsFile::at(dir.path().join("accounts.json"));
        assert_eq!(file.load_blocking().unwrap(), AccountsConfig::default());

        std::fs::write(file.path(), r#"{"accounts":[{"id":"anthropic/a"}]}"#).unwrap();
        assert_eq!(names(&file.load_blocking().unwrap()), ["a"]);

        std::fs::write(file.path(), "{").unwrap();
        assert!(matches!(file.load_blocking(), Err(FileError::Malformed { .. })));
    }

    #[test]
    fn the_users_file_is_written_in_this_form() {
        let limits = |left| Limits::of(Percent::from_percent(left).unwrap());
        let own = AccountLimits::none().min_remaining(limits(20.0));
        let own = own.killswitch(limits(5.0).window(WindowId::seven_day(), Percent::FULL));
        let config = three().with_account(AccountConfig::new(id("d")).disabled(true).limits(own));

        insta::assert_json_snapshot!(config);
    }
}
