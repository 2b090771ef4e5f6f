//! Certificates for one test, created when it runs. The keys are deleted with the folder of the test.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A private certificate authority.
#[derive(Debug)]
pub struct TestCa {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its private key, as PEM.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl TestCa {
    /// Creates an authority that no client or server trusts yet.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each authority has its own key")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("an empty list of names is valid");
        // Each name must be different. Otherwise an issued certificate would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be generated");
        let certificate = params.self_signed(&key).expect("the authority can sign its certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// The CA certificate, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate for a host or a client.
    ///
    /// # Panics
    ///
    /// If the name is not valid in a certificate.
    #[must_use]
    pub fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key can be generated");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is valid");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority can sign it").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}
