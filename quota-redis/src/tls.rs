//! TLS through rustls. It includes a crypto provider, so the process need not install one. `options` defines the
//! sources of certificates.

use std::io;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Address;
use crate::error::{Error, sanitize};
use crate::options::{Pem, RedisOpenError, Tls};

/// Builds the client configuration. It trusts the certificate authorities of the system, or only the configured ones.
///
/// # Errors
///
/// [`RedisOpenError`] if a file cannot be read, or contains no certificate or key.
pub(crate) fn config(tls: &Tls) -> Result<ClientConfig, RedisOpenError> {
    let unusable = |what: &'static str| move |error: rustls::Error| RedisOpenError::tls(what, error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable("could not set up TLS"))?;
    let builder: ConfigBuilder<ClientConfig, WantsClientCert> = match &tls.authority {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(authority, "the CA certificate")? {
                roots.add(certificate).map_err(unusable("could not use the CA certificate"))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_platform_verifier().map_err(unusable(
            "could not use the certificates of this system; set a CA certificate with ?ca=",
        ))?,
    };
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate, "the client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&key.read("the client key")?)
        .map_err(|_| RedisOpenError::setting("the client key is not a PEM private key"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(unusable("could not use the client certificate and its key"))
}

fn certificates(pem: &Pem, what: &'static str) -> Result<Vec<CertificateDer<'static>>, RedisOpenError> {
    let none = || RedisOpenError::setting(format!("{what} is not a PEM certificate"));
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem.read(what)?).collect::<Result<_, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

pub(crate) async fn connect(
    connector: &TlsConnector,
    address: &Address,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(address.host().to_owned())
        .map_err(|_| Error::rejected("the host is not a valid TLS server name; check the URL"))?;
    connector.connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                let reason = format!(
                    "the certificate of redis at {address} is not trusted; set its CA certificate with ?ca="
                );
                because(reason, &error)
            }
            Some(rustls::Error::AlertReceived(_)) => rejected(address),
            Some(_) => because(format!("TLS protocol error from redis at {address}"), &error),
            None => Error::unreachable(
                format!("redis at {address} closed the connection during the TLS handshake"),
                sanitize(&error),
            ),
        }
    })
}

/// The error if the server rejected the TLS handshake.
pub(crate) fn rejected(address: &Address) -> Error {
    Error::rejected(format!(
        "redis at {address} rejected the TLS handshake; if it requires a client certificate, set ?cert= and ?key="
    ))
}

fn because(reason: String, error: &io::Error) -> Error {
    let source = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    Error::Rejected { reason: reason.into(), source: source.map(|source| Arc::new(source) as _) }
}
