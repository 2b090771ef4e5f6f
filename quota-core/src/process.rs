//! Programs that this one runs: in a process group of their own, ended as a whole, and without secrets that are not theirs.
//! What a program is run for is its caller's business.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::{Clock, SecretBuffer};
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Environment variables that hold a login or the store's password.
///
/// A program that prints one token, or reports an event, needs none of them. Claude Code documents its own at
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

/// Takes [`SECRET_VARIABLES`] and these others out of the environment of a program.
pub fn remove_secrets<N: AsRef<OsStr>>(command: &mut Command, others: impl IntoIterator<Item = N>) {
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    for name in others {
        command.env_remove(name);
    }
}

/// A program that runs in a process group of its own. Dropping it ends the program and whatever it has started.
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
    /// Starts the program. A Ctrl-C at the terminal reaches only this process, not the program.
    ///
    /// # Errors
    ///
    /// That of the system if the program cannot be run.
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

    /// Takes the program's standard input, if it is piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the program's standard output, if it is piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until the program itself has ended. What it has started may still run.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Leaves alone what an ended program has left running, such as a daemon it has started on purpose.
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
            // An error means that all of them have ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// How a program ended, and what it printed.
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub printed: SecretBuffer,
}

/// How long output is read after the end of a program. What it wrote before is in the pipe by then; only a process that it left
/// behind, and that has inherited the pipe, can write more.
const DRAIN: Duration = Duration::from_millis(50);
/// How much is read at once.
const CHUNK: usize = 4096;

/// Runs a program to its end and returns what it printed, if that is no more than `limit` bytes. It is given no input, and its
/// error stream is not kept. Dropping the future kills its process group.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] beyond the limit, otherwise that of the system.
pub async fn output_of(mut command: Command, limit: usize) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(command)?;
    let mut stdout = group.take_stdout().expect("it is piped");
    let (clock, mut status) = (Clock::system(), None);
    let mut printed = SecretBuffer::with_capacity(CHUNK);
    let mut chunk = Zeroizing::new([0; CHUNK]);
    loop {
        let read = if status.is_none() {
            tokio::select! {
                biased;
                read = stdout.read(&mut *chunk) => read?,
                ended = group.wait() => {
                    status = Some(ended?);
                    continue;
                }
            }
        } else {
            // A process that was left behind can keep the pipe open without end.
            clock.bounded(DRAIN, stdout.read(&mut *chunk)).await.unwrap_or(Ok(0))?
        };
        if read == 0 {
            break;
        }
        if printed.len() + read > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        printed.extend_from_slice(&chunk[..read]);
    }
    let status = match status {
        Some(status) => status,
        None => group.wait().await?,
    };
    // What it has left running on purpose stays.
    group.release();
    Ok(Output { status, printed })
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

    /// Starts a program whose grandchild holds the pipe, and waits until that has said so.
    async fn with_grandchild() -> (ProcessGroup, BufReader<ChildStdout>) {
        let mut group = ProcessGroup::spawn(shell("(echo begun; exec sleep 3600) & wait")).unwrap();
        let mut output = BufReader::new(group.take_stdout().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).await.unwrap();
        assert_eq!(line, "begun\n");
        (group, output)
    }

    #[tokio::test]
    async fn dropping_a_group_ends_what_the_program_has_started() {
        let (group, mut output) = with_grandchild().await;

        drop(group);

        // The pipe ends with the last process that has it open.
        assert_eq!(output.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_released_group_leaves_a_daemon_alone() {
        let mut command = shell("exec 3<&0; (read line <&3; echo \"$line\") & exit 0");
        command.stdin(Stdio::piped());
        let mut group = ProcessGroup::spawn(command).unwrap();
        let (mut input, mut output) = (group.take_stdin().unwrap(), group.take_stdout().unwrap());

        assert!(group.wait().await.unwrap().success());
        group.release();
        input.write_all(b"still there\n").await.unwrap();

        let mut printed = String::new();
        output.read_to_string(&mut printed).await.unwrap();
        assert_eq!(printed, "still there\n");
    }

    #[tokio::test]
    async fn a_program_without_secrets_finds_none_in_its_environment() {
        let mut command = shell("echo ${ANTHROPIC_API_KEY-none} ${QUOTA_WORK-none} ${QUOTA_KEPT-none}");
        for name in ["ANTHROPIC_API_KEY", "QUOTA_WORK", "QUOTA_KEPT"] {
            command.env(name, "here");
        }
        remove_secrets(&mut command, ["QUOTA_WORK"]);

        let output = command.output().await.unwrap();

        assert_eq!(String::from_utf8(output.stdout).unwrap(), "none none here\n");
    }

    #[tokio::test]
    async fn output_larger_than_a_pipe_is_read_whole() {
        let output = output_of(shell("head -c 300000 /dev/zero | tr '\\0' a"), 1024 * 1024).await.unwrap();

        assert_eq!((output.status.success(), output.printed.len()), (true, 300_000));
    }

    #[tokio::test]
    async fn output_is_complete_though_a_process_left_behind_has_the_pipe() {
        let output = output_of(shell("echo abc; sleep 3600 & echo $!"), 1024).await.unwrap();

        let text = String::from_utf8(output.printed.to_vec()).unwrap();
        let left_behind = Pid::from_raw(text.lines().nth(1).unwrap().parse().unwrap()).unwrap();
        assert_eq!(text.lines().next(), Some("abc"));
        rustix::process::kill_process(left_behind, Signal::KILL).expect("it still runs");
    }
}
