//! How the program ends: exit codes by the names of sysexits, and failures as one line for people.
//! What counts as a failure is decided by each command.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::io_cause;
use crate::sanitize::sanitize;
use crate::token_like::without_tokens;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The answer has gaps: some account has no number. Of a guard: too little is left.
    Incomplete = 1,
    /// No account was found, or all that are meant are disabled.
    NoAccount = 3,
    /// The command line was not understood.
    Usage = 64,
    /// What was read is malformed.
    DataErr = 65,
    /// What was to be read cannot be read.
    NoInput = 66,
    /// Something that is needed is not to be had, such as a port.
    Unavailable = 69,
    /// The system refused something it mostly grants.
    OsErr = 71,
    /// The answer could not be written.
    IoErr = 74,
    /// Something that is never wrong was.
    Software = 70,
    /// The configuration is broken.
    Config = 78,
    /// The command that was to be run cannot be run, as shells have it.
    NotExecutable = 126,
    /// The command that was to be run was not found, as shells have it.
    NotFound = 127,
    /// Its terminal has gone: 128 and the number of the signal, as shells have it.
    HungUp = 129,
    /// Somebody pressed Ctrl-C.
    Interrupted = 130,
    /// The user pressed Ctrl-\.
    Quit = 131,
    /// Somebody ended it.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early: its exit code, and a line that says what failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    line: String,
}

impl CliError {
    /// The line may repeat what the user typed: tokens in it are masked, and what controls a terminal is replaced.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: sanitize(&without_tokens(&line.into())) }
    }

    /// The answer could not be written to where it was to go.
    pub(crate) fn write(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever reads has seen enough, as in `quota status | head -1`: that is no failure.
            return Self::new(Exit::Success, "");
        }
        Self::new(Exit::IoErr, format!("could not write the answer: {}", io_cause::plain(error)))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Says what failed, if something did, and gives the exit code.
pub(crate) fn report(outcome: Result<Exit, CliError>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.line.is_empty() {
                // Where not even this can be written, the exit code says it.
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
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = CliError::write(&io::ErrorKind::BrokenPipe.into());

        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Success, ""));
    }

    #[test]
    fn an_answer_that_cannot_be_written_is_a_failure() {
        let failure = CliError::write(&io::ErrorKind::StorageFull.into());

        assert_eq!(failure.exit, Exit::IoErr);
        assert!(failure.to_string().starts_with("could not write the answer: "));
    }
}
