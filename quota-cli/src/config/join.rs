//! The accounts of the configuration and those of the accounts file as one list: the one place where they meet.
//! The accounts file gives order, switches and limits, and the accounts that were added by command; see `accounts`.

use std::collections::HashMap;

use quota::accounts::{AccountConfig, AccountLimits, AccountsConfig, AccountsFile};
use quota::anthropic::ANTHROPIC;
use quota::file::FileError;
use url::Url;

use super::{AccountSettings, Config, LoginSource, Origin, check, directory};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::io_cause;

/// The fields of the accounts file that are this program's own.
pub(crate) const LOGIN: &str = "login";
pub(crate) const BASE_URL: &str = "base_url";

/// The accounts file of this user; `None` if there is no home directory.
pub(crate) fn accounts_file() -> Option<AccountsFile> {
    let state = directory("XDG_STATE_HOME", &[".local", "state"])?;
    // Hosts and programs are named in it.
    Some(AccountsFile::at(state.join("quota").join("accounts.json")).trusted_only())
}

/// What the accounts file says; nothing, if there is none.
///
/// # Errors
///
/// [`Failure`] if it cannot be used. It stays as it is.
pub(crate) fn kept() -> Result<AccountsConfig, Failure> {
    accounts_file()
        .map_or_else(|| Ok(AccountsConfig::default()), |file| file.load_blocking())
        .map_err(|error| unusable(&error))
}

/// Why the accounts file cannot be used.
pub(crate) fn unusable(error: &FileError) -> Failure {
    let exit = match error {
        FileError::Io { doing: "write" | "lock", .. } => Exit::IoErr,
        FileError::Busy { .. } => Exit::Unavailable,
        _ => Exit::Config,
    };
    Failure::new(exit, with_source(error))
}

fn with_source(error: &FileError) -> String {
    match error {
        FileError::Io { doing: "read", source, .. } => format!("{error}: {}", io_cause::of_read(source)),
        FileError::Io { source, .. } => format!("{error}: {}", io_cause::of_write(source)),
        _ => error.to_string(),
    }
}

/// Where the login of an account is that was added by command; `None` if it was not, or it is of a form that is not known
/// here.
pub(crate) fn added(account: &AccountConfig) -> Option<(LoginSource, Option<Url>)> {
    if *account.id.provider() != ANTHROPIC {
        return None;
    }
    let base_url = match account.field::<String>(BASE_URL) {
        None => None,
        Some(text) => Some(check::usable_url(&text).ok()?),
    };
    let login: LoginSource = account.field(LOGIN)?;
    // A token that an older program has let in is neither run nor shown.
    check::place_of_login(&login).ok()?;
    Some((login, base_url))
}

impl Config {
    /// Takes over the order, the switches and the limits of the accounts file; and, for a configuration that nobody has named,
    /// the accounts that were added.
    pub(super) fn join(mut self, kept: &AccountsConfig, is_named: bool) -> Self {
        let mut known: HashMap<_, _> =
            self.accounts.iter().enumerate().map(|(at, account)| (account.id.clone(), at)).collect();
        for account in kept.accounts() {
            if let Some(at) = known.get(&account.id) {
                self.accounts[*at].set(account);
                continue;
            }
            if is_named {
                continue;
            }
            let Some((login, base_url)) = added(account) else {
                self.unusable.push(account.id.clone());
                continue;
            };
            known.insert(account.id.clone(), self.accounts.len());
            let mut settings = AccountSettings::new(account.id.clone(), login);
            (settings.base_url, settings.origin) = (base_url, Origin::Added);
            settings.set(account);
            self.accounts.push(settings);
        }
        let places = kept.accounts().iter().enumerate().map(|(place, account)| (&account.id, place));
        let places: HashMap<_, _> = places.collect();
        // The others follow in the order of the configuration.
        self.accounts.sort_by_key(|account| places.get(&account.id).copied().unwrap_or(usize::MAX));
        self
    }

    /// The same accounts as whoever routes takes them.
    pub(crate) fn routed(&self) -> AccountsConfig {
        let routed = |account: &AccountSettings| {
            let one = AccountConfig::new(account.id.clone()).disabled(account.disabled);
            one.limits(account.limits.clone())
        };
        self.accounts.iter().map(routed).collect()
    }

    /// Where the configuration lies that names the accounts, as it is told.
    pub(crate) fn told_path(&self) -> String {
        self.path.as_deref().map_or_else(String::new, input::name)
    }
}

impl AccountSettings {
    fn set(&mut self, account: &AccountConfig) {
        self.disabled = account.disabled;
        // Where both name a limit, the one counts that was set last, by command.
        let own = &account.limits;
        let mut limits = AccountLimits::none();
        limits.minimum = own.minimum.clone().or(self.limits.minimum.take());
        limits.stop = own.stop.clone().or(self.limits.stop.take());
        self.limits = limits;
    }
}
