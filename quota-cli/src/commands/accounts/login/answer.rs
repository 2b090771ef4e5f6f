//! Waits for the code of a login: from the browser, which the provider redirects to a loopback address (RFC 8252,
//! section 7.3), or as pasted text.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use quota::http::{Authorization, AuthorizationError};
use quota::{Clock, Secret};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::{Host, Url};

use crate::exit::{CliError, Exit};
use crate::{io_cause, term};

/// The path of the redirect address, unless the user configured another one.
const PATH: &str = "/callback";
/// How long the browser may take to read its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The input limit, which is longer than any address with a code.
const MAX_LINE: u64 = 16 * 1024;

/// The address to which the provider redirects the browser.
#[derive(Debug)]
pub(super) struct Redirect {
    pub(super) url: String,
    path: String,
    /// `None` if the user must paste the code, because the address is not on this machine.
    listener: Option<TcpListener>,
}

/// The code of a login.
pub(super) struct Answer {
    pub(super) code: Secret,
}

/// The message that the server and the reader of pasted lines send.
type Received = Result<Secret, AuthorizationError>;

impl Redirect {
    /// Listens on the configured loopback address, or on any free port.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the port is not available.
    pub(super) async fn open(configured: Option<&Url>) -> Result<Self, CliError> {
        let Some(url) = configured else {
            let listener = listen(0).await?;
            let port = listener.local_addr().map_err(|error| unavailable(0, &error))?.port();
            let url = format!("http://127.0.0.1:{port}{PATH}");
            return Ok(Self { url, path: PATH.to_owned(), listener: Some(listener) });
        };
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            _ => false,
        };
        let port = url.port().filter(|_| is_loopback && url.scheme() == "http");
        let listener = match port {
            Some(port) => Some(listen(port).await?),
            None => None,
        };
        Ok(Self { url: url.as_str().to_owned(), path: url.path().to_owned(), listener })
    }

    pub(super) fn is_listening(&self) -> bool {
        self.listener.is_some()
    }

    /// Waits for the browser or for pasted text, whichever comes first. Text without a code of this login is reported, and the wait
    /// continues.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the provider denies the login, or if no code can arrive.
    pub(super) async fn wait_for_code(self, login: &Arc<Authorization>) -> Result<Answer, CliError> {
        let (sender, received) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        read_lines(Arc::clone(login), sender.clone());
        if let Some(listener) = self.listener {
            let callback = Callback { path: self.path, login: Arc::clone(login), sender };
            let app = Router::new().fallback(answer_browser).with_state(Arc::new(callback));
            let stopped = async { drop(stopped.await) };
            server.spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        } else {
            drop(sender);
        }
        let answer = first_code(received).await;
        // Let the browser receive its response before the server ends.
        drop(stop);
        let _ = Clock::system().bounded(RESPONSE_TIMEOUT, server.join_next()).await;
        answer
    }
}

/// The first code, or the provider's denial.
async fn first_code(mut received: mpsc::UnboundedReceiver<Received>) -> Result<Answer, CliError> {
    while let Some(answer) = received.recv().await {
        match answer {
            Ok(code) => return Ok(Answer { code }),
            Err(error @ AuthorizationError::Denied { .. }) => {
                return Err(CliError::new(Exit::Unavailable, error.to_string()));
            }
            Err(error) => term::eprint(&format!("quota: {error}\n")),
        }
    }
    let why = "standard input ended without a code; paste it, or log in at a terminal";
    Err(CliError::new(Exit::NoInput, why))
}

/// The state of the loopback server.
struct Callback {
    path: String,
    login: Arc<Authorization>,
    sender: mpsc::UnboundedSender<Received>,
}

/// Answers one request of the browser. A request from another page lacks the state of this login, and has no effect.
async fn answer_browser(
    State(callback): State<Arc<Callback>>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    if uri.path() != callback.path {
        return (StatusCode::NOT_FOUND, "not found\n");
    }
    let result = callback.login.code(&format!("?{}", query.unwrap_or_default()));
    let reply = match &result {
        Ok(_) => (StatusCode::OK, "The login is complete. You can close this window.\n"),
        Err(AuthorizationError::Denied { .. }) => (StatusCode::OK, "The login was refused.\n"),
        Err(_) => return (StatusCode::BAD_REQUEST, "This address belongs to another login.\n"),
    };
    let _ = callback.sender.send(result);
    reply
}

/// Reads pasted lines in a separate thread, because a terminal read cannot be cancelled.
fn read_lines(login: Arc<Authorization>, sender: mpsc::UnboundedSender<Received>) {
    std::thread::spawn(move || {
        loop {
            let mut line = String::new();
            let read = io::Read::take(io::stdin().lock(), MAX_LINE);
            match io::BufRead::read_line(&mut io::BufReader::with_capacity(1, read), &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) if sender.send(login.code(&line)).is_err() => return,
                Ok(_) => {}
            }
        }
    });
}

async fn listen(port: u16) -> Result<TcpListener, CliError> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| unavailable(port, &error))
}

fn unavailable(port: u16, error: &io::Error) -> CliError {
    let why = format!(
        "could not listen on 127.0.0.1:{port}: {}; end the other login, or set another redirect_url",
        io_cause::plain(error)
    );
    CliError::new(Exit::Unavailable, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_configured_address_a_free_port_is_used() {
        let (one, other) = (Redirect::open(None).await.unwrap(), Redirect::open(None).await.unwrap());

        assert!(one.is_listening() && other.is_listening());
        assert_ne!(one.url, other.url);
    }

    #[tokio::test]
    async fn an_address_on_another_host_is_pasted() {
        let url = "https://example.com/callback".parse().unwrap();

        let redirect = Redirect::open(Some(&url)).await.unwrap();

        assert!(!redirect.is_listening());
        assert_eq!(redirect.url, "https://example.com/callback");
    }
}
