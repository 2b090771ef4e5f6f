//! The settings of a store, as plain data.
//! `from_url` parses them from a URL.

use std::borrow::Cow;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use quota_core::file;
#[cfg(feature = "tls")]
use quota_core::secret::SecretBuffer;
use quota_core::{Clock, Secret};

use crate::address::{Address, REDIS_PORT, SENTINEL_PORT};

/// The servers of a store, and its settings.
///
/// Most programs need only [`RedisStore::open`](crate::RedisStore::open) and a URL. Options are for settings that should not be
/// in a URL.
///
/// ```
/// use quota_redis::RedisOptions;
/// use quota_core::Secret;
///
/// let options = RedisOptions::from_url(&"redis+cluster://10.0.0.1:7000?node=10.0.0.2:7000".parse()?)?
///     .user("quota")
///     .password(Secret::new("hunter2"))
///     .prefix("team-a");
/// assert!(!format!("{options:?}").contains("hunter2"));
///
/// // The first call connects.
/// let store = options.open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    pub(crate) servers: Servers,
    pub(crate) settings: Settings,
    pub(crate) tls: Option<Tls>,
}

/// The configured servers.
#[derive(Debug, Clone)]
pub(crate) enum Servers {
    Single(Address),
    Cluster(Vec<Address>),
    Sentinel { sentinels: Vec<Address>, master: Arc<str> },
}

/// The settings of every connection.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) database: u32,
    pub(crate) prefix: Arc<str>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) unsubscribe_after: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) clock: Clock,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// The certificates for TLS.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS without the feature is an error"))]
pub(crate) struct Tls {
    pub(crate) authority: Option<Pem>,
    pub(crate) client: Option<(Pem, Pem)>,
}

/// Certificates or a key, as PEM.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS without the feature is an error"))]
pub(crate) enum Pem {
    File(PathBuf),
    Text(Secret),
}

/// The upper bound of every duration. Clocks overflow beyond it.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            login: Login::default(),
            sentinel_login: Login::default(),
            database: 0,
            prefix: "quota".into(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            unsubscribe_after: Duration::from_secs(120),
            poll_interval: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(5),
            clock: Clock::system(),
        }
    }
}

impl RedisOptions {
    /// One server.
    pub fn single(host: &str, port: u16) -> Self {
        Self::on(Servers::Single(Address::tcp(host, port)))
    }

    /// One server on this machine, through its unix socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::on(Servers::Single(Address::Unix(socket.into())))
    }

    /// A cluster, through any of its nodes (`host` or `host:port`); they report the others.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if the list is empty or an address is not valid.
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, RedisOpenError> {
        Ok(Self::on(Servers::Cluster(addresses(nodes, REDIS_PORT)?)))
    }

    /// The master with this name, as its sentinels (`host` or `host:port`) report it. After a failover this is the new master.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if the list is empty or an address is not valid.
    pub fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        master: &str,
    ) -> Result<Self, RedisOpenError> {
        let sentinels = addresses(sentinels, SENTINEL_PORT)?;
        Ok(Self::on(Servers::Sentinel { sentinels, master: master.into() }))
    }

    pub(crate) fn on(servers: Servers) -> Self {
        Self { servers, settings: Settings::default(), tls: None }
    }

    /// The user to log in as. Without a user, the password is that of the user `default`.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.settings.login.user = Some(name.into());
        self
    }

    /// The password of the user.
    pub fn password(mut self, password: Secret) -> Self {
        self.settings.login.password = Some(password);
        self
    }

    /// The user and password for the sentinels, if they require them. The login for the servers is independent of these.
    pub fn sentinel_login(mut self, user: Option<&str>, password: Secret) -> Self {
        self.settings.sentinel_login = Login { user: user.map(str::to_owned), password: Some(password) };
        self
    }

    /// The number of the database, 0 by default. A cluster has only database 0.
    pub fn database(mut self, number: u32) -> Self {
        self.settings.database = number;
        self
    }

    /// The prefix of all keys and channels, `quota` by default. Stores with different prefixes share nothing.
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        self.settings.prefix = prefix.as_ref().into();
        self
    }

    /// The timeout for connecting, including handshake and sentinels: 1 s by default.
    pub fn connect_timeout(mut self, duration: Duration) -> Self {
        self.settings.connect_timeout = duration;
        self
    }

    /// The timeout for a reply, after which the call fails: 500 ms by default. If no byte has arrived in that time, the
    /// connection is replaced. A slow server keeps its connection.
    pub fn response_timeout(mut self, duration: Duration) -> Self {
        self.settings.response_timeout = duration;
        self
    }

    /// How long a subscription outlives its last waiter: 2 minutes by default.
    pub fn unsubscribe_after(mut self, duration: Duration) -> Self {
        self.settings.unsubscribe_after = duration;
        self
    }

    /// How often the store polls the version of an awaited document if the server rejects subscriptions: every second by
    /// default, with 25 % jitter.
    pub fn poll_interval(mut self, duration: Duration) -> Self {
        self.settings.poll_interval = duration;
        self
    }

    /// How often the store probes a connection with waiters, by one short command: every 5 s by default, with 25 % jitter. This
    /// bounds the time until a caller that only waits notices a frozen server.
    pub fn keepalive_interval(mut self, duration: Duration) -> Self {
        self.settings.keepalive_interval = duration;
        self
    }

    pub(crate) fn check(&self) -> Result<(), RedisOpenError> {
        let settings = &self.settings;
        let is_prefix_valid = !settings.prefix.is_empty()
            && settings.prefix.len() <= 64
            && settings.prefix.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte));
        let durations = [
            settings.connect_timeout,
            settings.response_timeout,
            settings.poll_interval,
            settings.keepalive_interval,
        ];
        let longest = settings.unsubscribe_after.max(durations.into_iter().max().unwrap_or_default());
        let is_cluster = matches!(self.servers, Servers::Cluster(_));
        let is_socket = matches!(self.servers, Servers::Single(Address::Unix(_)));
        let lacks_password = |login: &Login| login.user.is_some() && login.password.is_none();
        for (is_invalid, reason) in [
            (!is_prefix_valid, "the prefix must be 1 to 64 visible ASCII characters, none of {}*?[]\\"),
            (durations.iter().any(Duration::is_zero), "a timeout or interval must be greater than zero"),
            (longest > MAX_DURATION, "a timeout or interval must be at most ten years"),
            (is_cluster && settings.database != 0, "a redis cluster has only database 0"),
            (self.tls.is_some() && is_socket, "a unix socket cannot use TLS; remove the TLS settings"),
            (lacks_password(&settings.login), "a redis user needs a password: redis://user:password@host"),
        ] {
            if is_invalid {
                return Err(RedisOpenError::setting(reason));
            }
        }
        Ok(())
    }
}

#[cfg(feature = "tls")]
impl RedisOptions {
    /// Uses TLS, and trusts the certificate authorities of the system.
    pub fn tls(mut self) -> Self {
        self.tls.get_or_insert_default();
        self
    }

    /// Uses TLS, and trusts only these CA certificates, as PEM.
    pub fn authority(mut self, certificates: impl Into<String>) -> Self {
        self.tls.get_or_insert_default().authority = Some(Pem::Text(Secret::new(certificates)));
        self
    }

    /// Uses TLS, and trusts only the CA certificates in this file.
    pub fn authority_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.get_or_insert_default().authority = Some(Pem::File(path.into()));
        self
    }

    /// Uses TLS with this client certificate and its key, as PEM.
    pub fn client_certificate(mut self, certificate: impl Into<String>, key: Secret) -> Self {
        let certificate = Pem::Text(Secret::new(certificate));
        self.tls.get_or_insert_default().client = Some((certificate, Pem::Text(key)));
        self
    }

    /// Uses TLS with the client certificate and the key in these files.
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.get_or_insert_default().client =
            Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }
}

/// Parses nodes, each written as `host` or `host:port`.
pub(crate) fn addresses<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    default_port: u16,
) -> Result<Vec<Address>, RedisOpenError> {
    let invalid = || RedisOpenError::setting("a node must be host or host:port");
    let found: Vec<_> = texts
        .into_iter()
        .map(|text| Address::parse(text, default_port).ok_or_else(invalid))
        .collect::<Result<_, _>>()?;
    if found.is_empty() { Err(RedisOpenError::setting("name at least one node")) } else { Ok(found) }
}

#[cfg(feature = "tls")]
impl Pem {
    pub(crate) fn read(&self, what: &'static str) -> Result<SecretBuffer, RedisOpenError> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec().into()),
            Self::File(path) => {
                file::open(path).and_then(|file| file::read(file, MAX_PEM_LEN)).map_err(|error| {
                    RedisOpenError::tls(format!("could not read {what} from {}", path.display()), error)
                })
            }
        }
    }
}

/// The size limit, larger than the certificates of all public authorities.
#[cfg(feature = "tls")]
const MAX_PEM_LEN: u64 = 16 * 1024 * 1024;

/// Why a store cannot be created. It never contains the URL or a password.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RedisOpenError {
    /// The text is not a URL.
    #[error("not a redis URL; try redis://127.0.0.1:6379")]
    #[non_exhaustive]
    InvalidUrl {
        /// The parse error.
        #[source]
        error: url::ParseError,
    },
    /// A setting, in the URL or in code, is not valid.
    #[error("{reason}")]
    #[non_exhaustive]
    Setting {
        /// The setting, and the expected value.
        reason: Cow<'static, str>,
    },
    /// A certificate or key cannot be used.
    #[error("{reason}")]
    #[non_exhaustive]
    Tls {
        /// The certificate or key, and its problem.
        reason: Cow<'static, str>,
        /// The underlying error.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl RedisOpenError {
    pub(crate) fn setting(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Setting { reason: reason.into() }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(
        reason: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Tls { reason: reason.into(), source: Arc::new(source) }
    }
}
