//! `quota accounts import`: the logins that are found on this machine, or the accounts of another accounts file.
//! Whatever is there already stays as it is.

use std::path::Path;

use quota::AccountId;
use quota::accounts::{AccountConfig, AccountsConfig};
use quota::anthropic::ANTHROPIC;

use super::add::{Others, put};
use super::{done, with};
use crate::args::ImportArgs;
use crate::config::{self, Config, LoginSource};
use crate::exit::{Exit, Failure};
use crate::{init, input};

/// What becomes of an account that was found.
enum Fate {
    Add(AccountConfig, LoginSource),
    Stands(AccountId),
    /// Its login is another account's.
    Twin(AccountId, AccountId),
    /// Nothing here knows where its login is.
    Unknown(AccountId),
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
            let fate = fate(&config, &others, &fates, account);
            fates.push(fate);
        }
        let told: Vec<_> = fates.iter().map(|fate| told(fate, options.dry_run)).collect();
        let is_whole = !fates.iter().any(|fate| matches!(fate, Fate::Unknown(_)));
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

fn fate(config: &Config, others: &Others, before: &[Fate], account: AccountConfig) -> Fate {
    let added = before.iter().filter_map(|fate| match fate {
        Fate::Add(other, login) => Some((&other.id, login)),
        _ => None,
    });
    let found = config::added(&account).map(|(login, _)| login);
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
    match known.iter().find(|(_, other)| **other == login) {
        Some((twin, _)) => Fate::Twin(id.clone(), (*twin).clone()),
        None => Fate::Add(account, login),
    }
}

fn told(fate: &Fate, is_dry: bool) -> String {
    match fate {
        Fate::Add(account, login) if is_dry => format!("{} would be added: {}", account.id, login.told()),
        Fate::Add(account, login) => format!("{} is added: {}", account.id, login.told()),
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
