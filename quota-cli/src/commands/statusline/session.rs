//! Reads Claude Code's description of its session from standard input.
//! `observe` determines the account of the session.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde::Deserialize;

/// The time limit for the first byte. Claude Code writes before it starts this program, and a pipe without input must not delay the line.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_millis(50);
/// The time limit for the whole input after its first byte.
#[cfg(unix)]
const TIMEOUT: Duration = Duration::from_millis(250);
/// The size limit. Claude Code writes a few kilobytes.
const LIMIT: usize = 1024 * 1024;

/// The session. It is empty if the input describes no session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The input, which contains the `rate_limits`.
    pub(super) bytes: Vec<u8>,
    pub(super) model: Option<String>,
    pub(super) dir: Option<String>,
    pub(super) cost: Option<f64>,
}

impl Session {
    /// Whether the input describes a session.
    pub(super) fn is_present(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether the input describes a session, so that its usage must belong to the session's login.
    pub(super) fn names_anything(&self) -> bool {
        let has_limits = || {
            serde_json::from_slice::<serde_json::Value>(&self.bytes)
                .is_ok_and(|input| input.get("rate_limits").is_some())
        };
        self.model.is_some() || self.dir.is_some() || self.cost.is_some() || has_limits()
    }

    fn parse(mut bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            // Outside Claude Code the input is usually empty, and creating serde_json's error would take longer than the rest of the line.
            return Self::default();
        }
        // Parse each part separately, so that a format change in one part does not affect the others. Ignore input after the object.
        let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>();
        let Some(Ok(found)) = values.next() else { return Self::default() };
        let end = values.byte_offset();
        if !found.is_object() {
            return Self::default();
        }
        let part = |name: &str| found.get(name).cloned().unwrap_or_default();
        // An empty name would leave a gap in the line.
        let is_not_blank = |text: &String| !text.trim().is_empty();
        let model =
            Model::deserialize(part("model")).ok().map(|model| model.display_name).filter(is_not_blank);
        let dir = Workspace::deserialize(part("workspace")).ok().map(|workspace| workspace.current_dir);
        let dir = dir.filter(is_not_blank);
        let cost = Cost::deserialize(part("cost")).ok().map(|cost| cost.total_cost_usd);
        bytes.truncate(end);
        Self { bytes, model, dir, cost }
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

/// Reads standard input. The session is empty at a terminal or without input.
pub(super) fn read_input() -> Session {
    if io::stdin().is_terminal() {
        return Session::default();
    }
    read().map(Session::parse).unwrap_or_default()
}

/// Reads up to the end of the input or of the object, because the pipe may stay open. `None` after a timeout.
#[cfg(unix)]
fn read() -> Option<Vec<u8>> {
    use crate::input::piecemeal::{self, Bounds};

    let bounds = Bounds { size: LIMIT, first: FIRST_BYTE_TIMEOUT, all: TIMEOUT };
    let mut object = ObjectEnd::default();
    piecemeal::read(io::stdin(), false, &bounds, |piece| object.is_reached(piece)).ok()
}

#[cfg(not(unix))]
fn read() -> Option<Vec<u8>> {
    use std::io::Read as _;

    let (sender, receiver) = std::sync::mpsc::channel();
    // A blocking read cannot be cancelled, so it runs in a thread that ends with the program.
    std::thread::spawn(move || {
        let mut object = ObjectEnd::default();
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        while let Ok(read) = io::stdin().lock().read(&mut piece) {
            bytes.extend_from_slice(&piece[..read]);
            if read == 0 || bytes.len() > LIMIT || object.is_reached(&piece[..read]) {
                let _ = sender.send(bytes);
                break;
            }
        }
    });
    receiver.recv_timeout(FIRST_BYTE_TIMEOUT).ok()
}

/// Finds the end of a JSON object that arrives in pieces.
#[derive(Debug, Default)]
struct ObjectEnd {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl ObjectEnd {
    /// Whether the object ends in this piece, or the input is not an object.
    fn is_reached(&mut self, piece: &[u8]) -> bool {
        piece.iter().any(|byte| self.ends_at(*byte))
    }

    fn ends_at(&mut self, byte: u8) -> bool {
        if self.is_in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'{' | b'[' if self.depth > 0 || byte == b'{' => self.depth += 1,
            _ if self.depth == 0 => return !byte.is_ascii_whitespace(),
            b'"' => self.is_in_string = true,
            b'}' | b']' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_parsed() {
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
    fn an_empty_name_is_ignored() {
        for empty in ["", " "] {
            let session = format!(
                r#"{{"model":{{"display_name":"{empty}"}},"workspace":{{"current_dir":"{empty}"}}}}"#
            );

            let session = Session::parse(session.into_bytes());

            assert_eq!((session.model, session.dir), (None, None), "{empty:?}");
        }
    }

    #[test]
    fn a_changed_part_does_not_affect_the_others() {
        let session = Session::parse(br#"{"model":"opus","cost":{"total_cost_usd":2}}"#.to_vec());

        assert_eq!((session.model.as_deref(), session.cost), (None, Some(2.0)));
    }

    #[test]
    fn input_after_the_session_is_ignored() {
        let session = Session::parse(b"{\"cost\":{\"total_cost_usd\":2}}\n{".to_vec());

        assert_eq!((session.cost, session.bytes.last()), (Some(2.0), Some(&b'}')));
    }

    /// The number of the piece in which the object ends.
    fn pieces_until_end(pieces: &[&str]) -> Option<usize> {
        let mut object = ObjectEnd::default();
        pieces.iter().position(|piece| object.is_reached(piece.as_bytes()))
    }

    #[test]
    fn an_object_ends_with_its_last_brace() {
        assert_eq!(pieces_until_end(&[" \n{", "\"a\":[{}", "]", "}"]), Some(3));
        assert_eq!(pieces_until_end(&["{}"]), Some(0));
        assert_eq!(pieces_until_end(&["{\"a\":{}"]), None);
    }

    #[test]
    fn a_brace_in_a_string_does_not_end_the_object() {
        assert_eq!(pieces_until_end(&["{\"a\":\"}", "\\\"}", "\\", "\\\"", "}"]), Some(4));
    }

    #[test]
    fn input_without_an_object_is_not_read_further() {
        for text in ["hello", "[1", "\0\0", "}"] {
            assert_eq!(pieces_until_end(&[text]), Some(0), "{text:?}");
        }
        assert_eq!(pieces_until_end(&["  "]), None);
    }

    #[test]
    fn other_input_is_not_a_session() {
        for bytes in [&b""[..], b"hello", b"[1]", b"{", b"\xff"] {
            assert!(!Session::parse(bytes.to_vec()).is_present(), "{bytes:?}");
        }
    }
}
