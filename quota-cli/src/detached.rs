//! Starts this program again as a detached process: it outlives the command, its process group and its terminal.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The timeout for the new process to start and to read its input.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts `quota` with these arguments and with `input` on its standard input. Its output is discarded.
///
/// The input may contain secrets, because only the new process reads the pipe. If this process is killed while it
/// writes, or the new one does not read within [`START_TIMEOUT`], the new one gets a part of the input.
///
/// # Errors
///
/// [`io::Error`] if the process cannot be started or does not read its input. [`io::ErrorKind::NotFound`] if the file of this program
/// can no longer be executed.
pub(crate) fn start(
    arguments: &[&OsStr],
    change_environment: impl FnOnce(&mut Command),
    input: &[u8],
) -> io::Result<()> {
    let mut command = background_command(&program()?, arguments);
    change_environment(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    hand_over(command.spawn()?, input, START_TIMEOUT)
}

/// Starts `quota` with these arguments as a child, without a shell and without input. This is for a command that must be fast and ends
/// at once, so that the new process becomes an orphan.
///
/// # Errors
///
/// [`io::Error`] if the process cannot be started.
pub(crate) fn start_child(
    arguments: &[&OsStr],
    change_environment: impl FnOnce(&mut Command),
) -> io::Result<()> {
    let mut command = Command::new(program()?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    change_environment(&mut command);
    command.spawn().map(drop)
}

/// Writes the input and waits for the shell, in a thread with a timeout: a pipe buffers only about 64 KiB, and both processes may hang.
fn hand_over(mut child: Child, input: &[u8], timeout: Duration) -> io::Result<()> {
    let (sender, result) = mpsc::channel();
    let input = input.to_vec();
    std::thread::spawn(move || {
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&input));
        // Check the shell's exit code first. If the shell fails, the write also fails, with a less useful error.
        sender.send(reap(child).and(written))
    });
    result.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The file of this program. After an upgrade, Linux reports the deleted file; the new program is at the same path.
fn program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let replaced = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.exists()).unwrap_or(program))
}

/// A shell that starts the program in the background and ends at once. The new process is then not a child of this one: a command
/// that replaces this process (`quota run`) would not reap it.
///
/// The shell leads its own process group, because Ctrl-C signals the group of this process. The script copies standard input to
/// descriptor 3, because a shell gives background processes no input. It checks first that the program is executable, because a shell
/// does not report that for a background process. It closes descriptors 3 to 9, so that the new process inherits no lock
/// that a POSIX script holds. A shell cannot name higher ones.
#[cfg(unix)]
fn background_command(program: &std::path::Path, arguments: &[&OsStr]) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT]).arg(program).args(arguments);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

#[cfg(unix)]
const SCRIPT: &str =
    r#"[ -x "$0" ] || exit 126; exec 3<&0; "$0" "$@" <&3 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&- &"#;

#[cfg(not(unix))]
fn background_command(program: &std::path::Path, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

#[cfg(unix)]
fn reap(mut shell: Child) -> io::Result<()> {
    if shell.wait()?.success() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(not(unix))]
fn reap(_child: Child) -> io::Result<()> {
    Ok(())
}

/// Moves a detached process into its own session, so that closing the terminal does not end it.
pub(crate) fn leave_session() {
    #[cfg(unix)]
    let _ = rustix::process::setsid();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_read_its_input_does_not_block() {
        let child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let id = rustix::process::Pid::from_child(&child);

        let result = hand_over(child, &[b'x'; 1024 * 1024], Duration::from_millis(50));

        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_shell_that_does_not_end_does_not_block() {
        let child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let id = rustix::process::Pid::from_child(&child);

        let result = hand_over(child, &[], Duration::from_millis(50));

        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    }
}
