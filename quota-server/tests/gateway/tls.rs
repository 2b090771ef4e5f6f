//! TLS on the TCP sockets of a gateway.

use std::sync::Arc;

use quota_server::{Listener, Server, Tls};
use quota_sim::{Account, Window};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::support::Setup;

fn connector(root: CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    TlsConnector::from(Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth()))
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_answered() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let gateway = Setup::new([Account::new("main").windows([Window::five_hour().used(62.0)])]).start().await;
    let tls = Tls::from_pem(pair.cert.pem().as_bytes(), pair.signing_key.serialize_pem().as_bytes()).unwrap();
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.display("https")["https://".len()..].to_owned();
    let mut server = JoinSet::new();
    server.spawn(Server::new(gateway.gateway.clone(), vec![listener]).tls(tls).run(std::future::pending()));

    let stream = TcpStream::connect(&address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(pair.cert.der().clone()).connect(name, stream).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;

    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 "));
    // Without TLS there is no answer.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200"));
}
