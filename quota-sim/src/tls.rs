//! Serves simulators over TLS in place of real hosts: a proxy for clients, and a private certificate authority.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The maximum length of a request to the proxy.
const MAX_HEAD: usize = 8 * 1024;

/// Named hosts with TLS, which clients reach through a proxy: `HTTPS_PROXY`. Other hosts cannot be reached through it.
///
/// A client must trust [`certificate`](Self::certificate). Each connection is passed on to the server of its host without TLS.
#[must_use = "a dropped front stops listening"]
pub struct TlsFront {
    certificate: String,
    address: SocketAddr,
    hosts: Arc<Hosts>,
    _listening: JoinSet<()>,
}

struct Hosts {
    servers: BTreeMap<String, SocketAddr>,
    acceptor: TlsAcceptor,
    connections: Mutex<BTreeMap<String, u64>>,
}

impl TlsFront {
    /// Listens on a loopback port. Each host has a name and the address of its server; `protocols` are those of ALPN, such as `h2`.
    ///
    /// # Errors
    ///
    /// The system's error, or that of the certificate library for an invalid name.
    pub async fn start<'a>(
        hosts: impl IntoIterator<Item = (&'a str, SocketAddr)>,
        protocols: &[&str],
    ) -> io::Result<Self> {
        let servers: BTreeMap<_, _> = hosts.into_iter().map(|(name, at)| (name.to_owned(), at)).collect();
        let (certificate, mut config) =
            certificates(servers.keys().cloned().collect()).map_err(io::Error::other)?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hosts = Arc::new(Hosts { servers, acceptor, connections: Mutex::default() });
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, Arc::clone(&hosts)));
        Ok(Self { certificate, address, hosts, _listening: listening })
    }

    /// The certificate of the authority, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The URL for `HTTPS_PROXY`.
    #[must_use]
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections to a host were accepted.
    #[must_use]
    pub fn connections(&self, host: &str) -> u64 {
        self.hosts.connections.lock().get(host).copied().unwrap_or(0)
    }
}

impl fmt::Debug for TlsFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFront").field("address", &self.address).finish_non_exhaustive()
    }
}

fn certificates(names: Vec<String>) -> Result<(String, ServerConfig), rcgen::Error> {
    let mut own = CertificateParams::new(Vec::new())?;
    own.distinguished_name.push(DnType::CommonName, "the authority of simulated hosts");
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(names)?;
    server.use_authority_key_identifier_extension = true;
    let certificate = server.signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.expect("the provider supports the default versions").with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_single_cert(vec![certificate.der().clone()], key);
    Ok((issuer.pem(), config.expect("the key belongs to the certificate")))
}

async fn accept(listener: TcpListener, hosts: Arc<Hosts>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let hosts = Arc::clone(&hosts);
        connections.spawn(async move {
            // A client may disconnect at any time.
            let _ = serve(stream, &hosts).await;
        });
    }
}

async fn serve(mut client: TcpStream, hosts: &Hosts) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let host = target.and_then(|target| target.strip_suffix(":443"));
    let Some((host, address)) = host.and_then(|host| hosts.servers.get_key_value(host)) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    };
    *hosts.connections.lock().entry(host.clone()).or_default() += 1;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut client = hosts.acceptor.accept(client).await?;
    let mut server = TcpStream::connect(address).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
