//! A token that a program prints.
//! Which program, and with which arguments, is chosen by whoever configures the account.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};
use tokio::process::Command;

use crate::token;
use quota_core::process::{output_of, remove_secrets};

/// Finds a token by running a program that prints it, such as that of a password manager.
///
/// ```
/// use quota_core::CredentialSource;
/// use quota_credentials::CommandToken;
///
/// # if cfg!(unix) {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let source = CommandToken::new("printf").arg("sk-ant-oat01-abc");
///
/// let credential = source.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The program is run anew each time, without a shell. It is given nothing to read, and what it says on its error stream is
/// not kept, since it may be the token. It has ten seconds. What it printed counts when it ends: a process that it leaves
/// behind holds nothing up.
///
/// It runs in a [process group](quota_core::process::ProcessGroup) of its own, which is killed when the time is over or the future is
/// dropped. It inherits the environment without the [variables that hold secrets](quota_core::process::SECRET_VARIABLES) of this
/// process; [`hide`](Self::hide) removes more.
#[derive(Clone)]
pub struct CommandToken {
    program: OsString,
    arguments: Vec<OsString>,
    hidden: Vec<OsString>,
    timeout: Duration,
}

/// No token is longer.
const LIMIT: usize = 64 * 1024;

impl CommandToken {
    /// Runs this program.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            hidden: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Gives it one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Removes a variable from its environment, such as the one that holds the token of another account.
    #[must_use]
    pub fn hide(mut self, variable: impl Into<OsString>) -> Self {
        self.hidden.push(variable.into());
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn timeout(mut self, span: Duration) -> Self {
        self.timeout = span;
        self
    }

    fn failed(&self, why: &str, source: io::Error) -> CredentialError {
        let program = self.program.to_string_lossy();
        CredentialError::unreadable(format!("`{program}` did not print a token: {why}"), source)
    }
}

#[async_trait]
impl CredentialSource for CommandToken {
    /// Runs the program; the account does not matter. If the future is dropped, the program is killed.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if it printed nothing, [`CredentialError::Unreadable`] if it could not be run, failed,
    /// took too long, or printed anything but one token. They name the program and neither its arguments nor what it
    /// printed.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        remove_secrets(&mut command, &self.hidden);
        let late = || Err(io::ErrorKind::TimedOut.into());
        let output = Clock::system().bounded(self.timeout, output_of(command, LIMIT)).await;
        let output = output.unwrap_or_else(late).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                let (program, seconds) = (self.program.to_string_lossy(), self.timeout.as_secs_f64());
                let why = format!("the token command `{program}` timed out after {seconds} s");
                CredentialError::unreadable(why, error)
            }
            io::ErrorKind::FileTooLarge => self.failed("it printed too much", error),
            io::ErrorKind::NotFound => self.failed("there is no such program", error),
            io::ErrorKind::PermissionDenied => self.failed("this user may not run it", error),
            _ => self.failed("it cannot be run", error),
        })?;
        if !output.status.success() {
            let why = "it failed; run it by hand to see why";
            return Err(self.failed(why, io::Error::other("it ended with a failure")));
        }
        let printed = output.stdout;
        let text = std::str::from_utf8(&printed).map_err(|_| token::NotAToken);
        match text.and_then(token::take) {
            Ok(Some(secret)) => Ok(token::credential(secret)),
            Ok(None) => {
                let program = self.program.to_string_lossy();
                Err(CredentialError::not_logged_in(format!("`{program}` printed nothing: log in with it")))
            }
            Err(flaw) => Err(self.failed("it printed something else", io::Error::other(flaw))),
        }
    }
}

/// Shows the program, and of its arguments only how many there are: one of them may be a secret.
impl fmt::Debug for CommandToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandToken")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> CommandToken {
        CommandToken::new("sh").arg("-c").arg(script)
    }

    async fn run(source: &CommandToken) -> Result<Credential, CredentialError> {
        source.credential(&"anthropic/main".parse().expect("a valid name")).await
    }

    #[tokio::test]
    async fn what_a_program_prints_is_the_token() {
        let credential = run(&shell("echo '  abc  '")).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
        assert!(credential.login.mark.is_some());
    }

    #[tokio::test]
    async fn a_program_that_prints_nothing_says_that_nobody_is_logged_in() {
        let error = run(&shell("true")).await.unwrap_err();

        assert_eq!(error.to_string(), "`sh` printed nothing: log in with it");
    }

    #[tokio::test]
    async fn a_program_that_fails_gives_no_token_whatever_it_printed() {
        for script in ["echo abc; exit 3", "echo abc; kill -9 $$"] {
            let error = run(&shell(script)).await.unwrap_err();

            assert!(matches!(error, CredentialError::Unreadable { .. }), "{script} {error:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = run(&CommandToken::new("no-such-program-of-quota")).await.unwrap_err();

        assert_eq!(
            error.to_string(),
            "`no-such-program-of-quota` did not print a token: there is no such program"
        );
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_given_up() {
        let error = run(&shell("exec sleep 1000").timeout(Duration::from_millis(1))).await.unwrap_err();

        assert_eq!(error.to_string(), "the token command `sh` timed out after 0.001 s");
    }

    #[tokio::test]
    async fn a_program_that_prints_without_end_is_cut_off() {
        let error = run(&shell("exec yes")).await.unwrap_err();

        assert_eq!(error.to_string(), "`sh` did not print a token: it printed too much");
    }

    #[tokio::test]
    async fn a_token_is_taken_though_a_process_left_behind_has_the_pipe() {
        let credential = run(&shell("printf abc; sleep 30 & exit 0").timeout(Duration::from_secs(20))).await;

        assert_eq!(credential.unwrap().secret.expose(), "abc");
    }

    #[tokio::test]
    async fn a_hidden_variable_is_not_inherited() {
        // Cargo sets it for every test.
        let script = "echo ${CARGO_PKG_NAME-none}";

        assert_eq!(run(&shell(script)).await.unwrap().secret.expose(), "quota-credentials");
        assert_eq!(run(&shell(script).hide("CARGO_PKG_NAME")).await.unwrap().secret.expose(), "none");
    }

    #[tokio::test]
    async fn neither_what_is_printed_nor_an_argument_is_shown() {
        for script in ["echo n33dle n33dle", "echo n33dle >&2; exit 1"] {
            let source = shell(script);

            let error = run(&source).await.unwrap_err();

            assert!(!format!("{source:?} {error} {error:?}").contains("n33dle"), "{error:?}");
        }
    }
}
