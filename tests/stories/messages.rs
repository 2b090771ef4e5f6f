//! A client that sends messages to a simulated provider over one connection, without timers.

use quota_sim::Simulator;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Messages(BufReader<TcpStream>);

/// The response to a message.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Messages {
    pub(crate) async fn to(simulator: &Simulator) -> Self {
        let url = simulator.url();
        let stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a message to a model, with a cost in percent of the five-hour window.
    pub(crate) async fn send(&mut self, token: &str, model: &str, cost: f64) -> Response {
        let body = format!(r#"{{"cost":{cost},"model":"{model}"}}"#);
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut response = Response {
            status: self.line().await.split(' ').nth(1).unwrap().parse().unwrap(),
            ..Response::default()
        };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            if name == "content-length" {
                response.body = vec![0; value.parse().unwrap()];
            }
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        self.0.read_exact(&mut response.body).await.unwrap();
        response
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}
