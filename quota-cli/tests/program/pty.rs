//! A terminal without anybody in front of it, for programs that need one.

// Clippy lets helpers of tests unwrap too, if it is told that all of this is a test.
#![cfg(test)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal: what is written to it can be read here, and keys can be pressed.
pub(crate) struct Pty {
    ours: File,
    theirs: OwnedFd,
    /// What was written to it and has not been looked at.
    text: String,
}

impl Pty {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let pty = Self { ours: ours.into(), theirs, text: String::new() };
        pty.resize(columns, rows);
        pty
    }

    /// Starts a program on it.
    pub(crate) fn start(&self, mut command: Command) -> Child {
        let stdio = || self.theirs.try_clone().unwrap();
        command.env("TERM", "xterm").stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }

    /// Reads until this has been written, and gives what was written up to there.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            // A letter may be cut in two; what is looked for is not.
            let count = self.ours.read(&mut bytes).unwrap();
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
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
