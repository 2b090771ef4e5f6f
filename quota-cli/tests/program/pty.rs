//! A terminal without a user, for programs that need one.

// Clippy lets helpers of tests unwrap too, if it is told that all of this is a test.
#![cfg(test)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// As long as nothing takes, however busy the machine is.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A terminal: what is written to it can be read here, and keys can be pressed.
pub(crate) struct Pty {
    ours: File,
    theirs: OwnedFd,
    /// What was written to it and has not been looked at. In bytes, for a letter may come in two pieces.
    unseen: Vec<u8>,
}

impl Pty {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // A program that has it too would keep its own terminal open.
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let pty = Self { ours: ours.into(), theirs, unseen: Vec::new() };
        pty.resize(columns, rows);
        pty
    }

    /// Starts a program on it.
    pub(crate) fn start(&self, mut command: Command) -> Child {
        let stdio = || self.theirs.try_clone().unwrap();
        command.env("TERM", "xterm").stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }

    /// Reads until this has been written, and gives what was written up to there. A test that waits in vain fails.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let found = self.unseen.windows(wanted.len()).position(|piece| piece == wanted.as_bytes());
            if let Some(at) = found {
                let seen = self.unseen.drain(..at + wanted.len()).collect();
                return String::from_utf8(seen).unwrap();
            }
            let mut waits = [PollFd::new(&self.ours, PollFlags::IN)];
            let is_ready = poll(&mut waits, Some(&PATIENCE)).unwrap() > 0;
            assert!(
                is_ready,
                "waited in vain for {wanted:?}, seen: {:?}",
                String::from_utf8_lossy(&self.unseen)
            );
            let count = self.ours.read(&mut bytes).unwrap();
            self.unseen.extend_from_slice(&bytes[..count]);
        }
    }

    /// What was written by programs that have ended.
    pub(crate) fn rest(&mut self) -> String {
        const END: &str = "-- that was all --";
        File::from(self.theirs.try_clone().unwrap()).write_all(END.as_bytes()).unwrap();
        self.until(END)
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.theirs, size).unwrap();
    }

    /// Whether lines are edited and shown as they are typed, as a shell expects it.
    pub(crate) fn is_as_shells_want_it(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}
