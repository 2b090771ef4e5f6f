//! A token from the output of a command.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use quota_core::process::{output_of, remove_secrets};
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};
use tokio::process::Command;

use crate::token;

/// Runs a command that prints a token, such as the command of a password manager.
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
/// Each call runs the command, without a shell and with empty input. A manager runs it once every five minutes, and
/// again if the provider rejects the token. Its standard error is discarded, because it may contain the token. The
/// timeout is ten seconds. The output ends when the command exits, even if a descendant is still running.
///
/// The command has its own [process group](quota_core::process::ProcessGroup), which is killed at the timeout, or when the future is
/// dropped. It inherits the environment without the [variables that contain secrets](quota_core::process::SECRET_VARIABLES).
/// [`hide`](Self::hide) removes further variables.
#[derive(Clone)]
pub struct CommandToken {
    program: OsString,
    arguments: Vec<OsString>,
    hidden: Vec<OsString>,
    timeout: Duration,
}

/// The maximum length of the output. Tokens are much shorter.
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

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Removes a variable from the environment of the command, such as one with the token of another account.
    #[must_use]
    pub fn hide(mut self, variable: impl Into<OsString>) -> Self {
        self.hidden.push(variable.into());
        self
    }

    /// Sets the timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn error(&self, cause: &str) -> String {
        format!("could not get a token from `{}`: {cause}", self.program.to_string_lossy())
    }
}

#[async_trait]
impl CredentialSource for CommandToken {
    /// Runs the command, for any account. Dropping the future kills the command.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if the command prints nothing. [`CredentialError::Unreadable`] if it cannot be started, fails,
    /// times out, or prints anything but one token. The errors name the program, but neither its arguments nor its output.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        remove_secrets(&mut command, &self.hidden);
        let output = Clock::system().bounded(self.timeout, output_of(command, LIMIT)).await;
        let output = output.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::TimedOut => {
                    let (program, seconds) = (self.program.to_string_lossy(), self.timeout.as_secs_f64());
                    format!("the token command `{program}` timed out after {seconds} s")
                }
                io::ErrorKind::FileTooLarge => self.error("its output is too long"),
                io::ErrorKind::NotFound => self.error("program not found"),
                io::ErrorKind::PermissionDenied => self.error("no permission to run it"),
                _ => self.error("it could not be started"),
            };
            CredentialError::unreadable(message, error)
        })?;
        if !output.status.success() {
            let message = self.error("it failed; run it manually to see why");
            return Err(CredentialError::unreadable(
                message,
                io::Error::other("the command exited with a failure"),
            ));
        }
        token::require(
            &output.stdout,
            || format!("`{}` printed nothing; log in with it", self.program.to_string_lossy()),
            || self.error("its output is not a token"),
        )
    }

    /// Only running the command detects a change.
    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::undetectable())
    }
}

/// Shows the program and the number of its arguments, because an argument may be a secret.
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
    async fn the_output_is_the_token() {
        let credential = run(&shell("echo '  abc  '")).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
        assert!(credential.login.fingerprint.is_some());
    }

    #[tokio::test]
    async fn empty_output_is_not_logged_in() {
        let error = run(&shell("true")).await.unwrap_err();

        assert_eq!(error.to_string(), "`sh` printed nothing; log in with it");
    }

    #[tokio::test]
    async fn a_failed_command_yields_no_token() {
        for script in ["echo abc; exit 3", "echo abc; kill -9 $$"] {
            let error = run(&shell(script)).await.unwrap_err();

            assert!(matches!(error, CredentialError::Unreadable { .. }), "{script} {error:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(&CommandToken::new("no-such-program-of-quota")).await.unwrap_err();

        assert_eq!(
            error.to_string(),
            "could not get a token from `no-such-program-of-quota`: program not found"
        );
    }

    #[tokio::test]
    async fn a_command_that_hangs_times_out() {
        let error = run(&shell("exec sleep 1000").timeout(Duration::from_millis(1))).await.unwrap_err();

        assert_eq!(error.to_string(), "the token command `sh` timed out after 0.001 s");
    }

    #[tokio::test]
    async fn endless_output_is_an_error() {
        let error = run(&shell("exec yes")).await.unwrap_err();

        assert_eq!(error.to_string(), "could not get a token from `sh`: its output is too long");
    }

    #[tokio::test]
    async fn a_descendant_that_holds_the_pipe_does_not_block() {
        let credential = run(&shell("printf abc; sleep 30 & exit 0").timeout(Duration::from_secs(20))).await;

        assert_eq!(credential.unwrap().secret.expose(), "abc");
    }

    #[tokio::test]
    async fn a_hidden_variable_is_not_inherited() {
        // Cargo sets this variable for each test.
        let script = "echo ${CARGO_PKG_NAME-none}";

        assert_eq!(run(&shell(script)).await.unwrap().secret.expose(), "quota-credentials");
        assert_eq!(run(&shell(script).hide("CARGO_PKG_NAME")).await.unwrap().secret.expose(), "none");
    }

    #[tokio::test]
    async fn output_and_arguments_are_never_displayed() {
        for script in ["echo n33dle n33dle", "echo n33dle >&2; exit 1"] {
            let source = shell(script);

            let error = run(&source).await.unwrap_err();

            assert!(!format!("{source:?} {error} {error:?}").contains("n33dle"), "{error:?}");
        }
    }
}
