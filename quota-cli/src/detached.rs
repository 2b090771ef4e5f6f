//! Starts this program again as a detached process: it outlives the command, its process group and its terminal.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long the new process may take to read its input.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts `quota` with these arguments, and passes `input` on its standard input. Its output goes nowhere.
///
/// The input may hold secrets, because only the new process reads the pipe. If this process is killed while it writes, or the new one
/// does not read within [`INPUT_TIMEOUT`], the new one gets a part of the input.
///
/// # Errors
///
/// Those of the system if the process cannot be started or does not read its input, and [`io::ErrorKind::NotFound`] if the file of
/// this program cannot be executed any more.
pub(crate) fn start(
    arguments: &[&OsStr],
    change_environment: impl FnOnce(&mut Command),
    input: &[u8],
) -> io::Result<()> {
    let mut command = orphaned(&program()?, arguments);
    change_environment(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map_or(Ok(()), |stdin| write_input(stdin, input, INPUT_TIMEOUT));
    // First the shell, which says that there was no reader.
    reap(child)?;
    written
}

/// Writes to a new process. A thread writes, because a pipe takes about 64 KiB and the process may hang before it reads the rest.
fn write_input(mut stdin: ChildStdin, input: &[u8], timeout: Duration) -> io::Result<()> {
    let (sender, written) = mpsc::channel();
    let input = input.to_vec();
    std::thread::spawn(move || sender.send(stdin.write_all(&input)));
    written.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The file of this program. After an upgrade Linux names the old file, which is deleted, and the new one has its path.
fn program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let replaced = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.exists()).unwrap_or(program))
}

/// Starts by way of a shell that ends at once, so that the new process is no child of this one: a command that takes the place of
/// this program (`quota run`) never waits for a child that it does not know. The shell leads a process group of its own, because
/// Ctrl-C ends the group of this process. Without the copy of its input, the shell would start a background process without input. A
/// background process that cannot be executed is no error of the shell, so it checks that first. The new process gets no file that a
/// script has opened under a number, such as a lock.
#[cfg(unix)]
fn orphaned(program: &std::path::Path, arguments: &[&OsStr]) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT]).arg(program).args(arguments);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

#[cfg(unix)]
const SCRIPT: &str =
    r#"[ -x "$0" ] || exit 126; exec 3<&0; "$0" "$@" <&3 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&- &"#;

#[cfg(not(unix))]
fn orphaned(program: &std::path::Path, arguments: &[&OsStr]) -> Command {
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

/// Gives a detached process a session of its own, so that closing the terminal does not end it.
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
