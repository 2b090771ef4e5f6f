//! TLS with a private certificate authority, and with client certificates.

use std::error::Error as _;
use std::path::Path;

use quota_core::store::StoreError;
use quota_core::{QuotaStore, Secret};
use quota_redis::{RedisOptions, RedisStore};
use redis_harness::{Server, TestCa};

use crate::env::{applied, key, open, swap};

/// A server that accepts only TLS.
pub(crate) fn server(clients_too: bool) -> (TestCa, Server) {
    let authority = TestCa::new();
    let server = Server::builder().with_tls(&authority, clients_too).start();
    (authority, server)
}

/// Options that satisfy the server.
pub(crate) fn options(authority: &TestCa, server: &Server) -> RedisOptions {
    let identity = authority.issue("a client");
    RedisOptions::single("127.0.0.1", server.port())
        .authority(authority.certificate())
        .client_certificate(identity.certificate, Secret::new(identity.key))
}

async fn error(store: &RedisStore) -> StoreError {
    store.read(&key("main")).await.expect_err("the connection must be rejected")
}

#[tokio::test]
async fn the_url_may_name_certificate_files() {
    let (_, server) = server(true);
    let folder = server.folder().display();
    let url = format!(
        "rediss://127.0.0.1:{}?ca={folder}/ca.pem&cert={folder}/cert.pem&key={folder}/key.pem",
        server.port()
    );

    applied(swap(&open(&url), &key("main"), None, "one").await);

    assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "the process has no default provider");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_trusted() {
    let (_, server) = server(false);
    let store = options(&TestCa::new(), &server).open().unwrap();

    let error = error(&store).await;

    assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
    assert!(error.to_string().contains("is not trusted; set its CA certificate with ?ca="), "{error}");
}

#[tokio::test]
async fn the_authorities_of_the_system_do_not_cover_a_private_one() {
    let (_, server) = server(false);
    let store = open(&format!("rediss://127.0.0.1:{}", server.port()));

    assert!(matches!(error(&store).await, StoreError::Rejected { .. }));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let (authority, server) = server(false);
    let store =
        RedisOptions::single("localhost", server.port()).authority(authority.certificate()).open().unwrap();

    assert!(matches!(error(&store).await, StoreError::Rejected { .. }));
}

#[tokio::test]
async fn a_missing_client_certificate_is_reported() {
    let (authority, server) = server(true);
    let store =
        RedisOptions::single("127.0.0.1", server.port()).authority(authority.certificate()).open().unwrap();

    let error = error(&store).await;

    assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
    assert!(error.to_string().contains("client certificate, set ?cert="), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error() {
    let server = Server::start();
    let store = open(&format!("rediss://127.0.0.1:{}", server.port()));

    let _ = error(&store).await;
}

#[tokio::test]
async fn a_client_without_tls_is_an_error() {
    let (_, server) = server(false);
    let store = open(&server.url());

    assert!(error(&store).await.is_transient());
}

#[test]
fn an_invalid_certificate_file_is_named() {
    let missing = RedisStore::open("rediss://host?ca=/nowhere/ca.pem").unwrap_err().to_string();
    assert_eq!(missing, "could not read the CA certificate from /nowhere/ca.pem");

    let empty = RedisOptions::single("host", 1).authority("nothing").open().unwrap_err().to_string();
    assert_eq!(empty, "the CA certificate is not a PEM certificate");
}

#[test]
fn a_certificate_is_read_from_a_regular_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("ca.pem");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();

    let not_regular = "not a regular file";
    for (path, why) in
        [(&*pipe, not_regular), (folder.path(), "is a directory"), (Path::new("/dev/zero"), not_regular)]
    {
        let error = RedisStore::open(&format!("rediss://host?ca={}", path.display())).unwrap_err();

        let expected = format!("could not read the CA certificate from {}", path.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some(why));
    }
}
