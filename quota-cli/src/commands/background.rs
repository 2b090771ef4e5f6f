//! The hidden commands that run as detached processes: `quota run-hooks` and `quota update-journals`. No command waits for them.

use std::io::{self, BufRead as _};

use quota::Clock;
use quota_journal::HookRun;

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::{detached, hook_failures, journal, scope, store};

/// Runs the hooks on standard input, one per line, one after the other. A line that is cut off is not run.
///
/// # Errors
///
/// [`CliError`] if the system gives no runtime or no signals. Its cause is not shown, because the process has no terminal.
pub(crate) fn run_hooks() -> Result<Exit, CliError> {
    detached::leave_session();
    // All of them before the first one runs, because the command waits until its lines are read.
    let lines: Vec<_> = io::stdin().lock().lines().map_while(Result::ok).collect();
    let runs = lines.iter().filter_map(|line| serde_json::from_str::<HookRun>(line).ok());
    scope::run(async |scope| {
        // SIGHUP and SIGTERM end the running hook with all that it has started.
        scope.listen()?;
        #[cfg(unix)]
        let _defaults = default_for_children();
        let clock = Clock::system();
        for run in runs {
            // The command has removed the secrets from the environment of this process.
            if let Err(error) = run.run(&[], &clock).await {
                // At once: this process may be killed during the next hook.
                let _ = hook_failures::save(journal::describe(error.into())).await;
            }
        }
        Ok(Exit::Success)
    })
}

/// Handles SIGINT and SIGQUIT, without effect. The shell that started this process has it ignore them, and the commands of hooks would
/// inherit that; a handled signal has its default in a new program.
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
