//! `quota accounts add`: an account by command, without a configuration.
//! Where its login is, is written down; the login itself never is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::accounts::{AccountConfig, AccountLimits, Limits};
use quota::anthropic::ANTHROPIC;
use quota::{AccountId, Clock, Mark, Percent, Record, StoreKey, TroubleKind};

use super::{change, done, with};
use crate::args::AddArgs;
use crate::config::{self, AccountSettings, Config, LoginSource, Origin};
use crate::exit::{Exit, Failure};
use crate::status::discover;
use crate::{gateway, io_cause, runtime, term};

/// Adds the account.
pub(super) fn run(options: &AddArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let id = id(&options.name)?;
    let login = login(options)?;
    let account = account(options, &id, &login)?;
    with(Config::maybe_empty(None)?, async |config| {
        if config.unusable.contains(&id) {
            let why = format!(
                "{id} stands in the accounts file already, without a login that is known here; \
                               first: quota accounts remove {id}"
            );
            return Err(Failure::new(Exit::Usage, why));
        }
        let others = Others::of(&config).await;
        free(&config, &others, &id, &login)?;
        let first = options.first.then(|| id.clone());
        let is_new = put(&config, others, vec![account], first).await?;
        if is_new.is_empty() {
            return Err(stands(&id, "by another command, a moment ago"));
        }
        let credential = gateway::source(&login, &config).credential(&id).await;
        let told = format!("{id} is added: {}", login.told());
        done(&[told])?;
        let trouble = match credential {
            Ok(credential) => known_missing_scope(&config, store, &id, credential.login.mark).await,
            Err(trouble) => Some(trouble.to_string()),
        };
        if let Some(trouble) = trouble {
            term::tell(&format!("quota: {id}: {}\n", term::harmless(&trouble)));
        }
        Ok(Exit::Done)
    })
}

/// That the provider has already answered, by whatever name, that this credential may not read usage. No call is made, and a store
/// that cannot be read says nothing.
async fn known_missing_scope(
    config: &Config,
    store: Option<&str>,
    id: &AccountId,
    mark: Option<Mark>,
) -> Option<String> {
    let (mark, store, clock) = (mark?, gateway::store(store).ok()?.store, Clock::system());
    let note = async |id: &AccountId| {
        let key = StoreKey::account(id);
        let read = clock.bounded(STORE_TIMEOUT, store.read(&key)).await?.ok()?;
        let record = Record::decode(&read.document?.body).ok()?;
        let failure = record.trouble()?;
        let is_same = failure.kind == TroubleKind::MissingScope && failure.mark == Some(mark);
        is_same.then(|| failure.note.clone())
    };
    let ids = config.accounts.iter().map(|account| &account.id).chain([id]);
    runtime::together(ids.map(note)).await.into_iter().flatten().next()
}

/// How long the store may take to say what is known of a credential.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The accounts that are there without standing anywhere, and are to go on being there.
pub(super) struct Others(Vec<AccountId>);

impl Others {
    /// The login of Claude Code, if it is only implied, and found: once other accounts are named it would be no more.
    pub(super) async fn of(config: &Config) -> Self {
        let implied = config.accounts.iter().filter(|account| account.origin == Origin::Implied);
        let implied: Vec<_> = implied.map(|account| account.id.clone()).collect();
        let is_found = !implied.is_empty() && discover::claude_code().await.is_ok();
        Self(if is_found { implied } else { Vec::new() })
    }

    /// The accounts that another one must not take the place of. One that is implied may be named as what it is.
    pub(super) fn standing<'a>(
        &'a self,
        config: &'a Config,
        id: &'a AccountId,
        login: &'a LoginSource,
    ) -> impl Iterator<Item = &'a AccountSettings> + Clone {
        config.accounts.iter().filter(move |account| {
            let is_itself = account.id == *id && account.login == *login;
            account.origin != Origin::Implied || (self.0.contains(&account.id) && !is_itself)
        })
    }
}

/// Puts accounts at the end, or one of them first. Those that stand there already stay as they are; the others are the answer.
pub(super) async fn put(
    config: &Config,
    others: Others,
    accounts: Vec<AccountConfig>,
    first: Option<AccountId>,
) -> Result<Vec<AccountId>, Failure> {
    let implied = config.accounts.iter().filter(|account| account.origin == Origin::Implied);
    let implied: Vec<_> = implied.map(|account| account.id.clone()).collect();
    change(config, move |kept| {
        for id in &implied {
            let is_named = accounts.iter().any(|account| account.id == *id);
            match kept.account_mut(id) {
                Some(account) if others.0.contains(id) && !is_named => {
                    account.set_field(config::LOGIN, &LoginSource::ClaudeCode);
                }
                // It is named now, or nobody is logged in there, so that it was never more than a place to look.
                _ => drop(kept.remove(id)),
            }
        }
        let mut new = Vec::new();
        for account in accounts {
            if kept.account_mut(&account.id).is_none() {
                new.push(account.id.clone());
                kept.put(account);
            }
        }
        if let Some(first) = first {
            kept.order(&[first]);
        }
        new
    })
    .await
}

/// The account as the accounts file has it.
fn account(options: &AddArgs, id: &AccountId, login: &LoginSource) -> Result<AccountConfig, Failure> {
    let limit = |share: Option<f64>| share.and_then(Percent::from_percent).map(Limits::of);
    let mut limits = AccountLimits::none();
    (limits.minimum, limits.stop) = (limit(options.min_remaining), limit(options.killswitch));
    let mut account = AccountConfig::new(id.clone()).limits(limits);
    account.set_field(config::LOGIN, login);
    if let Some(text) = &options.base_url {
        let url = config::usable_url(text).map_err(|why| usage(format!("--base-url: {why}")))?;
        account.set_field(config::BASE_URL, url.as_str());
    }
    Ok(account)
}

/// The account's name; of the one provider there is, where none is named.
fn id(name: &str) -> Result<AccountId, Failure> {
    config::name_of_account(name).map_err(usage)?;
    let id = if name.contains('/') { name.parse() } else { AccountId::new(ANTHROPIC, name) };
    let id = id.map_err(|error| usage(error.to_string()))?;
    config::known_provider(&id).map_err(usage)?;
    Ok(id)
}

fn login(options: &AddArgs) -> Result<LoginSource, Failure> {
    Ok(if let Some(dir) = &options.claude_config_dir {
        LoginSource::ClaudeConfigDir(placed(dir)?)
    } else if let Some(name) = &options.token_env {
        if !config::is_variable(name) {
            let why = "--token-env takes the name of a variable, such as QUOTA_WORK; a token itself is given nowhere";
            return Err(usage(why));
        }
        LoginSource::TokenEnv(name.clone())
    } else if let Some(path) = &options.token_file {
        LoginSource::TokenFile(placed(path)?)
    } else if let Some(words) = &options.token_command {
        let mut words = words.clone();
        config::place_of_login(&LoginSource::TokenCommand(words.clone())).map_err(usage)?;
        if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
            *program = placed(Path::new(program))?.display().to_string();
        }
        LoginSource::TokenCommand(words)
    } else {
        LoginSource::ClaudeCode
    })
}

/// A path as it is seen from everywhere. A `~` stays one: the home directory may move.
fn placed(path: &Path) -> Result<PathBuf, Failure> {
    config::path_of_login(&path.to_string_lossy()).map_err(usage)?;
    if path.starts_with("~") {
        return Ok(path.to_owned());
    }
    std::path::absolute(path)
        .map_err(|error| usage(format!("{}: {}", path.display(), io_cause::plain(&error))))
}

/// Whether neither the name nor the login is another account's: two names for one login would count its use twice.
fn free(config: &Config, others: &Others, id: &AccountId, login: &LoginSource) -> Result<(), Failure> {
    let standing = others.standing(config, id, login);
    if let Some(account) = standing.clone().find(|account| account.id == *id) {
        return Err(match account.origin {
            Origin::Configured { line } => stands(id, &format!("in {}, line {line}", config.told_path())),
            _ => stands(id, &format!("with the {}", account.login.told())),
        });
    }
    let Some(twin) = standing.clone().find(|account| account.login == *login) else { return Ok(()) };
    Err(usage(format!(
        "{} has that login already ({}); say where the login of {id} is: --claude-config-dir, --token-env, --token-file or \
         --token-command",
        twin.id,
        login.told()
    )))
}

fn stands(id: &AccountId, place: &str) -> Failure {
    usage(format!("there is {id} already, {place}; take another name"))
}

fn usage(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, why)
}
