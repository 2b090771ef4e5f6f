//! The signals that end a command. A signal that was ignored when the process started stays ignored.

use std::task::{Context, Poll};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{CliError, Exit};
use crate::io_cause;

/// The installed signal handlers, with the exit code of each signal.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, Exit)>);

impl Signals {
    /// Installs the handlers. A signal that was ignored when the process started stays ignored, because `nohup` and background jobs of
    /// scripts rely on it.
    ///
    /// # Errors
    ///
    /// [`CliError`] if a handler cannot be installed.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let ends = [
            (Number::HUP, Exit::HungUp),
            (Number::INT, Exit::Interrupted),
            (Number::QUIT, Exit::Quit),
            (Number::TERM, Exit::Terminated),
        ];
        let listen = |(number, exit): (Number, Exit)| {
            let refused = |error| {
                CliError::new(
                    Exit::OsErr,
                    format!("could not listen for signals: {}", io_cause::plain(&error)),
                )
            };
            Ok((signal(SignalKind::from_raw(number.as_raw())).map_err(refused)?, exit))
        };
        let ends = ends.into_iter().filter(|(number, _)| !is_ignored(*number));
        ends.map(listen).collect::<Result<_, _>>().map(Self)
    }

    /// Polls for a signal. It is ready with the signal's exit code.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Exit> {
        for (signal, exit) in &mut self.0 {
            if signal.poll_recv(context).is_ready() {
                return Poll::Ready(*exit);
            }
        }
        Poll::Pending
    }
}

/// Whether the process was started with the signal ignored.
#[cfg(target_os = "linux")]
fn is_ignored(number: Number) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, number))
}

/// Whether the process was started with the signal ignored. The system does not show this, so assume it for SIGHUP if no stream is a
/// terminal, as after `nohup`.
#[cfg(not(target_os = "linux"))]
fn is_ignored(number: Number) -> bool {
    use std::io::{IsTerminal, stderr, stdin, stdout};
    number == Number::HUP && !(stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal())
}

/// Whether a process with this `/proc/…/status` ignores the signal.
#[cfg(target_os = "linux")]
fn ignores(status: &str, number: Number) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(number.as_raw() - 1).expect("signals have positive numbers");
    mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_ignored_if_its_bit_is_set() {
        let status = "Name:\tquota\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";

        assert!(ignores(status, Number::HUP));
        assert!(!ignores(status, Number::INT));
        assert!(!ignores("Name:\tquota\n", Number::HUP));
    }
}
