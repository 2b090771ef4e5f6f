//! Exit codes with their names from sysexits, and one-line errors.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::io_cause;
use crate::sanitize::sanitize;
use crate::token_like::{masked, without_tokens};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command succeeded.
    Success = 0,
    /// An account has no data. For `quota guard`: too little quota is left.
    Incomplete = 1,
    /// No account was found, or all of them are disabled.
    NoAccount = 3,
    /// The command line is invalid.
    Usage = 64,
    /// The input is malformed.
    DataErr = 65,
    /// The input cannot be read.
    NoInput = 66,
    /// A required resource is unavailable, such as a port or the store.
    Unavailable = 69,
    /// The operating system rejected an operation.
    OsErr = 71,
    /// The output could not be written.
    IoErr = 74,
    /// A bug in this program.
    Software = 70,
    /// The configuration is invalid.
    Config = 78,
    /// The command of `quota run` or `quota wrap` cannot be executed. Shells use the same code.
    NotExecutable = 126,
    /// The command of `quota run` or `quota wrap` was not found. Shells use the same code.
    NotFound = 127,
    /// SIGHUP: the terminal was closed. As in shells, the code is 128 plus the signal number.
    HungUp = 129,
    /// SIGINT, for example from Ctrl-C.
    Interrupted = 130,
    /// SIGQUIT, for example from Ctrl-\.
    Quit = 131,
    /// SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: its exit code, and a line with the cause and what to do.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    line: String,
}

impl CliError {
    /// Creates an error. The line may repeat user input: tokens in it are masked, and control characters are replaced.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: sanitize(&without_tokens(&line.into())) }
    }

    /// The error of a user's command that could not be started, with the exit code that shells use.
    pub(crate) fn not_started(program: &OsStr, error: &io::Error) -> Self {
        let name = sanitize(masked(&program.to_string_lossy()));
        let (exit, cause) = match error.kind() {
            io::ErrorKind::NotFound => (Exit::NotFound, "command not found".to_owned()),
            _ => (Exit::NotExecutable, io_cause::plain(error)),
        };
        Self::new(exit, format!("could not run {name}: {cause}"))
    }

    /// The error of output that could not be written.
    pub(crate) fn write(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader closed the pipe, as in `quota status | head -1`. That is not an error.
            return Self::new(Exit::Success, "");
        }
        Self::new(Exit::IoErr, format!("could not write the output: {}", io_cause::plain(error)))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Prints the error, if there is one, and returns the exit code.
pub(crate) fn report(outcome: Result<Exit, CliError>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.line.is_empty() {
                // If standard error is closed, only the exit code reports the failure.
                let _ = writeln!(io::stderr(), "quota: {failure}");
            }
            failure.exit.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = CliError::write(&io::ErrorKind::BrokenPipe.into());

        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Success, ""));
    }

    #[test]
    fn output_that_cannot_be_written_is_an_error() {
        let failure = CliError::write(&io::ErrorKind::StorageFull.into());

        assert_eq!(failure.exit, Exit::IoErr);
        assert!(failure.to_string().starts_with("could not write the output: "));
    }
}
