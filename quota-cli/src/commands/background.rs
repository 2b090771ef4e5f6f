//! The hidden commands that run as detached processes: `quota run-hooks` and `quota update-journals`. No command waits for them.

use std::io::{self, BufRead as _};

use quota::Clock;
use quota_journal::HookRun;

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::{detached, hook_failures, journal, scope, store};

/// Reads hooks from standard input, one per line, and runs them one after another. It skips a truncated line.
///
/// # Errors
///
/// [`CliError`] if the runtime or the signal handlers cannot be created. The error is not printed, because the process has no terminal.
pub(crate) fn run_hooks() -> Result<Exit, CliError> {
    detached::leave_session();
    // Read all lines before running the first hook, because the calling command waits until they are read.
    let lines: Vec<_> = io::stdin().lock().lines().map_while(Result::ok).collect();
    let runs = lines.iter().filter_map(|line| serde_json::from_str::<HookRun>(line).ok());
    scope::run(async |scope| {
        // SIGHUP and SIGTERM end the running hook and its child processes.
        scope.listen()?;
        #[cfg(unix)]
        let _defaults = default_for_children();
        let clock = Clock::system();
        for run in runs {
            // The calling command has already removed the secrets from this environment.
            if let Err(error) = run.run(&[], &clock).await {
                // Save each failure at once, because this process may be killed during the next hook.
                let _ = hook_failures::save(journal::describe(error.into())).await;
            }
        }
        Ok(Exit::Success)
    })
}

/// Installs handlers for SIGINT and SIGQUIT that do nothing, so that hook commands get the default actions.
///
/// A shell starts background processes with these signals ignored, and child processes inherit ignored signals. Handled signals are reset
/// to their defaults in a new program.
#[cfg(unix)]
fn default_for_children() -> [io::Result<tokio::signal::unix::Signal>; 2] {
    use tokio::signal::unix::{SignalKind, signal};

    [SignalKind::interrupt(), SignalKind::quit()].map(signal)
}

/// Updates the journals of all accounts.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used.
pub(crate) fn update_journals(global: &GlobalOptions) -> Result<Exit, CliError> {
    detached::leave_session();
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    scope::run(async |scope| {
        scope.listen()?;
        journal::update_and_save_problems(&config, store.store.as_ref()).await;
        Ok(Exit::Success)
    })
}
