//! Starts this program again as a detached process: it outlives the command, its process group and its terminal.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Starts `quota` with these arguments, and passes `input` on its standard input. Its output goes nowhere.
///
/// The input may hold secrets, because only the new process reads the pipe. If this process is killed while it writes, the new one
/// gets a part of the input.
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
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| io::Write::write_all(&mut stdin, input));
    // First the shell, which says that there was no reader.
    reap(child)?;
    written
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
