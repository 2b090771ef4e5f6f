//! `quota accounts import`: adds the logins on this machine, or the accounts in an accounts file.
//! It does not change existing accounts.

use std::path::Path;

use quota::AccountId;
use quota::accounts::AccountsConfig;
use url::Url;

use super::add::DefaultLogin;
use super::confirm;
use crate::cli::{GlobalOptions, ImportArgs};
use crate::config::{self, AccountSettings, Change, Config, LoginSource};
use crate::detected_logins::{DetectedLogin, DetectedLogins};
use crate::exit::{CliError, Exit};
use crate::{input, scope, term};

/// An account to import.
struct ImportCandidate {
    id: AccountId,
    /// `None` if its login is of an unknown kind.
    account: Option<AccountSettings>,
    /// The account that has the same login.
    same_as: Option<AccountId>,
}

/// The outcome for a candidate.
enum ImportOutcome {
    Add(Box<AccountSettings>),
    /// The account needs a host or a program that the user has not allowed.
    NotAllowed(AccountId, Vec<Risk>),
    Exists(AccountId),
    /// The second account already uses the login.
    DuplicateLogin(AccountId, AccountId),
    /// The login is missing or of an unknown kind.
    UnknownLogin(AccountId),
}

/// A setting through which the author of an imported file could receive the token or run a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Risk {
    /// Requests with the token go to this host.
    BaseUrl(Url),
    /// Each refresh runs this program.
    TokenCommand(Vec<String>),
}

impl Risk {
    /// The risks of an account.
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
    let from_file = options.file.as_deref().map(read).transpose()?;
    let named = global.config.as_deref();
    scope::run(async |scope| {
        scope.listen()?;
        let (found, second_logins) = match from_file {
            Some(accounts) => (accounts, String::new()),
            None => detected().await,
        };
        if found.is_empty() {
            let message = match &options.file {
                Some(path) => format!("no account in {}", input::display_name(path)),
                None => {
                    "no login found; log in with a program that `quota providers` lists, such as `claude`, or see: quota accounts add --help".to_owned()
                }
            };
            return Err(CliError::new(Exit::NoAccount, message));
        }
        let default_login = DefaultLogin::find(named).await?;
        let outcomes = if options.dry_run {
            outcomes(&Config::load_allow_empty(named)?, &default_login, &found, options)
        } else {
            let mut is_printed = false;
            let added = config::update(named, |config| {
                let outcomes = outcomes(config, &default_login, &found, options);
                // Print this before writing the file, so that the user can still interrupt the command.
                let risks: Vec<_> = outcomes.iter().flat_map(allowed_risks).collect();
                if !risks.is_empty() && !std::mem::replace(&mut is_printed, true) {
                    confirm(&risks)?;
                }
                let new: Vec<_> = outcomes.iter().filter_map(ImportOutcome::added).cloned().collect();
                let mut accounts = config.accounts.clone();
                if let Some(first) = new.first() {
                    // Keep the default account if its login exists and it is not one of the new accounts.
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
        term::print(&second_logins)?;
        let has_skipped = outcomes
            .iter()
            .any(|outcome| matches!(outcome, ImportOutcome::UnknownLogin(_) | ImportOutcome::NotAllowed(..)));
        Ok(if has_skipped { Exit::Incomplete } else { Exit::Success })
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
    found: &[ImportCandidate],
    options: &ImportArgs,
) -> Vec<ImportOutcome> {
    let mut outcomes: Vec<ImportOutcome> = Vec::new();
    for one in found {
        let outcome = outcome(config, default_login, &outcomes, (one, found), options);
        outcomes.push(outcome);
    }
    outcomes
}

fn outcome(
    config: &Config,
    default_login: &DefaultLogin,
    before: &[ImportOutcome],
    (found, all): (&ImportCandidate, &[ImportCandidate]),
    options: &ImportArgs,
) -> ImportOutcome {
    let id = found.id.clone();
    // Without a login, only the name can conflict with another account.
    let nameless = || AccountSettings::new(id.clone(), LoginSource::TokenCommand(Vec::new()));
    let account = found.account.clone().unwrap_or_else(nameless);
    let mut existing = default_login.existing(config, &account);
    existing.extend(before.iter().filter_map(ImportOutcome::added).cloned());
    if existing.iter().any(|other| other.id == id) {
        return ImportOutcome::Exists(id);
    }
    if found.account.is_none() {
        return ImportOutcome::UnknownLogin(id);
    }
    let same = existing.iter().find(|other| other.shares_login_with(&account)).map(|other| &other.id);
    // A configured account with the name of the other candidate may have another login.
    let same_as = found.same_as.as_ref().filter(|id| {
        let candidates = all.iter().filter_map(|one| one.account.as_ref()).filter(|one| one.id == **id);
        candidates
            .into_iter()
            .any(|one| existing.iter().any(|other| other.id == one.id && other.login == one.login))
    });
    if let Some(other) = same.or(same_as) {
        return ImportOutcome::DuplicateLogin(id, other.clone());
    }
    let risks = Risk::of(&account);
    if risks.iter().all(|risk| risk.is_allowed(options)) {
        ImportOutcome::Add(Box::new(account))
    } else {
        ImportOutcome::NotAllowed(id, risks)
    }
}

/// One line for each risk of an added account.
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
                "skipped {id}: it {}; if you trust the file, add {}",
                described.join(" and "),
                flags.join(" ")
            )
        }
        ImportOutcome::Exists(id) => format!("{id} already exists, unchanged"),
        ImportOutcome::DuplicateLogin(id, other) => format!("skipped {id}: {other} already uses its login"),
        ImportOutcome::UnknownLogin(id) => {
            format!("skipped {id}: its login is missing or of an unknown kind")
        }
    }
}

/// Reads the accounts of an accounts file, without settings that only other programs use.
fn read(path: &Path) -> Result<Vec<ImportCandidate>, CliError> {
    let bytes = input::read_input(path)?;
    let name = input::display_name(path);
    // The error repeats no content, because the user may have named a file with secrets by mistake.
    let accounts: AccountsConfig = serde_json::from_slice(&bytes).map_err(|error| {
        let why = format!("{name}:{}:{}: not an accounts file", error.line(), error.column());
        CliError::new(Exit::DataErr, why)
    })?;
    let found = accounts.accounts().iter().map(|account| ImportCandidate {
        id: account.id.clone(),
        account: config::login_of(account).map(|(login, base_url)| AccountSettings {
            base_url,
            disabled: account.disabled,
            limits: config::plain_limits(&account.limits),
            ..AccountSettings::new(account.id.clone(), login)
        }),
        same_as: None,
    });
    Ok(found.collect())
}

/// Finds the logins on this machine as `quota init` does, and the commands for a second login of their providers.
async fn detected() -> (Vec<ImportCandidate>, String) {
    let logins = DetectedLogins::detect().await;
    let second_logins = logins.second_logins();
    let found = |one: DetectedLogin| ImportCandidate {
        id: one.id.clone(),
        account: Some(AccountSettings::new(one.id, one.login)),
        same_as: one.same_as,
    };
    (logins.logins.into_iter().map(found).collect(), second_logins)
}
