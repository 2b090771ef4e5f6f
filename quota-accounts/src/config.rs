//! Which accounts there are, in the user's words: their order, which are switched off, their limits.
//! What is learned of them while they are used is kept apart, in `state`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use quota_core::{AccountId, Clock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::AccountLimits;
use crate::routing::Role;
use crate::state::AccountsState;
use quota_core::file::{FileError, JsonContent, JsonFile};

/// The accounts that requests may go to: the main one, and those that stand in for it, in their order.
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
    /// Absent in what a hand has written: then it is the present one.
    #[serde(default = "present")]
    version: u32,
    #[serde(default)]
    accounts: Vec<AccountConfig>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

fn present() -> u32 {
    AccountsConfig::VERSION
}

/// One account, as the user has set it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountConfig {
    /// Its name.
    pub id: AccountId,
    /// Whether it is switched off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Its own limits, where they differ from the policy's.
    #[serde(default, skip_serializing_if = "is_none")]
    pub limits: AccountLimits,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

fn is_none(limits: &AccountLimits) -> bool {
    *limits == AccountLimits::none()
}

impl AccountConfig {
    /// An account with nothing set.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self { id, disabled: false, limits: AccountLimits::none(), unknown: Map::new() }
    }

    /// Switches it off, or on.
    #[must_use]
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.disabled = disabled;
        self
    }

    /// Sets its own limits.
    #[must_use]
    pub fn limits(mut self, limits: AccountLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What another program keeps beside this account under a name of its own, such as where it finds the login. `None` if
    /// there is nothing of that name, or it has another form.
    ///
    /// ```
    /// use quota_accounts::AccountConfig;
    ///
    /// let mut account = AccountConfig::new("anthropic/main".parse()?);
    /// account.set_extra("colour", &"green");
    /// assert_eq!(account.extra("colour"), Some("green".to_owned()));
    /// # Ok::<(), quota_core::model::InvalidId>(())
    /// ```
    #[must_use]
    pub fn extra<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.unknown.get(name)?).ok()
    }

    /// Keeps something beside this account. It is no place for a secret: the file is not one. What cannot be written as JSON,
    /// and a name that this program uses itself, change nothing.
    pub fn set_extra<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        const OWN: [&str; 3] = ["id", "disabled", "limits"];
        if let Ok(value) = serde_json::to_value(value)
            && !OWN.contains(&name)
        {
            self.unknown.insert(name.to_owned(), value);
        }
    }
}

impl AccountsConfig {
    /// A main account, without others so far.
    #[must_use]
    pub fn new(main: AccountId) -> Self {
        Self { version: Self::VERSION, ..Self::default() }.fallback(main)
    }

    /// Adds an account after those that are there, with nothing set.
    #[must_use]
    pub fn fallback(self, account: AccountId) -> Self {
        self.with_account(AccountConfig::new(account))
    }

    /// Adds an account at the end, or puts it in the place it has.
    #[must_use]
    pub fn with_account(mut self, account: AccountConfig) -> Self {
        self.upsert(account);
        self
    }

    /// The same for accounts that stand already.
    pub fn upsert(&mut self, account: AccountConfig) {
        match self.accounts.iter_mut().find(|known| known.id == account.id) {
            Some(known) => *known = account,
            None => self.accounts.push(account),
        }
    }

    /// Removes an account. If it was the main one, the next one is.
    pub fn remove(&mut self, id: &AccountId) -> Option<AccountConfig> {
        let at = self.accounts.iter().position(|account| account.id == *id)?;
        Some(self.accounts.remove(at))
    }

    /// Puts these accounts first, in this order; the others follow in theirs. Names that are not there are left out.
    pub fn move_to_front(&mut self, first: &[AccountId]) {
        let place = |id: &AccountId| first.iter().position(|named| named == id).unwrap_or(first.len());
        self.accounts.sort_by_key(|account| place(&account.id));
    }

    /// An account, to be changed.
    pub fn account_mut(&mut self, id: &AccountId) -> Option<&mut AccountConfig> {
        self.accounts.iter_mut().find(|account| account.id == *id)
    }

    /// All accounts, the main one first.
    #[must_use]
    pub fn accounts(&self) -> &[AccountConfig] {
        &self.accounts
    }

    /// An account that stands there more than once, as only a hand can write it.
    pub(crate) fn first_duplicate(&self) -> Option<&AccountId> {
        let mut known = HashSet::new();
        self.accounts.iter().map(|account| &account.id).find(|id| !known.insert(*id))
    }

    /// The same with their roles.
    pub(crate) fn with_roles(&self) -> impl Iterator<Item = (Role, &AccountConfig)> {
        let role = |at| if at == 0 { Role::Main } else { Role::Fallback };
        self.accounts.iter().enumerate().map(move |(at, account)| (role(at), account))
    }
}

impl FromIterator<AccountConfig> for AccountsConfig {
    /// The accounts in this order; of several with one name the last one is used, in the place of the first.
    fn from_iter<I: IntoIterator<Item = AccountConfig>>(accounts: I) -> Self {
        let mut config = Self { version: Self::VERSION, ..Self::default() };
        let mut places = HashMap::new();
        for account in accounts {
            match places.get(&account.id) {
                Some(place) => config.accounts[*place] = account,
                None => {
                    places.insert(account.id.clone(), config.accounts.len());
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

/// The file in which the accounts are kept.
///
/// Only the user changes it; the router never writes it. Every change is written whole, readable by its owner only. A
/// lock spans reading and writing, so that no two programs undo each other. A damaged file is an error and is not
/// changed; a missing one is empty.
#[derive(Debug, Clone)]
pub struct AccountsFile(JsonFile);

impl AccountsFile {
    /// The file at that path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(JsonFile::at(path, Clock::system()))
    }

    /// Refuses the file with [`FileError::Untrusted`] if a user other than this one and root may have written it: for
    /// programs that keep in it which hosts get a token, or which programs are run.
    #[must_use]
    pub fn trusted_only(self) -> Self {
        Self(self.0.trusted_only())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where what is learned of the accounts is kept: beside it, in a file of its own.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.path().with_extension("state.json")
    }

    /// Reads the file as it is now.
    ///
    /// # Errors
    ///
    /// [`FileError::Malformed`] if it is not what it should be, [`FileError::Io`] if it cannot be read.
    pub async fn load(&self) -> Result<AccountsConfig, FileError> {
        self.0.load().await
    }

    /// The same on this thread, which waits for the disk: for programs that have no runtime yet. Where there is no file it
    /// costs one look.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    pub fn load_blocking(&self) -> Result<AccountsConfig, FileError> {
        self.0.load_blocking()
    }

    /// Removes what was learned of accounts that are removed, from the file at [`state_path`](Self::state_path): readings, holds and
    /// blocks, and the sessions that stay with them. A file without any of it is not written.
    ///
    /// A process that still uses one of the accounts writes what it learns from then on.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]; the file is then as it was. Dropping the future leaves the change undone, or done; never half
    /// done.
    pub async fn forget(&self, accounts: Vec<AccountId>) -> Result<(), FileError> {
        let document = JsonFile::at(self.state_path(), Clock::system());
        let knows = |state: &AccountsState| accounts.iter().any(|account| state.knows(account));
        if !knows(&document.load().await?) {
            return Ok(());
        }
        document.update(move |state: &mut AccountsState| state.forget(&accounts)).await
    }

    /// Reads the file, changes what is in it, and writes it, while no other program does.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]; the file is then as it was. Dropping the future leaves the change undone, or done; never half
    /// done.
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
    fn an_account_that_is_there_keeps_its_place() {
        let mut config = three();

        config.upsert(AccountConfig::new(id("b")).disabled(true));

        assert_eq!(names(&config), ["a", "b", "c"]);
        assert!(config.accounts()[1].disabled);
    }

    #[test]
    fn collected_accounts_are_those_that_were_added_one_by_one() {
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
    fn what_is_not_named_follows_in_its_own_order() {
        let mut config = three();

        config.move_to_front(&[id("c"), id("x")]);

        assert_eq!(names(&config), ["c", "a", "b"]);
    }

    #[test]
    fn when_the_main_account_goes_the_next_one_is_main() {
        let mut config = three();

        config.remove(&id("a"));

        assert_eq!(config.with_roles().next().unwrap().0, Role::Main);
        assert_eq!(names(&config), ["b", "c"]);
    }

    #[tokio::test]
    async fn what_another_program_wrote_beside_an_account_survives() {
        let dir = tempfile::tempdir().unwrap();
        let file = AccountsFile::at(dir.path().join("accounts.json"));
        let text = r#"{"version":1,"accounts":[{"id":"anthropic/a","colour":"green","limits":{"shape":"round","killswitch":{"size":"big"}}}],"note":"mine"}"#;
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
    fn what_a_program_keeps_beside_an_account_is_its_own_business() {
        let mut account = AccountConfig::new(id("a"));

        account.set_extra("login", &["x", "y"]);
        account.set_extra("id", "anthropic/b");

        assert_eq!(account.extra::<Vec<String>>("login"), Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(account.extra::<u32>("login"), None, "it has another form");
        assert_eq!(account.extra::<String>("id"), None);
        let text = serde_json::to_string(&account).unwrap();
        assert_eq!(text, r#"{"id":"anthropic/a","login":["x","y"]}"#);
    }

    #[test]
    fn on_this_thread_the_same_is_read() {
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
