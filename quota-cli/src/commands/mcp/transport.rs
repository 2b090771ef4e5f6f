//! Messages on standard input and output: one JSON document per line. The answer to an invalid line is a protocol
//! error.
//!
//! The transport of rmcp would silently drop such lines.

use std::fmt;
use std::io;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

/// The maximum length of a line, in bytes. The arguments of the tools are short.
const MAX_LINE: usize = 1024 * 1024;
/// The number of queued messages. If the client does not read them, the server reads no more requests.
const MAX_QUEUED: usize = 16;

/// The connection to the client.
pub(super) struct LineTransport<R> {
    lines: FramedRead<R, Lines>,
    /// `None` once the connection is closed.
    output: Option<mpsc::Sender<ServerJsonRpcMessage>>,
    writer: JoinSet<()>,
    /// The answer to an invalid line. It is stored here because the future of `receive` may be dropped.
    answer: Option<ErrorData>,
    answered_id: Option<RequestId>,
    /// Whether the client has sent a request. Other messages before the first one are ignored.
    has_begun: bool,
    /// Cancelled when the input ends.
    closed: CancellationToken,
}

impl<R> fmt::Debug for LineTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineTransport").finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> LineTransport<R> {
    pub(super) fn new(
        input: R,
        output: impl AsyncWrite + Send + Unpin + 'static,
        closed: CancellationToken,
    ) -> Self {
        let (sender, messages) = mpsc::channel(MAX_QUEUED);
        let mut writer = JoinSet::new();
        writer.spawn(write(messages, output));
        let lines = FramedRead::new(input, Lines(LinesCodec::new_with_max_length(MAX_LINE)));
        Self {
            lines,
            output: Some(sender),
            writer,
            answer: None,
            answered_id: None,
            has_begun: false,
            closed,
        }
    }

    /// The next message, or the answer to an invalid line; `None` at the end.
    async fn next(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let permit = self.output.as_ref()?.reserve().await.ok()?;
            if let Some(error) = self.answer.take() {
                permit.send(ServerJsonRpcMessage::error(error, self.answered_id.take()));
                continue;
            }
            drop(permit);
            let (error, id) = match self.lines.next().await?.ok()? {
                Line::Text(text) => match parse(&text) {
                    Ok(Some(message)) => {
                        self.has_begun |= matches!(message, JsonRpcMessage::Request(_));
                        if self.has_begun {
                            return Some(message);
                        }
                        continue;
                    }
                    Ok(None) => continue,
                    Err((error, id)) => (error, id),
                },
                Line::TooLong => {
                    let line = format!("a message is longer than {MAX_LINE} bytes");
                    (ErrorData::invalid_request(line, None), None)
                }
                Line::NotUtf8 => (ErrorData::parse_error("a message is not UTF-8", None), None),
            };
            (self.answer, self.answered_id) = (Some(error), id);
        }
    }
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for LineTransport<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let output = self.output.clone();
        async move {
            let output = output.ok_or(io::ErrorKind::NotConnected)?;
            output.send(message).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let next = self.next().await;
        if next.is_none() {
            self.closed.cancel();
        }
        next
    }

    /// Writes the queued messages.
    async fn close(&mut self) -> Result<(), Self::Error> {
        self.output = None;
        while self.writer.join_next().await.is_some() {}
        Ok(())
    }
}

/// Writes messages until the sender is dropped or the client stops accepting them.
async fn write(mut messages: mpsc::Receiver<ServerJsonRpcMessage>, mut output: impl AsyncWrite + Unpin) {
    while let Some(message) = messages.recv().await {
        let Ok(mut line) = serde_json::to_vec(&message) else { continue };
        line.push(b'\n');
        if output.write_all(&line).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

/// Parses a message; `None` if it needs no answer.
fn parse(line: &str) -> Result<Option<ClientJsonRpcMessage>, (ErrorData, Option<RequestId>)> {
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(line)
        .map_err(|_| (ErrorData::parse_error("a message is not a JSON document", None), None))?;
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
    let is_notification = value.get("method").is_some_and(Value::is_string) && value.get("id").is_none();
    match serde_json::from_value(value) {
        Ok(message) => Ok(Some(message)),
        // Clients send notifications that this version does not know.
        Err(_) if is_notification => Ok(None),
        Err(_) => Err((ErrorData::invalid_request("a message is no request of JSON-RPC 2.0", None), id)),
    }
}

/// A line of the input.
enum Line {
    Text(String),
    TooLong,
    NotUtf8,
}

/// Splits the input into lines. Unlike its inner codec, it continues after an invalid line.
struct Lines(LinesCodec);

impl Lines {
    fn line(decoded: Result<Option<String>, LinesCodecError>) -> io::Result<Option<Line>> {
        match decoded {
            Ok(text) => Ok(text.map(Line::Text)),
            Err(LinesCodecError::MaxLineLengthExceeded) => Ok(Some(Line::TooLong)),
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Some(Line::NotUtf8))
            }
            Err(LinesCodecError::Io(error)) => Err(error),
        }
    }
}

impl Decoder for Lines {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Line>> {
        Self::line(self.0.decode(bytes))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Line>> {
        Self::line(self.0.decode_eof(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output for this input, and the number of received messages.
    async fn exchange(input: &[u8]) -> (usize, Vec<Value>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let mut transport = LineTransport::new(input, server, CancellationToken::new());
        let mut received = 0;
        while transport.receive().await.is_some() {
            received += 1;
        }
        assert!(transport.closed.is_cancelled());
        transport.close().await.unwrap();
        let lines = FramedRead::new(client, LinesCodec::new()).collect::<Vec<_>>().await;
        let answers = lines.into_iter().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        (received, answers.collect())
    }

    const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

    #[tokio::test]
    async fn a_line_that_is_no_message_is_answered_and_the_next_one_is_read() {
        let long = "x".repeat(MAX_LINE + 1);
        for (line, code) in [
            (b"nonsense".as_slice(), -32700),
            (b"{\"jsonrpc\":", -32700),
            (b"\xff\xfe", -32700),
            (b"[]", -32600),
            (b"5", -32600),
            (b"{}", -32600),
            (b"{\"id\":7,\"method\":\"ping\"}", -32600),
            (long.as_bytes(), -32600),
        ] {
            let (received, answers) = exchange(&[line, b"\n", PING.as_bytes(), b"\n"].concat()).await;

            assert_eq!((received, answers.len()), (1, 1), "{answers:?}");
            assert_eq!(answers[0]["error"]["code"], code, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn an_invalid_request_is_answered_with_its_id() {
        let (_, answers) = exchange(b"{\"id\":\"a\",\"method\":7}\n").await;

        assert_eq!(answers[0]["id"], "a");
    }

    #[tokio::test]
    async fn blank_lines_and_unknown_notifications_are_ignored() {
        let notification = r#"{"jsonrpc":"2.0","method":"$/unknown","params":[]}"#;

        let (_, answers) = exchange(format!("\n \r\n{notification}\n").as_bytes()).await;

        assert!(answers.is_empty(), "{answers:?}");
    }

    #[tokio::test]
    async fn a_message_without_a_line_break_at_the_end_is_read() {
        assert_eq!(exchange(PING.as_bytes()).await.0, 1);
    }

    #[tokio::test]
    async fn a_notification_before_the_first_request_is_ignored() {
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

        let (received, _) = exchange(format!("{notification}\n{PING}\n{notification}\n").as_bytes()).await;

        assert_eq!(received, 2);
    }
}
