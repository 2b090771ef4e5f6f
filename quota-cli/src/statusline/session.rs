//! What Claude Code says of its session on standard input, when it is there.
//! Whose numbers it holds is decided in `observe`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde::Deserialize;

/// Claude Code has written and closed before we run; an open pipe on which nobody speaks must not hold up the line.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is known of the session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// As it was written, for its `rate_limits`.
    pub(super) bytes: Vec<u8>,
    pub(super) model: Option<String>,
    pub(super) dir: Option<String>,
    pub(super) cost: Option<f64>,
}

impl Session {
    /// Whether it was one.
    pub(super) fn was_heard(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn parse(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            // Most often nobody speaks, and to say where it ends would cost more than the rest of the line.
            return Self::default();
        }
        // Each part by itself: what has another form than it had must not hide the others.
        let Ok(found) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return Self::default() };
        if !found.is_object() {
            return Self::default();
        }
        let part = |name: &str| found.get(name).cloned().unwrap_or_default();
        let model = Model::deserialize(part("model")).ok();
        let dir = Workspace::deserialize(part("workspace")).ok().map(|workspace| workspace.current_dir);
        let cost = Cost::deserialize(part("cost")).ok().map(|cost| cost.total_cost_usd);
        Self { bytes, model: model.map(|model| model.display_name), dir, cost }
    }
}

#[derive(Deserialize)]
struct Model {
    display_name: String,
}

#[derive(Deserialize)]
struct Workspace {
    current_dir: String,
}

#[derive(Deserialize)]
struct Cost {
    total_cost_usd: f64,
}

/// Reads what is said on standard input. At a terminal, and where nobody speaks, it is nothing.
pub(super) fn hear() -> Session {
    if io::stdin().is_terminal() {
        return Session::default();
    }
    read().map(Session::parse).unwrap_or_default()
}

/// Everything up to the end, if it comes in time.
#[cfg(unix)]
fn read() -> Option<Vec<u8>> {
    use rustix::buffer::spare_capacity;
    use rustix::event::{PollFd, PollFlags, poll};

    /// How often it may be waited for more: whoever speaks so slowly is not listened to.
    const ROUNDS: usize = 32;
    let stdin = io::stdin();
    let patience = rustix::event::Timespec::try_from(PATIENCE).ok()?;
    let mut bytes = Vec::new();
    for _ in 0..ROUNDS {
        // No thread for it: a read that would block is not begun.
        let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&patience)).ok()?;
        if ready == 0 {
            return None;
        }
        // Room that nobody has written to costs nothing, however little is said.
        bytes.reserve(64 * 1024);
        match rustix::io::read(&stdin, spare_capacity(&mut bytes)) {
            Ok(0) => return Some(bytes),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(not(unix))]
fn read() -> Option<Vec<u8>> {
    use std::io::Read as _;

    let (sender, heard) = std::sync::mpsc::channel();
    // A read cannot be given up, so it is on a thread that ends with the program.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if io::stdin().lock().take(2 * 1024 * 1024).read_to_end(&mut bytes).is_ok() {
            let _ = sender.send(bytes);
        }
    });
    heard.recv_timeout(PATIENCE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_says_is_understood() {
        let session = Session::parse(
            br#"{"model":{"id":"x","display_name":"Opus"},"workspace":{"current_dir":"/src"},"cost":{"total_cost_usd":1.25}}"#
                .to_vec(),
        );

        assert_eq!(
            (session.model.as_deref(), session.dir.as_deref(), session.cost),
            (Some("Opus"), Some("/src"), Some(1.25))
        );
    }

    #[test]
    fn a_part_of_another_form_does_not_hide_the_others() {
        let session = Session::parse(br#"{"model":"opus","cost":{"total_cost_usd":2}}"#.to_vec());

        assert_eq!((session.model.as_deref(), session.cost), (None, Some(2.0)));
    }

    #[test]
    fn what_is_no_session_is_none() {
        for bytes in [&b""[..], b"hello", b"[1]", b"{", b"\xff"] {
            assert!(!Session::parse(bytes.to_vec()).was_heard(), "{bytes:?}");
        }
    }
}
