//! `quota accounts import`: the logins that are found on this machine, or the accounts of another accounts file.
//! Whatever is there already stays as it is.

use std::path::Path;

use quota::AccountId;
use quota::accounts::{AccountConfig, AccountsConfig};
use quota::anthropic::ANTHROPIC;
use url::Url;

use super::add::{Others, put};
use super::{done, with};
use crate::args::ImportArgs;
use crate::config::{self, Config, LoginSource};
use crate::exit::{Exit, Failure};
use crate::{init, input};

/// What becomes of an account that was found.
enum Fate {
    Add(AccountConfig, LoginSource),
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
    fn of(login: &LoginSource, base_url: Option<&Url>) -> Vec<Self> {
        let command = match login {
            LoginSource::TokenCommand(words) => Some(Self::TokenCommand(words.clone())),
            _ => None,
        };
        base_url.cloned().map(Self::BaseUrl).into_iter().chain(command).collect()
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
pub(super) fn run(options: &ImportArgs) -> Result<Exit, Failure> {
    let read = options.file.as_deref().map(read).transpose()?;
    with(Config::maybe_empty(None)?, async |config| {
        let found = match read {
            Some(accounts) => accounts,
            None => found().await,
        };
        if found.is_empty() {
            let what = match &options.file {
                Some(path) => format!("there is no account in {}", input::name(path)),
                None => "no login was found; run `claude` and log in, or see: quota accounts add --help"
                    .to_owned(),
            };
            return Err(Failure::new(Exit::NoAccount, what));
        }
        let others = Others::of(&config).await;
        let mut fates: Vec<Fate> = Vec::new();
        for account in found {
            let fate = fate(&config, &others, &fates, account, options);
            fates.push(fate);
        }
        let told: Vec<_> = fates.iter().map(|fate| told(fate, options.dry_run)).collect();
        let is_whole = !fates.iter().any(|fate| matches!(fate, Fate::Unknown(_) | Fate::NotAllowed(..)));
        // Before anything is written: who sees something strange can still stop it.
        let risks: Vec<_> = fates.iter().flat_map(allowed_risks).collect();
        if !risks.is_empty() {
            done(&risks)?;
        }
        let new: Vec<_> = fates
            .into_iter()
            .filter_map(|fate| match fate {
                Fate::Add(account, _) => Some(account),
                _ => None,
            })
            .collect();
        if !options.dry_run && !new.is_empty() {
            put(&config, others, new, None).await?;
        }
        done(&told)?;
        Ok(if is_whole { Exit::Done } else { Exit::Gaps })
    })
}

fn fate(
    config: &Config,
    others: &Others,
    before: &[Fate],
    account: AccountConfig,
    options: &ImportArgs,
) -> Fate {
    let added = before.iter().filter_map(|fate| match fate {
        Fate::Add(other, login) => Some((&other.id, login)),
        _ => None,
    });
    let (found, base_url) = config::added(&account).map_or((None, None), |(login, url)| (Some(login), url));
    // Without a login of its own, it has at most its name in common with another.
    let login = found.clone().unwrap_or(LoginSource::TokenCommand(Vec::new()));
    let id = account.id.clone();
    let standing = others.standing(config, &id, &login).map(|known| (&known.id, &known.login));
    let known: Vec<_> = standing.chain(added).collect();
    if known.iter().any(|(other, _)| **other == id) || config.unusable.contains(&id) {
        return Fate::Stands(id);
    }
    if found.is_none() {
        return Fate::Unknown(id);
    }
    if let Some((twin, _)) = known.iter().find(|(_, other)| **other == login) {
        return Fate::Twin(id.clone(), (*twin).clone());
    }
    let risks = Risk::of(&login, base_url.as_ref());
    if risks.iter().all(|risk| risk.is_allowed(options)) {
        Fate::Add(only_known(&account, &login, base_url.as_ref()), login)
    } else {
        Fate::NotAllowed(id, risks)
    }
}

/// The account with what was judged here, and nothing that another program reads from it.
fn only_known(account: &AccountConfig, login: &LoginSource, base_url: Option<&Url>) -> AccountConfig {
    let mut known = AccountConfig::new(account.id.clone()).disabled(account.disabled);
    known.limits = account.limits.clone();
    known.set_field(config::LOGIN, login);
    if let Some(url) = base_url {
        known.set_field(config::BASE_URL, url.as_str());
    }
    known
}

/// What an account that is added asks for, a line for each.
fn allowed_risks(fate: &Fate) -> Vec<String> {
    let Fate::Add(account, login) = fate else { return Vec::new() };
    let base_url = config::added(account).and_then(|(_, url)| url);
    let risks = Risk::of(login, base_url.as_ref());
    risks.iter().map(|risk| format!("{} {}", account.id, risk.describe())).collect()
}

fn told(fate: &Fate, is_dry: bool) -> String {
    match fate {
        Fate::Add(account, login) if is_dry => format!("{} would be added: {}", account.id, login.told()),
        Fate::Add(account, login) => format!("{} is added: {}", account.id, login.told()),
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

/// The accounts of another file.
fn read(path: &Path) -> Result<Vec<AccountConfig>, Failure> {
    let bytes = input::bytes(path)?;
    let name = input::name(path);
    // What stands there instead is not repeated: somebody may have taken the wrong file.
    let accounts: AccountsConfig = serde_json::from_slice(&bytes).map_err(|error| {
        let why = format!("{name}:{}:{}: not an accounts file", error.line(), error.column());
        Failure::new(Exit::DataErr, why)
    })?;
    Ok(accounts.accounts().to_vec())
}

/// The logins that are found on this machine, as `quota init` finds them.
async fn found() -> Vec<AccountConfig> {
    let logins = init::logins().await.into_iter();
    let account = |(name, login): (&str, LoginSource)| {
        let mut account = AccountConfig::new(AccountId::new(ANTHROPIC, name).ok()?);
        account.set_field(config::LOGIN, &login);
        Some(account)
    };
    logins.filter_map(account).collect()
}
