//! A pseudo-terminal for programs that need a terminal.

// Clippy allows unwrap in test helpers only below cfg(test).
#![cfg(test)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Longer than any output takes, even on a busy machine.
const READ_TIMEOUT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A pseudo-terminal. The test reads its output and presses keys.
pub(crate) struct Pty {
    controller: File,
    terminal: OwnedFd,
    /// Output that the test has not read yet. Bytes, because a read may end inside a character.
    unread: Vec<u8>,
}

impl Pty {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // If a child process inherited the controller, its terminal would never hang up.
        rustix::io::fcntl_setfd(&controller, rustix::io::FdFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let pty = Self { controller: controller.into(), terminal, unread: Vec::new() };
        pty.resize(columns, rows);
        pty
    }

    /// Starts a program on this terminal.
    pub(crate) fn start(&self, mut command: Command) -> Child {
        let stdio = || self.terminal.try_clone().unwrap();
        command.env("TERM", "xterm").stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }

    /// Reads until `wanted` appears, and returns the output up to its end. Panics after a timeout.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let found = self.unread.windows(wanted.len()).position(|piece| piece == wanted.as_bytes());
            if let Some(at) = found {
                let output = self.unread.drain(..at + wanted.len()).collect();
                return String::from_utf8(output).unwrap();
            }
            let mut waits = [PollFd::new(&self.controller, PollFlags::IN)];
            let is_ready = poll(&mut waits, Some(&READ_TIMEOUT)).unwrap() > 0;
            assert!(
                is_ready,
                "timed out waiting for {wanted:?}, output: {:?}",
                String::from_utf8_lossy(&self.unread)
            );
            let count = self.controller.read(&mut bytes).unwrap();
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    /// The output of programs that have ended.
    pub(crate) fn rest(&mut self) -> String {
        const END: &str = "-- end of output --";
        File::from(self.terminal.try_clone().unwrap()).write_all(END.as_bytes()).unwrap();
        self.until(END)
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.controller.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).unwrap();
    }

    /// Whether the terminal edits lines, echoes input and sends signals, as a shell expects.
    pub(crate) fn is_in_cooked_mode(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}
