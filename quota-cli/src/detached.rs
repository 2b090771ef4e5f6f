//! Starts this program again as a detached process: it outlives the command, its process group and its terminal.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The timeout for the new process to read its input.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts `quota` with these arguments and with `input` on its standard input. Its output is discarded.
///
/// The input may hold secrets, because only the new process reads the pipe. If this process is killed while it writes, or the new one
/// does not read within [`INPUT_TIMEOUT`], the new one gets a part of the input.
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
    let mut child = command.spawn()?;
    let written = child.stdin.take().map_or(Ok(()), |stdin| write_input(stdin, input, INPUT_TIMEOUT));
    // First check the exit code of the shell. If it fails, the write also fails, with a less useful error.
    reap(child)?;
    written
}

/// Writes to a new process in a thread. A pipe buffers only about 64 KiB, and the process may hang before it reads the rest.
fn write_input(mut stdin: ChildStdin, input: &[u8], timeout: Duration) -> io::Result<()> {
    let (sender, written) = mpsc::channel();
    let input = input.to_vec();
    std::thread::spawn(move || sender.send(stdin.write_all(&input)));
    written.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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
/// does not report that for a background process. It closes descriptors 3 to 9, so that the new process inherits no lock of a script.
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
fn reap(mut shell: std::process::Child) -> io::Result<()> {
    if shell.wait()?.success() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(not(unix))]
fn reap(_child: std::process::Child) -> io::Result<()> {
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
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();

        let stdin = child.stdin.take().unwrap();
        let written = write_input(stdin, &[b'x'; 1024 * 1024], Duration::from_millis(50));

        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
