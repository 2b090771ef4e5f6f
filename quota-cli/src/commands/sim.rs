//! `quota sim`: runs a simulated provider in the foreground, until Ctrl-C or SIGTERM.

use std::path::Path;

use quota_sim::{Script, Simulator, StartError};

use crate::cli::SimArgs;
use crate::exit::{CliError, Exit};
use crate::format::pluralize;
use crate::runtime::{self, ShutdownSignal};
use crate::{input, io_cause, term};

/// Runs the simulated provider until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// [`CliError`] if the script is invalid, or the port is in use.
pub(crate) fn run(options: &SimArgs) -> Result<Exit, CliError> {
    let script = options.script.as_deref().map_or_else(|| Ok(Script::default()), script)?;
    runtime::run(async {
        let mut signal = ShutdownSignal::listen()?;
        let simulator = Simulator::builder(script.clone()).port(options.port).start().await;
        let simulator = simulator.map_err(|error| start_error(&error))?;
        let url = simulator.url();
        let config = script.client_config(&url);
        term::print(&format!(
            "# A simulated provider listens at {url}; its ledger is at {url}ledger\n{config}"
        ))?;
        term::eprint("Press Ctrl-C to stop.\n");
        signal.wait().await;
        let calls = simulator.stop().await.calls();
        term::eprint(&format!("Served {}.\n", pluralize(calls, "request")));
        Ok(Exit::Success)
    })
}

fn script(path: &Path) -> Result<Script, CliError> {
    let name = input::display_name(path);
    let invalid = |why: String| CliError::new(Exit::Config, why);
    let text = String::from_utf8(input::read_input(path)?);
    let text = text.map_err(|_| invalid(format!("{name}: not UTF-8 text; save it as UTF-8")))?;
    Script::from_toml(&text).map_err(|error| {
        // The text of a serde error may have several lines.
        invalid(format!("{name}: {}", error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")))
    })
}

fn start_error(error: &StartError) -> CliError {
    match error {
        StartError::Listen { port, source, .. } => CliError::new(
            Exit::Unavailable,
            format!(
                "could not listen on port {port}: {}; choose another with --port, or leave out --port for any free port",
                io_cause::plain(source)
            ),
        ),
        _ => CliError::new(Exit::Config, error.to_string()),
    }
}
