//! The certificate authority of one run. Its key exists only in the memory of this process.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

/// How long the certificates are valid.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The certificates become valid before their creation, because the clock may be set back.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Leaves time for a handshake that begins shortly before the certificates expire.
const LAST_MINUTES: Duration = Duration::from_secs(300);

/// A certificate authority for some hosts, and the server certificate that it signed for them.
pub(super) struct Authority {
    pem: String,
    acceptor: TlsAcceptor,
    expires_at: Timestamp,
}

impl Authority {
    /// Creates an authority whose name constraints (RFC 5280, section 4.2.1.10) limit it to these hosts.
    ///
    /// # Errors
    ///
    /// The error of the certificate library for a host that a certificate cannot contain.
    pub(super) fn new(hosts: &BTreeSet<&str>, now: Timestamp) -> Result<Self, rcgen::Error> {
        let hosts: Vec<_> = hosts.iter().map(|host| host.trim_matches(['[', ']']).to_owned()).collect();
        let expires_at = now + LIFETIME;
        let params = |names: Vec<String>| {
            let mut params = CertificateParams::new(names)?;
            params.not_before = date(now - BACKDATED);
            params.not_after = date(expires_at);
            params.use_authority_key_identifier_extension = true;
            Ok::<_, rcgen::Error>(params)
        };
        let mut own = params(Vec::new())?;
        own.distinguished_name.push(DnType::CommonName, "quota wrap, for one command only");
        own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        own.name_constraints = Some(limited_to(&hosts));
        let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate()?)?;

        let mut server = params(hosts)?;
        server.distinguished_name.push(DnType::CommonName, "quota wrap");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.expect("the provider supports the default versions").with_no_client_auth();
        let chain = vec![certificate.der().clone(), issuer.der().clone()];
        let mut config = config.with_single_cert(chain, key).expect("the key belongs to the certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { pem: issuer.pem(), acceptor: TlsAcceptor::from(Arc::new(config)), expires_at })
    }

    /// The certificate of the authority, as PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Accepts TLS in place of the hosts; `None` once the certificates have expired. The hosts are then tunnelled like
    /// all others.
    pub(super) fn acceptor(&self, now: Timestamp) -> Option<&TlsAcceptor> {
        (now < self.expires_at - LAST_MINUTES).then_some(&self.acceptor)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Constraints that permit only these names and addresses. Names of a kind without a constraint would be unrestricted,
/// so each kind has one.
fn limited_to(hosts: &[String]) -> NameConstraints {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for host in hosts {
        match host.parse::<IpAddr>() {
            Ok(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                addresses.push(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits)));
            }
            Err(_) => names.push(GeneralSubtree::DnsName(host.clone())),
        }
    }
    if names.is_empty() {
        // A reserved name that no host can have (RFC 6761).
        names.push(GeneralSubtree::DnsName("quota.invalid".to_owned()));
    }
    let excluded_subtrees = match addresses.is_empty() {
        true => vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
        false => Vec::new(),
    };
    NameConstraints { permitted_subtrees: names.into_iter().chain(addresses).collect(), excluded_subtrees }
}

fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).expect("a timestamp is before the year 10000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn each_kind_of_name_is_limited() {
        let limits = |hosts: &[&str]| {
            let limits = limited_to(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>());
            (limits.permitted_subtrees.len(), limits.excluded_subtrees.len())
        };

        assert_eq!(limits(&["api.anthropic.com"]), (1, 2));
        assert_eq!(limits(&["api.anthropic.com", "10.0.0.7", "::1"]), (3, 0));
        assert_eq!(limits(&["10.0.0.7"]), (2, 0));
    }

    #[test]
    fn after_a_day_no_tls_is_opened() {
        let authority = Authority::new(&BTreeSet::from(["api.anthropic.com"]), at(0)).unwrap();

        assert!(authority.acceptor(at(24 * 3600 - 301)).is_some());
        assert!(authority.acceptor(at(24 * 3600 - 300)).is_none());
    }

    #[test]
    fn each_run_has_its_own_authority() {
        let pems = [0, 1].map(|_| Authority::new(&BTreeSet::from(["10.0.0.7", "[::1]"]), at(0)).unwrap().pem);

        assert!(pems[0].starts_with("-----BEGIN CERTIFICATE-----") && !pems[0].contains("KEY"));
        assert_ne!(pems[0], pems[1]);
    }
}
