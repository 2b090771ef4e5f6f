//! `quota accounts import`: the logins that are found on this machine, or the accounts of an accounts file.
//! Accounts that are there already stay as they are.

use std::path::Path;

use quota::AccountId;
use quota::accounts::AccountsConfig;
use quota::anthropic::ANTHROPIC;
use url::Url;

use super::add::ImpliedLogin;
use super::done;
use crate::cli::{GlobalOptions, ImportArgs};
use crate::config::{self, AccountSettings, Change, Config, LoginSource};
use crate::detected_logins::DetectedLogins;
use crate::exit::{CliError, Exit};
use crate::{input, scope};

/// An account that was found.
struct Found {
    id: AccountId,
    /// `None` if it does not say where its login is, or not in a way that is known here.
    account: Option<AccountSettings>,
}

/// What becomes of an account that was found.
enum Fate {
    Add(Box<AccountSettings>),
    /// It names a host or a program, which the user has not allowed.
    NotAllowed(AccountId, Vec<Risk>),
    Stands(AccountId),
    /// Its login is another account's.
    Twin(AccountId, AccountId),
    /// Nothing here knows where its login is.
    Unknown(AccountId),
}

/// What an account of another file asks for beyond a login. The author of the file would get the token, or run a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Risk {
    /// Requests with the token go to this host.
    BaseUrl(Url),
    /// This program is run with each refresh.
    TokenCommand(Vec<String>),
}

impl Risk {
    /// What an account asks for.
    fn of(account: &AccountSettings) -> Vec<Self> {
        let command = match &account.login {
            LoginSource::TokenCommand(words) => Some(Self::TokenCommand(words.clone())),
            _ => None,
        };
        account.base_url.clone().map(Self::BaseUrl).into_iter().chain(command).collect()
    }

    fn is_allowed(&self, options: &ImportArgs) -> bool {
        match self {
            Self::BaseUrl(_) => options.allow_base_url,
            Self::TokenCommand(_) => options.allow_token_command,
        }
    }

    fn flag(&self) -> &'static str {
        match self {
            Self::BaseUrl(_) => "--allow-base-url",
            Self::TokenCommand(_) => "--allow-token-command",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::BaseUrl(url) => format!("sends its token to {url}"),
            Self::TokenCommand(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("runs the program {}", words.join(" "))
            }
        }
    }
}

/// Adds them, and says what was added and what was there already.
pub(super) fn run(options: &ImportArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let read = options.file.as_deref().map(read).transpose()?;
    let named = global.config.as_deref();
    scope::run(async |scope| {
        scope.listen()?;
        let found = match read {
            Some(accounts) => accounts,
            None => found().await,
        };
        if found.is_empty() {
            let what = match &options.file {
                Some(path) => format!("there is no account in {}", input::display_name(path)),
                None => "no login was found; run `claude` and log in, or see: quota accounts add --help"
                    .to_owned(),
            };
            return Err(CliError::new(Exit::NoAccount, what));
        }
        let implied = ImpliedLogin::find(named).await?;
        let fates = if options.dry_run {
            fates(&Config::load_allow_empty(named)?, &implied, &found, options)
        } else {
            let mut is_told = false;
            let added = config::update(named, |config| {
                let fates = fates(config, &implied, &found, options);
                // Before anything is written: a reader who sees something strange can still stop it.
                let risks: Vec<_> = fates.iter().flat_map(allowed_risks).collect();
                if !risks.is_empty() && !std::mem::replace(&mut is_told, true) {
                    done(&risks)?;
                }
                let new: Vec<_> = fates.iter().filter_map(Fate::added).cloned().collect();
                let mut accounts = config.accounts.clone();
                if let Some(first) = new.first() {
                    // The implied one stays if it is found, or is itself among the new ones.
                    accounts = implied.others(config, first);
                    accounts.retain(|account| new.iter().all(|one| one.id != account.id));
                }
                let accounts = accounts.into_iter().chain(new).collect();
                let has_new = fates.iter().any(|fate| fate.added().is_some());
                Ok(Change { accounts: has_new.then_some(accounts), answer: fates })
            });
            added.await?
        };
        if options.dry_run {
            let risks: Vec<_> = fates.iter().flat_map(allowed_risks).collect();
            done(&risks)?;
        }
        done(&fates.iter().map(|fate| told(fate, options.dry_run)).collect::<Vec<_>>())?;
        let is_whole = !fates.iter().any(|fate| matches!(fate, Fate::Unknown(_) | Fate::NotAllowed(..)));
        Ok(if is_whole { Exit::Success } else { Exit::Incomplete })
    })
}

impl Fate {
    fn added(&self) -> Option<&AccountSettings> {
        match self {
            Self::Add(account) => Some(account),
            _ => None,
        }
    }
}

fn fates(config: &Config, implied: &ImpliedLogin, found: &[Found], options: &ImportArgs) -> Vec<Fate> {
    let mut fates: Vec<Fate> = Vec::new();
    for found in found {
        let fate = fate(config, implied, &fates, found, options);
        fates.push(fate);
    }
    fates
}

fn fate(
    config: &Config,
    implied: &ImpliedLogin,
    before: &[Fate],
    found: &Found,
    options: &ImportArgs,
) -> Fate {
    let id = found.id.clone();
    // Without a login of its own, it has at most its name in common with another.
    let nameless = || AccountSettings::new(id.clone(), LoginSource::TokenCommand(Vec::new()));
    let account = found.account.clone().unwrap_or_else(nameless);
    let mut known = implied.others(config, &account);
    known.extend(before.iter().filter_map(Fate::added).cloned());
    if known.iter().any(|other| other.id == id) {
        return Fate::Stands(id);
    }
    if found.account.is_none() {
        return Fate::Unknown(id);
    }
    if let Some(twin) = known.iter().find(|other| other.login == account.login) {
        return Fate::Twin(id, twin.id.clone());
    }
    let risks = Risk::of(&account);
    if risks.iter().all(|risk| risk.is_allowed(options)) {
        Fate::Add(Box::new(account))
    } else {
        Fate::NotAllowed(id, risks)
    }
}

/// What an account that is added asks for, a line for each.
fn allowed_risks(fate: &Fate) -> Vec<String> {
    let Some(account) = fate.added() else { return Vec::new() };
    Risk::of(account).iter().map(|risk| format!("{} {}", account.id, risk.describe())).collect()
}

fn told(fate: &Fate, is_dry: bool) -> String {
    match fate {
        Fate::Add(account) if is_dry => format!("{} would be added: {}", account.id, account.login.told()),
        Fate::Add(account) => format!("{} is added: {}", account.id, account.login.told()),
        Fate::NotAllowed(id, risks) => {
            let described: Vec<_> = risks.iter().map(Risk::describe).collect();
            let flags: Vec<_> = risks.iter().map(Risk::flag).collect();
            format!(
                "{id} is left out: it {}; if that is yours, repeat with {}",
                described.join(" and "),
                flags.join(" ")
            )
        }
        Fate::Stands(id) => format!("{id} is there already, and stays as it is"),
        Fate::Twin(id, twin) => format!("{id} is left out: its login is that of {twin}"),
        Fate::Unknown(id) => format!(
            "{id} is left out: it does not say where its login is, or not in a way that is known here"
        ),
    }
}

/// The accounts of an accounts file, with what was judged here and nothing that another program reads from it.
fn read(path: &Path) -> Result<Vec<Found>, CliError> {
    let bytes = input::read_input(path)?;
    let name = input::display_name(path);
    // The contents are not repeated: it may be a file with secrets that was named by mistake.
    let accounts: AccountsConfig = serde_json::from_slice(&bytes).map_err(|error| {
        let why = format!("{name}:{}:{}: not an accounts file", error.line(), error.column());
        CliError::new(Exit::DataErr, why)
    })?;
    let found = accounts.accounts().iter().map(|account| Found {
        id: account.id.clone(),
        account: config::login_of(account).map(|(login, base_url)| AccountSettings {
            base_url,
            disabled: account.disabled,
            limits: config::plain_limits(&account.limits),
            ..AccountSettings::new(account.id.clone(), login)
        }),
    });
    Ok(found.collect())
}

/// The logins that are found on this machine, as `quota init` finds them.
async fn found() -> Vec<Found> {
    let found = |(name, login): (&str, LoginSource)| {
        let id = AccountId::new(ANTHROPIC, name).ok()?;
        Some(Found { id: id.clone(), account: Some(AccountSettings::new(id, login)) })
    };
    DetectedLogins::detect().await.named().into_iter().filter_map(found).collect()
}
