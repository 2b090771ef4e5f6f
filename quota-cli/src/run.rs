//! `quota run`: runs a command with the account that is to be used now.
//! Which one that is, is decided in `quota::accounts`; what the command is given of it, in `environment`; who tells what was found out for that, in `keeper`.

mod environment;
mod keeper;

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use self::environment::Change;
use crate::cli::{GlobalOptions, RunArgs};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::io_cause;
use crate::router::{self, Router};
use crate::sanitize::sanitize;
use crate::scope;
use crate::store;
use crate::token_like::masked;

/// How long a command waits for what is under way behind the back of the request: somebody wants to begin.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the command in the place of this program, if an account has room.
///
/// # Errors
///
/// [`CliError`] if no account has room, or the command, the configuration or the store cannot be used.
pub(crate) fn run(options: &RunArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let changes = scope::run(async |scope| {
        let router = Router::open(scope, &config, &store, Some("quota run"), &options.request).await?;
        let routed = router.route().await;
        router.warn_of_unnamed_model();
        // Nothing of this program is left once the command runs, so what it has begun is ended first.
        if router.close(PATIENCE).await {
            keeper::start(&store, global.config.as_deref());
        }
        let route = routed.map_err(|refusal| {
            let local = LocalTime { now: refusal.seen.now, ..LocalTime::now() };
            CliError::new(refusal.exit, router::nobody(&refusal, &local))
        })?;
        let headers = environment::headers();
        Ok(environment::of(&config, route.account(), route.credential(), headers.as_deref()))
    })?;
    let (program, arguments) = options.command.split_first().expect("one is required");
    let mut command = Command::new(program);
    command.args(arguments);
    for change in changes {
        match change {
            Change::Set(name, value) => command.env(name, value),
            Change::Remove(name) => command.env_remove(name),
        };
    }
    start(command, program)
}

/// Puts the command in the place of this program: whatever ends one ends the other, and the exit code is its own.
#[cfg(unix)]
fn start(mut command: Command, program: &OsString) -> Result<Exit, CliError> {
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Err(unstarted(program, &error))
}

/// Runs the command and ends as it does.
#[cfg(not(unix))]
fn start(mut command: Command, program: &OsString) -> Result<Exit, CliError> {
    let status = command.status().map_err(|error| unstarted(program, &error))?;
    std::process::exit(status.code().unwrap_or(Exit::OsErr as i32))
}

fn unstarted(program: &OsString, error: &io::Error) -> CliError {
    let name = sanitize(masked(&program.to_string_lossy()));
    match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::new(Exit::NotFound, format!("could not run {name}: there is no such command"))
        }
        io::ErrorKind::PermissionDenied => {
            CliError::new(Exit::NotExecutable, format!("could not run {name}: it may not be executed"))
        }
        _ => CliError::new(Exit::NotExecutable, format!("could not run {name}: {}", io_cause::plain(error))),
    }
}
