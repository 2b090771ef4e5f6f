//! `quota accounts import`: adds the logins of this machine, or the accounts of an accounts file.
//! Existing accounts do not change.

use std::path::Path;

use quota::AccountId;
use quota::accounts::AccountsConfig;
use quota::anthropic::ANTHROPIC;
use url::Url;

use super::add::DefaultLogin;
use super::confirm;
use crate::cli::{GlobalOptions, ImportArgs};
use crate::config::{self, AccountSettings, Change, Config, LoginSource};
use crate::detected_logins::DetectedLogins;
use crate::exit::{CliError, Exit};
use crate::{input, scope};

/// An account to import.
struct Candidate {
    id: AccountId,
    /// `None` if its login has no known form.
    account: Option<AccountSettings>,
}

/// What happens to a candidate.
enum ImportOutcome {
    Add(Box<AccountSettings>),
    /// It names a host or a program that the user has not allowed.
    NotAllowed(AccountId, Vec<Risk>),
    Exists(AccountId),
    /// Another account has its login.
    DuplicateLogin(AccountId, AccountId),
    /// Its login has no known form.
    UnknownLogin(AccountId),
}

/// What an account of another file requires beyond a login. The author of the file would get the token, or run a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Risk {
    /// Requests with the token go to this host.
    BaseUrl(Url),
    /// Each refresh runs this program.
    TokenCommand(Vec<String>),
}

impl Risk {
    /// What an account requires.
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

/// Adds the accounts, and prints the outcome of each.
pub(super) fn run(options: &ImportArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let read = options.file.as_deref().map(read).transpose()?;
    let named = global.config.as_deref();
    scope::run(async |scope| {
        scope.listen()?;
        let found = match read {
            Some(accounts) => accounts,
            None => detected().await,
        };
        if found.is_empty() {
            let what = match &options.file {
                Some(path) => format!("no account in {}", input::display_name(path)),
                None => {
                    "no login found; run `claude` and log in, or see: quota accounts add --help".to_owned()
                }
            };
            return Err(CliError::new(Exit::NoAccount, what));
        }
        let default_login = DefaultLogin::find(named).await?;
        let outcomes = if options.dry_run {
            outcomes(&Config::load_allow_empty(named)?, &default_login, &found, options)
        } else {
            let mut is_printed = false;
            let added = config::update(named, |config| {
                let outcomes = outcomes(config, &default_login, &found, options);
                // Before anything is written, so that the user can still stop it.
                let risks: Vec<_> = outcomes.iter().flat_map(allowed_risks).collect();
                if !risks.is_empty() && !std::mem::replace(&mut is_printed, true) {
                    confirm(&risks)?;
                }
                let new: Vec<_> = outcomes.iter().filter_map(ImportOutcome::added).cloned().collect();
                let mut accounts = config.accounts.clone();
                if let Some(first) = new.first() {
                    // The default account stays if its login exists, or if it is one of the new accounts.
                    accounts = default_login.existing(config, first);
                    accounts.retain(|account| new.iter().all(|one| one.id != account.id));
                }
                let accounts = accounts.into_iter().chain(new).collect();
                let has_new = outcomes.iter().any(|outcome| outcome.added().is_some());
                Ok(Change { accounts: has_new.then_some(accounts), answer: outcomes })
            });
            added.await?
        };
        if options.dry_run {
            let risks: Vec<_> = outcomes.iter().flat_map(allowed_risks).collect();
            confirm(&risks)?;
        }
        confirm(&outcomes.iter().map(|outcome| describe(outcome, options.dry_run)).collect::<Vec<_>>())?;
        let is_whole = !outcomes
            .iter()
            .any(|outcome| matches!(outcome, ImportOutcome::UnknownLogin(_) | ImportOutcome::NotAllowed(..)));
        Ok(if is_whole { Exit::Success } else { Exit::Incomplete })
    })
}

impl ImportOutcome {
    fn added(&self) -> Option<&AccountSettings> {
        match self {
            Self::Add(account) => Some(account),
            _ => None,
        }
    }
}

fn outcomes(
    config: &Config,
    default_login: &DefaultLogin,
    found: &[Candidate],
    options: &ImportArgs,
) -> Vec<ImportOutcome> {
    let mut outcomes: Vec<ImportOutcome> = Vec::new();
    for found in found {
        let outcome = outcome(config, default_login, &outcomes, found, options);
        outcomes.push(outcome);
    }
    outcomes
}

fn outcome(
    config: &Config,
    default_login: &DefaultLogin,
    before: &[ImportOutcome],
    found: &Candidate,
    options: &ImportArgs,
) -> ImportOutcome {
    let id = found.id.clone();
    // Without a login, only its name can be that of another account.
    let nameless = || AccountSettings::new(id.clone(), LoginSource::TokenCommand(Vec::new()));
    let account = found.account.clone().unwrap_or_else(nameless);
    let mut known = default_login.existing(config, &account);
    known.extend(before.iter().filter_map(ImportOutcome::added).cloned());
    if known.iter().any(|other| other.id == id) {
        return ImportOutcome::Exists(id);
    }
    if found.account.is_none() {
        return ImportOutcome::UnknownLogin(id);
    }
    if let Some(twin) = known.iter().find(|other| other.login == account.login) {
        return ImportOutcome::DuplicateLogin(id, twin.id.clone());
    }
    let risks = Risk::of(&account);
    if risks.iter().all(|risk| risk.is_allowed(options)) {
        ImportOutcome::Add(Box::new(account))
    } else {
        ImportOutcome::NotAllowed(id, risks)
    }
}

/// What an added account requires, a line each.
fn allowed_risks(outcome: &ImportOutcome) -> Vec<String> {
    let Some(account) = outcome.added() else { return Vec::new() };
    Risk::of(account).iter().map(|risk| format!("{} {}", account.id, risk.describe())).collect()
}

fn describe(outcome: &ImportOutcome, is_dry: bool) -> String {
    match outcome {
        ImportOutcome::Add(account) if is_dry => {
            format!("would add {}: {}", account.id, account.login.describe())
        }
        ImportOutcome::Add(account) => format!("added {}: {}", account.id, account.login.describe()),
        ImportOutcome::NotAllowed(id, risks) => {
            let described: Vec<_> = risks.iter().map(Risk::describe).collect();
            let flags: Vec<_> = risks.iter().map(Risk::flag).collect();
            format!(
                "skipped {id}: it {}; if you trust it, repeat with {}",
                described.join(" and "),
                flags.join(" ")
            )
        }
        ImportOutcome::Exists(id) => format!("{id} already exists, unchanged"),
        ImportOutcome::DuplicateLogin(id, twin) => format!("skipped {id}: {twin} already uses its login"),
        ImportOutcome::UnknownLogin(id) => {
            format!("skipped {id}: its login is missing or has an unknown form")
        }
    }
}

/// The accounts of an accounts file, without the settings of other programs.
fn read(path: &Path) -> Result<Vec<Candidate>, CliError> {
    let bytes = input::read_input(path)?;
    let name = input::display_name(path);
    // The contents are not repeated, because it may be a file with secrets that was named by mistake.
    let accounts: AccountsConfig = serde_json::from_slice(&bytes).map_err(|error| {
        let why = format!("{name}:{}:{}: not an accounts file", error.line(), error.column());
        CliError::new(Exit::DataErr, why)
    })?;
    let found = accounts.accounts().iter().map(|account| Candidate {
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

/// The logins of this machine, as `quota init` finds them.
async fn detected() -> Vec<Candidate> {
    let found = |(name, login): (&str, LoginSource)| {
        let id = AccountId::new(ANTHROPIC, name).ok()?;
        Some(Candidate { id: id.clone(), account: Some(AccountSettings::new(id, login)) })
    };
    DetectedLogins::detect().await.named().into_iter().filter_map(found).collect()
}
