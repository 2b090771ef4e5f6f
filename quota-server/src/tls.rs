//! The certificate of a gateway that serves TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The certificate chain and the key of the gateway.
#[derive(Clone)]
pub struct Tls(pub(crate) TlsAcceptor);

impl Tls {
    /// Reads a certificate chain and its key, both as PEM. Clients connect with TLS 1.2 or 1.3, and HTTP/1.1.
    ///
    /// # Errors
    ///
    /// [`InvalidCertificate`] if one of them is malformed, or if they do not match.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, InvalidCertificate> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(InvalidCertificate::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidCertificate::Key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.expect("the provider supports the default versions").with_no_client_auth();
        let mut config = config.with_single_cert(chain, key).map_err(|_| InvalidCertificate::DoNotMatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why a certificate cannot be used. It repeats no part of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCertificate {
    /// The chain is malformed.
    #[error("the certificate file has no valid PEM certificate")]
    Chain,
    /// The key is malformed.
    #[error("the key file has no valid PEM private key")]
    Key,
    /// The key belongs to another certificate, or cannot be used.
    #[error("the key does not belong to the certificate")]
    DoNotMatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_needs_its_own_key() {
        let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        let load = |chain: &str, key: &str| Tls::from_pem(chain.as_bytes(), key.as_bytes()).map(drop);

        assert_eq!(load(&one.cert.pem(), &one.signing_key.serialize_pem()), Ok(()));
        assert_eq!(
            load(&one.cert.pem(), &other.signing_key.serialize_pem()),
            Err(InvalidCertificate::DoNotMatch)
        );
        assert_eq!(load("", &one.signing_key.serialize_pem()), Err(InvalidCertificate::Chain));
        assert_eq!(load(&one.cert.pem(), ""), Err(InvalidCertificate::Key));
    }
}
