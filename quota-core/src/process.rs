//! Child processes: each runs in its own process group, inherits no secrets, and is killed with its descendants.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::clock::Clock;
use crate::secret::SecretBuffer;
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Environment variables that may contain a login or the store's password.
///
/// A child process that prints one token or reports an event needs none of them. Those of Claude Code are documented at
/// <https://code.claude.com/docs/en/env-vars>.
pub const SECRET_VARIABLES: [&str; 11] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_FOUNDRY_API_KEY",
    "ANTHROPIC_IDENTITY_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CODEX_API_KEY",
    "OPENAI_API_KEY",
    "QUOTA_STORE",
];

/// Removes [`SECRET_VARIABLES`] and the variables in `others` from the environment of a command.
pub fn remove_secrets<N: AsRef<OsStr>>(command: &mut Command, others: impl IntoIterator<Item = N>) {
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    for name in others {
        command.env_remove(name);
    }
}

/// A child process in its own process group. Dropping it kills the child and its descendants.
///
/// ```
/// # #[cfg(unix)]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use quota_core::process::ProcessGroup;
///
/// let mut group = ProcessGroup::spawn(tokio::process::Command::new("true"))?;
/// assert!(group.wait().await?.success());
/// group.release();
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ProcessGroup {
    child: Child,
    #[cfg(unix)]
    leader: Option<Pid>,
}

impl ProcessGroup {
    /// Starts the child process. A Ctrl-C at the terminal does not reach it.
    ///
    /// # Errors
    ///
    /// The system's error if the program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn()?;
        #[cfg(unix)]
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self {
            child,
            #[cfg(unix)]
            leader,
        })
    }

    /// Takes the standard input of the child, if it is piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the standard output of the child, if it is piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until the child exits. Its descendants may still run.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Lets the descendants of an exited child run, such as a daemon that it started on purpose.
    pub fn release(self) {
        #[cfg(unix)]
        {
            let mut this = self;
            this.leader = None;
        }
    }
}

#[cfg(unix)]
impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // An error means that the group has no processes left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The exit status and the standard output of a child process.
pub struct Output {
    /// The exit status.
    pub status: ExitStatus,
    /// The standard output.
    pub stdout: SecretBuffer,
}

/// How long to read output after the child has exited. Its own output is in the pipe by then. Only a descendant that inherited the
/// pipe can write more.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);
/// The size of one read.
const CHUNK: usize = 4096;

/// Runs a command until it exits and returns its standard output of at most `limit` bytes. Standard input is empty and standard
/// error is discarded. Dropping the future kills the process group.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] beyond the limit, otherwise the system's error.
pub async fn output_of(mut command: Command, limit: usize) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(command)?;
    let mut pipe = group.take_stdout().expect("standard output is piped");
    let (clock, mut status) = (Clock::system(), None);
    let mut stdout = SecretBuffer::with_capacity(CHUNK);
    let mut chunk = Zeroizing::new([0; CHUNK]);
    loop {
        let read = if status.is_none() {
            tokio::select! {
                biased;
                read = pipe.read(&mut *chunk) => read?,
                exited = group.wait() => {
                    status = Some(exited?);
                    continue;
                }
            }
        } else {
            // A running descendant can hold the pipe open indefinitely.
            clock.bounded(DRAIN_TIMEOUT, pipe.read(&mut *chunk)).await.unwrap_or(Ok(0))?
        };
        if read == 0 {
            break;
        }
        if stdout.len() + read > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        stdout.extend_from_slice(&chunk[..read]);
    }
    let status = match status {
        Some(status) => status,
        None => group.wait().await?,
    };
    // Password managers start agents that must keep running.
    group.release();
    Ok(Output { status, stdout })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::process::Stdio;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// Starts a child whose own child holds the pipe, and waits until the grandchild runs.
    async fn with_grandchild() -> (ProcessGroup, BufReader<ChildStdout>) {
        let mut group = ProcessGroup::spawn(shell("(echo started; exec sleep 3600) & wait")).unwrap();
        let mut output = BufReader::new(group.take_stdout().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).await.unwrap();
        assert_eq!(line, "started\n");
        (group, output)
    }

    #[tokio::test]
    async fn dropping_a_group_kills_the_descendants() {
        let (group, mut output) = with_grandchild().await;

        drop(group);

        // The pipe closes with the last process that holds it.
        assert_eq!(output.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_released_group_lets_a_daemon_run() {
        let mut command = shell("exec 3<&0; (read line <&3; echo \"$line\") & exit 0");
        command.stdin(Stdio::piped());
        let mut group = ProcessGroup::spawn(command).unwrap();
        let (mut input, mut output) = (group.take_stdin().unwrap(), group.take_stdout().unwrap());

        assert!(group.wait().await.unwrap().success());
        group.release();
        input.write_all(b"still running\n").await.unwrap();

        let mut printed = String::new();
        output.read_to_string(&mut printed).await.unwrap();
        assert_eq!(printed, "still running\n");
    }

    #[tokio::test]
    async fn secrets_are_removed_from_the_environment() {
        let mut command = shell("echo ${ANTHROPIC_API_KEY-none} ${QUOTA_WORK-none} ${QUOTA_OTHER-none}");
        for name in ["ANTHROPIC_API_KEY", "QUOTA_WORK", "QUOTA_OTHER"] {
            command.env(name, "here");
        }
        remove_secrets(&mut command, ["QUOTA_WORK"]);

        let output = command.output().await.unwrap();

        assert_eq!(String::from_utf8(output.stdout).unwrap(), "none none here\n");
    }

    #[tokio::test]
    async fn output_larger_than_the_pipe_buffer_is_complete() {
        let output = output_of(shell("head -c 300000 /dev/zero | tr '\\0' a"), 1024 * 1024).await.unwrap();

        assert_eq!((output.status.success(), output.stdout.len()), (true, 300_000));
    }

    #[tokio::test]
    async fn output_ends_while_a_descendant_holds_the_pipe() {
        let output = output_of(shell("echo abc; sleep 3600 & echo $!"), 1024).await.unwrap();

        let text = String::from_utf8(output.stdout.to_vec()).unwrap();
        let descendant = Pid::from_raw(text.lines().nth(1).unwrap().parse().unwrap()).unwrap();
        assert_eq!(text.lines().next(), Some("abc"));
        rustix::process::kill_process(descendant, Signal::KILL).expect("it still runs");
    }
}
