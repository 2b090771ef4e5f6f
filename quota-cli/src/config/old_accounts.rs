//! The `accounts.json` of earlier versions, with the changes that `quota accounts` made: order, limits, disabled and
//! added accounts. Commands read it until the first change converts it into the configuration; see `update`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use quota::AccountId;
use quota::accounts::{AccountConfig, AccountLimits, AccountsConfig, AccountsFile, Limits};
use quota::anthropic::ANTHROPIC;
use quota::file::FileError;
use serde_json::{Map, Value};
use url::Url;

use super::{AccountSettings, Config, LoginSource, Origin, check, directory};
use crate::exit::{CliError, Exit};
use crate::io_cause;

/// The fields that earlier versions of this program added to those of the library.
const LOGIN: &str = "login";
const BASE_URL: &str = "base_url";
/// The suffix of the converted file.
const MOVED: &str = ".converted";

/// The settings of the file, until it is converted.
#[derive(Debug)]
pub(super) struct OldAccounts {
    path: PathBuf,
    accounts: Vec<OldAccount>,
    /// Whether another program reads it.
    is_shared: bool,
}

#[derive(Debug)]
struct OldAccount {
    id: AccountId,
    disabled: bool,
    limits: AccountLimits,
    /// The source of the login; `None` if its form is unknown.
    login: Option<(LoginSource, Option<Url>)>,
}

/// The accounts file of programs that use the library. The routing state is in the same folder.
pub(crate) fn accounts_file() -> Option<AccountsFile> {
    let state = directory("XDG_STATE_HOME", &[".local", "state"])?;
    // The file names hosts and programs, so only trusted files are read.
    Some(AccountsFile::at(state.join("quota").join("accounts.json")).trusted_only())
}

/// Converts an error of an accounts file.
pub(crate) fn unusable(error: &FileError) -> CliError {
    let exit = match error {
        FileError::Io { operation: "write" | "lock", .. } => Exit::IoErr,
        FileError::Locked { .. } => Exit::Unavailable,
        _ => Exit::Config,
    };
    let line = match error {
        FileError::Io { operation: "read", source, .. } => format!("{error}: {}", io_cause::of_read(source)),
        FileError::Io { source, .. } => format!("{error}: {}", io_cause::of_write(source)),
        _ => error.to_string(),
    };
    CliError::new(exit, line)
}

/// The source of the login of an account in such a file; `None` if its form is unknown.
pub(crate) fn login_of(account: &AccountConfig) -> Option<(LoginSource, Option<Url>)> {
    if *account.id.provider() != ANTHROPIC {
        return None;
    }
    let base_url = match account.extra::<String>(BASE_URL) {
        None => None,
        Some(text) => Some(check::validate_url(&text).ok()?),
    };
    let login: LoginSource = account.extra(LOGIN)?;
    // A token that was entered as a command must not be run or printed.
    check::check_login(&login).ok()?;
    Some((login.absolute(), base_url))
}

/// The limits without the fields of other programs.
pub(crate) fn plain_limits(limits: &AccountLimits) -> AccountLimits {
    let plain = |limits: &Limits| {
        let every = limits.default_limit().map_or_else(Limits::none, Limits::of);
        limits.windows().fold(every, |plain, (window, left)| plain.window(window.clone(), left))
    };
    let mut own = AccountLimits::none();
    (own.min_remaining, own.killswitch) =
        (limits.min_remaining.as_ref().map(plain), limits.killswitch.as_ref().map(plain));
    own
}

impl OldAccounts {
    /// Reads the file; `None` if there is none, or it was converted.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the file cannot be used. It must not be ignored, because it may have a killswitch.
    pub(super) fn load() -> Result<Option<Self>, CliError> {
        let Some(file) = accounts_file() else { return Ok(None) };
        let path = file.path();
        if path.symlink_metadata().is_err() || moved(path).symlink_metadata().is_ok() {
            return Ok(None);
        }
        let accounts = file.load_blocking().map_err(|error| unusable(&error))?;
        Ok(Some(Self {
            path: path.to_owned(),
            is_shared: is_shared(&accounts),
            accounts: accounts.accounts().iter().map(OldAccount::of).collect(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All its accounts, usable or not.
    pub(super) fn ids(&self) -> Vec<AccountId> {
        self.accounts.iter().map(|account| account.id.clone()).collect()
    }

    /// Whether it adds an account to the configuration.
    pub(super) fn adds_accounts(&self) -> bool {
        self.accounts.iter().any(|account| account.login.is_some())
    }

    /// Whether it limits or disables an account.
    pub(super) fn has_settings(&self) -> bool {
        self.accounts.iter().any(|account| account.disabled || account.limits != AccountLimits::none())
    }

    /// Marks the file as converted. Returns whether it is kept because another program reads it.
    pub(super) fn set_aside(&self) -> io::Result<bool> {
        if self.is_shared {
            fs::hard_link(&self.path, moved(&self.path))?;
        } else {
            fs::rename(&self.path, moved(&self.path))?;
        }
        Ok(self.is_shared)
    }
}

impl OldAccount {
    fn of(account: &AccountConfig) -> Self {
        Self {
            id: account.id.clone(),
            disabled: account.disabled,
            limits: plain_limits(&account.limits),
            login: login_of(account),
        }
    }

    fn apply(&self, account: &mut AccountSettings) {
        account.disabled |= self.disabled;
        // If both files have a limit, the one that a command set wins.
        let own = &mut account.limits;
        own.min_remaining = self.limits.min_remaining.clone().or(own.min_remaining.take());
        own.killswitch = self.limits.killswitch.clone().or(own.killswitch.take());
    }
}

impl Config {
    /// Applies the order, the limits and the disabled accounts of the old file. For the default configuration it also adds the added
    /// accounts.
    pub(super) fn join(mut self, old: &OldAccounts, is_named: bool) -> Self {
        let mut known: HashMap<_, _> =
            self.accounts.iter().enumerate().map(|(at, account)| (account.id.clone(), at)).collect();
        for account in &old.accounts {
            if let Some(at) = known.get(&account.id) {
                account.apply(&mut self.accounts[*at]);
                continue;
            }
            if is_named {
                continue;
            }
            let Some((login, base_url)) = &account.login else {
                self.unusable.push(account.id.clone());
                continue;
            };
            known.insert(account.id.clone(), self.accounts.len());
            let mut settings = AccountSettings::new(account.id.clone(), login.clone());
            (settings.base_url, settings.origin) = (base_url.clone(), Origin::OldFile);
            account.apply(&mut settings);
            self.accounts.push(settings);
        }
        let positions = old.accounts.iter().enumerate().map(|(position, account)| (&account.id, position));
        let positions: HashMap<_, _> = positions.collect();
        // Accounts that are not in the old file follow in configuration order.
        self.accounts.sort_by_key(|account| positions.get(&account.id).copied().unwrap_or(usize::MAX));
        self
    }
}

fn moved(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(MOVED);
    name.into()
}

/// Whether a file of accounts has fields that this program never wrote.
fn is_shared(accounts: &AccountsConfig) -> bool {
    let has_others = |map: &Map<String, Value>, own: &[&str]| map.keys().any(|key| !own.contains(&&**key));
    let Ok(Value::Object(file)) = serde_json::to_value(accounts) else { return true };
    let is_other = |account: &Value| {
        account
            .as_object()
            .is_none_or(|account| has_others(account, &["id", "disabled", "limits", LOGIN, BASE_URL]))
    };
    let listed = file.get("accounts").and_then(Value::as_array);
    has_others(&file, &["version", "accounts"])
        || listed.is_none_or(|accounts| accounts.iter().any(is_other))
        || accounts.accounts().iter().any(|account| account.limits != plain_limits(&account.limits))
        || accounts
            .accounts()
            .iter()
            .any(|account| account.extra::<Value>(LOGIN).is_some() && login_of(account).is_none())
}
