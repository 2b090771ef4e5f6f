//! `quota run`: runs a command with the account to use now.
//! `environment` prepares the command's environment.

mod environment;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use self::environment::EnvironmentChange;
use crate::account_picker::{AccountPicker, exit_of};
use crate::cli::{GlobalOptions, RunArgs};
use crate::config::Config;
use crate::context;
use crate::detached;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::scope;
use crate::store::{self, OpenedStore};
use crate::view::decision_text;

/// The time limit for background refreshes before the command starts.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Replaces this process with the command, if an account is available.
///
/// # Errors
///
/// [`CliError`] if no account is available, or the command, the configuration or the store cannot be used.
pub(crate) fn run(options: &RunArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let changes = scope::run(async |scope| {
        context::offer_other_logins(&config, false).await?;
        let picker = AccountPicker::open(scope, &config, &store, Some("quota run"), &options.request).await?;
        let routed = picker.route().await;
        picker.warn_of_unnamed_model();
        // The command replaces this process, so its tasks must end first.
        if picker.close(SHUTDOWN_TIMEOUT).await {
            start_journal_update(&store, global.config.as_deref());
        }
        let (route, _) = routed.map_err(|decision| {
            let local = LocalTime { now: decision.now(), ..LocalTime::now() };
            CliError::new(exit_of(&decision), decision_text::no_account(&decision, &config.accounts, &local))
        })?;
        environment::of(&config, route.account(), route.credential(), environment::variable)
    })?;
    let (program, arguments) = options.command.split_first().expect("one is required");
    let mut command = Command::new(program);
    command.args(arguments);
    for change in changes {
        match change {
            EnvironmentChange::Set(name, value) => command.env(name, value),
            EnvironmentChange::Remove(name) => command.env_remove(name),
        };
    }
    start(command, program)
}

/// Starts a detached process that updates the journals, so that the command does not wait for the update. If the process cannot be
/// started, the next command detects the same events.
fn start_journal_update(store: &OpenedStore, config: Option<&Path>) {
    // No other process can read a store that is not shared.
    if !store.is_shared {
        return;
    }
    let mut arguments: Vec<&OsStr> = vec!["update-journals".as_ref()];
    arguments.extend(config.into_iter().flat_map(|path| ["--config".as_ref(), path.as_os_str()]));
    // The URL may contain a password, and other users can read arguments.
    let with_store = |command: &mut Command| {
        command.env(store::URL_VARIABLE, store.url.expose());
    };
    let _ = detached::start(&arguments, with_store, b"");
}

/// Replaces this process with the command, so that the command receives all signals and returns its own exit code.
#[cfg(unix)]
fn start(mut command: Command, program: &OsString) -> Result<Exit, CliError> {
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Err(CliError::not_started(program, &error))
}

/// Runs the command and returns its exit code.
#[cfg(not(unix))]
fn start(mut command: Command, program: &OsString) -> Result<Exit, CliError> {
    let status = command.status().map_err(|error| CliError::not_started(program, &error))?;
    std::process::exit(status.code().unwrap_or(Exit::OsErr as i32))
}
