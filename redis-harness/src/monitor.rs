//! Records the commands that scripts run on a server, in order.

use std::io::{BufRead, BufReader, Split, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::server::Server;
use crate::wait_until;

/// Records the commands that scripts run on one server, until that server ends.
#[derive(Debug)]
pub struct Monitor {
    recorded: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
    listener: JoinHandle<()>,
}

/// The prefix of a command that marks how far the listener has read.
const MARK: &[u8] = b"monitor-mark";

impl Monitor {
    /// Starts to record.
    ///
    /// # Panics
    ///
    /// If the server rejects `MONITOR`.
    #[must_use]
    pub fn start(server: &Server) -> Self {
        let mut lines = listen(server.socket()).expect("the server accepts MONITOR");
        let recorded = Arc::<Mutex<Vec<Vec<Vec<u8>>>>>::default();
        let (writer, socket) = (Arc::clone(&recorded), server.socket());
        // The thread ends with the server. A server that becomes the master closes all connections, so the thread reconnects at
        // once.
        let listener = thread::spawn(move || {
            loop {
                for line in lines.map_while(Result::ok) {
                    let is_mark = line.windows(MARK.len()).any(|part| part == MARK);
                    if is_mark || line.windows(5).take(64).any(|part| part == b" lua]") {
                        writer.lock().push(words(&line));
                    }
                }
                let Some(again) = listen(socket.clone()) else { return };
                lines = again;
            }
        });
        Self { recorded, listener }
    }

    /// Returns the commands that scripts ran until the server was killed.
    ///
    /// # Panics
    ///
    /// If the server is still running.
    #[must_use]
    pub fn into_recorded(self, killed: &Server) -> Vec<Vec<Vec<u8>>> {
        assert!(!killed.is_running(), "a running server may still send commands");
        self.listener.join().expect("the listener does not panic");
        std::mem::take(&mut self.recorded.lock())
    }

    /// The commands that scripts have run so far, each with its arguments.
    #[must_use]
    pub fn recorded(&self, server: &Server) -> Vec<Vec<Vec<u8>>> {
        let mark = format!("{}-{}", String::from_utf8_lossy(MARK), fastrand::u64(..));
        let _: String = server.command(&["ECHO", &mark]);
        let is_mark = |call: &Vec<Vec<u8>>| call.last().is_some_and(|word| word.starts_with(MARK));
        wait_until("the monitor has read everything", || {
            let recorded = self.recorded.lock();
            recorded.iter().any(|call| call.last().is_some_and(|word| word == mark.as_bytes()))
        });
        let recorded = self.recorded.lock();
        recorded.iter().filter(|call| !is_mark(call)).cloned().collect()
    }
}

/// The lines of `MONITOR`; `None` if the server is not running.
fn listen(socket: PathBuf) -> Option<Split<BufReader<UnixStream>>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"MONITOR\r\n").ok()?;
    let mut lines = BufReader::new(stream).split(b'\n');
    lines.next()?.ok()?.starts_with(b"+OK").then_some(lines)
}

/// Splits a line into its quoted arguments.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied();
    while bytes.any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
            word.push(if byte == b'\\' { escaped(&mut bytes) } else { byte });
        }
        words.push(word);
    }
    words
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'a') => 7,
        Some(b'b') => 8,
        Some(b'x') => {
            let digits: Vec<u8> = bytes.take(2).collect();
            str::from_utf8(&digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .unwrap_or(b'?')
        }
        other => other.unwrap_or(b'?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_decoded_as_they_were_sent() {
        let line = br#"+1.5 [0 lua] "SET" "a b" "{\"x\":\"\\\"}\n\xff""#;

        assert_eq!(words(line), [&b"SET"[..], b"a b", b"{\"x\":\"\\\"}\n\xff"]);
    }
}
