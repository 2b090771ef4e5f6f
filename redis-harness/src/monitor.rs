//! What the scripts on a server do, in the order in which it does it.
//! What that means is for those who look.

use std::io::{BufRead, BufReader, Split, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::server::Server;
use crate::wait_until;

/// Listens to the commands that scripts call on one server, until that server ends.
#[derive(Debug)]
pub struct Monitor {
    heard: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
    listener: JoinHandle<()>,
}

/// By this the listener knows how far it has come.
const MARK: &[u8] = b"monitor-mark";

impl Monitor {
    /// Listens from now on.
    ///
    /// # Panics
    ///
    /// If the server does not let itself be monitored.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        let mut lines = listen(server.socket()).expect("the server lets itself be monitored");
        let heard = Arc::<Mutex<Vec<Vec<Vec<u8>>>>>::default();
        let (ears, socket) = (Arc::clone(&heard), server.socket());
        // It ends with the server: one that a sentinel makes the master hangs up on all, and is listened to again at once.
        let listener = thread::spawn(move || {
            loop {
                for line in lines.map_while(Result::ok) {
                    let is_mark = line.windows(MARK.len()).any(|part| part == MARK);
                    if is_mark || line.windows(5).take(64).any(|part| part == b" lua]") {
                        ears.lock().push(words(&line));
                    }
                }
                let Some(again) = listen(socket.clone()) else { return };
                lines = again;
            }
        });
        Self { heard, listener }
    }

    /// What scripts have called until the server was killed.
    ///
    /// # Panics
    ///
    /// If the server lives: there is no end to wait for.
    #[must_use]
    pub fn heard_to_the_end(self, killed: &Server) -> Vec<Vec<Vec<u8>>> {
        assert!(!killed.is_running(), "a server that lives may say more");
        self.listener.join().expect("the listener does not panic");
        std::mem::take(&mut self.heard.lock())
    }

    /// What scripts have called, each a name with its arguments; everything up to now is in it.
    #[must_use]
    pub fn heard(&self, server: &Server) -> Vec<Vec<Vec<u8>>> {
        let mark = format!("{}-{}", String::from_utf8_lossy(MARK), fastrand::u64(..));
        let _: String = server.ask(&["ECHO", &mark]);
        let is_mark = |call: &Vec<Vec<u8>>| call.last().is_some_and(|word| word.starts_with(MARK));
        wait_until("the monitor has heard everything", || {
            let heard = self.heard.lock();
            heard.iter().any(|call| call.last().is_some_and(|word| word == mark.as_bytes()))
        });
        let heard = self.heard.lock();
        heard.iter().filter(|call| !is_mark(call)).cloned().collect()
    }
}

/// The lines that a monitor is told; `None` if there is no server.
fn listen(socket: PathBuf) -> Option<Split<BufReader<UnixStream>>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"MONITOR\r\n").ok()?;
    let mut lines = BufReader::new(stream).split(b'\n');
    lines.next()?.ok()?.starts_with(b"+OK").then_some(lines)
}

/// The quoted words of a line.
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
    fn words_are_read_as_they_were_sent() {
        let line = br#"+1.5 [0 lua] "SET" "a b" "{\"x\":\"\\\"}\n\xff""#;

        assert_eq!(words(line), [&b"SET"[..], b"a b", b"{\"x\":\"\\\"}\n\xff"]);
    }
}
