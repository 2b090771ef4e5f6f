//! The process of the command. It shares the terminal and the process group of this process, receives its signals, and
//! determines its exit code.

use std::future::poll_fn;
use std::io;
use std::process::ExitStatus;

use tokio::process::Child;

use crate::exit::Exit;
use crate::scope::Signals;

/// Waits for the end of the command, and forwards signals to it.
///
/// # Errors
///
/// The system's error.
pub(super) async fn wait(child: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            biased;
            ended = child.wait() => return ended,
            signal = poll_fn(|context| signals.poll(context)) => pass_on(signal, child),
        }
    }
}

/// The exit code of the command; 128 plus the number of the signal that ended it, as in shells.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|number| 128 + number);
    #[cfg(not(unix))]
    let signal = None;
    status.code().or(signal).unwrap_or(Exit::OsErr as i32)
}

#[cfg(unix)]
fn pass_on(signal: Exit, child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};

    let number = match signal {
        // The terminal also sends these signals to the command, and some programs exit on a second one.
        Exit::Interrupted | Exit::Quit if is_in_foreground() => return,
        Exit::Interrupted => Signal::INT,
        Exit::Quit => Signal::QUIT,
        Exit::HungUp => Signal::HUP,
        _ => Signal::TERM,
    };
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // Ignore an error, because the command may have ended. The next step waits for it.
        let _ = kill_process(id, number);
    }
}

/// Ctrl-C reaches the command as well.
#[cfg(not(unix))]
fn pass_on(_signal: Exit, _child: &Child) {}

/// Whether this process group receives the terminal's keyboard signals.
#[cfg(unix)]
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| {
        rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group == rustix::process::getpgrp())
    })
}
