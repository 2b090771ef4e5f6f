//! `quota wrap`: runs a command, and answers its usage requests from the shared readings. The crate quota-server
//! contains the proxy. This file supplies the accounts, and starts the command with its environment.

mod bundles;
mod child;
mod environment;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quota::Clock;
use quota_server::{Gateway, LastResponses, ServedAccount, UsageOrigin, WrapError, WrapProxy};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::bundles::Bundles;
use crate::cli::{GlobalOptions, WrapArgs};
use crate::config::Config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::io_cause;
use crate::journal;
use crate::runtime;
use crate::scope::Signals;
use crate::store::{self, OpenedStore};
use crate::term;

/// The name under which calls are counted.
const NAME: &str = "quota wrap";
/// How long the manager may take to finish its calls after the command has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the command, and ends with its exit code.
///
/// # Errors
///
/// [`CliError`] if the command cannot be started, or the configuration, the store or the user's proxy cannot be used.
pub(crate) fn run(options: &WrapArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    match runtime::run_on_threads(wrap(options, global, &store))? {
        Some(code) => std::process::exit(code),
        None => Ok(Exit::NoAccount),
    }
}

/// The exit code of the command. Without an account, prints that and returns `None`.
async fn wrap(
    options: &WrapArgs,
    global: &GlobalOptions,
    store: &OpenedStore,
) -> Result<Option<i32>, CliError> {
    let variable = |name: &str| std::env::var_os(name);
    let user_proxy = environment::user_proxy(variable)?;
    let Some(config) = context::configuration(global.config.as_deref()).await? else { return Ok(None) };
    store.check(&config).await?;

    let responses = LastResponses::default();
    let logins = context::renewing_logins(&config, store)?;
    let manager = context::open_manager_for_server(&config, store, &logins, NAME, &responses)?;
    let gateway = Gateway::builder(&manager, accounts(&config)).last_responses(responses).build();
    let proxy = WrapProxy::bind(gateway.clone(), origins(&config), &user_proxy).await;
    let proxy = proxy.map_err(|error| {
        let exit = if matches!(error, WrapError::Certificate(_)) { Exit::Config } else { Exit::Unavailable };
        CliError::new(exit, error.to_string())
    })?;

    let (program, arguments) = options.command.split_first().expect("one is required");
    let mut command = Command::new(program);
    command.args(arguments);
    let hosts: Vec<_> = proxy.hosts().collect();
    if hosts.is_empty() {
        term::eprint(
            "quota: no account has a provider whose usage requests can be answered, so the command runs as without quota\n",
        );
    }
    for (name, value) in environment::proxy(&proxy.url(), hosts.iter().copied(), variable) {
        command.env(name, value.expose());
    }
    // From here on, a signal must not end this process before the files are removed.
    let mut signals = Signals::listen()?;
    let unwritten = |error: std::io::Error| {
        let cause = io_cause::of_write(&error);
        CliError::new(Exit::IoErr, format!("could not write the certificates for the command: {cause}"))
    };
    let runtime_folder = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bundles = Bundles::create(runtime_folder.as_deref()).map_err(unwritten)?;
    let (files, problems) =
        bundles.write(proxy.certificate(), environment::trusted(variable)).map_err(unwritten)?;
    for problem in problems {
        term::eprint(&format!("quota: {problem}\n"));
    }
    command.envs(files);

    let mut child = command.spawn().map_err(|error| CliError::not_started(program, &error))?;
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    let (_configs, receiver) = watch::channel(Arc::clone(&config));
    tasks.spawn(journal::keep_updated(receiver, Arc::clone(&store.store)));
    tasks.spawn(async move { gateway.prepare().await });
    let ended = proxy.run(child::wait(&mut child, &mut signals)).await;
    drop(bundles);
    tasks.shutdown().await;
    manager.close_within(CLOSE_TIMEOUT).await;
    // An interrupted renewal may lose its login.
    logins.close().await;
    let update = journal::update_and_save_problems(&config, store.store.as_ref());
    Clock::system().bounded(CLOSE_TIMEOUT, update).await;
    let status = ended.map_err(|error| {
        CliError::new(Exit::OsErr, format!("could not wait for the command: {}", io_cause::plain(&error)))
    })?;
    Ok(Some(child::exit_code(status)))
}

fn accounts(config: &Config) -> Vec<ServedAccount> {
    let accounts = config.accounts.iter();
    accounts
        .map(|account| ServedAccount::new(account.id.clone()).disabled(account.disabled).on_demand())
        .collect()
}

/// The provider URLs that a program may call: the built-in ones, and those in the configuration.
fn origins(config: &Config) -> Vec<UsageOrigin> {
    let mut origins = Vec::new();
    for provider in config.used_providers() {
        let settings = config.provider(&provider.id());
        let own = settings.base_url.clone();
        let accounts = config.accounts.iter().filter(|account| *account.id.provider() == provider.id());
        let of_accounts = accounts.filter_map(|account| account.base_url.clone());
        for base_url in provider.default_base_url().into_iter().chain(own).chain(of_accounts) {
            let own_user_agent = settings.user_agent.clone();
            origins.push(UsageOrigin { provider, base_url, own_user_agent });
        }
    }
    origins
}
