//! Opens a connection: the stream, TLS, the handshake, and the search for a master through sentinels. `node` decides when.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quota_core::Clock;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, Value, cmd};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::address::Address;
use crate::connection::{self, Connection};
use crate::error::{Error, sanitize};
use crate::options::{Login, Settings};
use crate::subscriptions::Subscriptions;
use crate::task;
use crate::watchdog::Watchdog;
use crate::write_coalescer::WriteCoalescer;

/// Opens connections with one set of settings.
pub(crate) struct Connector {
    settings: Settings,
    sharded: bool,
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsConnector>,
}

/// The server to connect to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The server at this address.
    Server(Address),
    /// The server that the sentinels report as the master of this name.
    Master { sentinels: Vec<Address>, name: Arc<str> },
}

/// A byte stream, encrypted or plain.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connector {
    #[cfg(feature = "tls")]
    pub(crate) fn new(settings: Settings, sharded: bool, tls: Option<rustls::ClientConfig>) -> Self {
        Self { settings, sharded, tls: tls.map(|tls| Arc::new(tls).into()) }
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn new(settings: Settings, sharded: bool) -> Self {
        Self { settings, sharded }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Connects, within the connect timeout.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Connection, Error> {
        let connecting = async {
            match target {
                Target::Server(address) => self.connect_to(address).await,
                Target::Master { sentinels, name } => self.connect_to_master(sentinels, name).await,
            }
        };
        let timeout =
            || Error::Unreachable { reason: "could not reach redis: timed out".into(), source: None };
        self.clock()
            .bounded(self.settings.connect_timeout, connecting)
            .await
            .unwrap_or_else(|| Err(timeout()))
    }

    /// Queries all sentinels concurrently, and connects to the first reported server that confirms that it is the
    /// master.
    async fn connect_to_master(&self, sentinels: &[Address], name: &Arc<str>) -> Result<Connection, Error> {
        let mut responses = JoinSet::new();
        for sentinel in sentinels {
            let query = self.query_sentinel(sentinel.clone(), Arc::clone(name));
            responses.spawn(query);
        }
        let mut tried = Vec::new();
        let mut error = Error::Unreachable { reason: "no sentinel replied".into(), source: None };
        while let Some(response) = responses.join_next().await {
            let address = match response {
                Ok(Ok(address)) if !tried.contains(&address) => address,
                Ok(Err(reason)) => {
                    error = reason;
                    continue;
                }
                _ => continue,
            };
            tried.push(address.clone());
            match self.connect_if_master(&address).await {
                Ok(connection) => return Ok(connection),
                Err(reason) => error = reason,
            }
        }
        Err(error)
    }

    async fn connect_if_master(&self, address: &Address) -> Result<Connection, Error> {
        let connection = self.connect_to(address).await?;
        // A sentinel may lag behind, so trust only the role that the server itself reports.
        match connection.query(&cmd("ROLE")).await? {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Ok(connection)
            }
            _ => Err(NOT_MASTER_YET),
        }
    }

    fn query_sentinel(
        &self,
        sentinel: Address,
        name: Arc<str>,
    ) -> impl Future<Output = Result<Address, Error>> + Send + use<> {
        let settings = self.settings.clone();
        #[cfg(feature = "tls")]
        let connector = Self { settings, sharded: false, tls: self.tls.clone() };
        #[cfg(not(feature = "tls"))]
        let connector = Self { settings, sharded: false };
        async move {
            let login = connector.settings.sentinel_login.clone();
            let connection = connector.handshake(&sentinel, &login, 0).await?;
            let response =
                connection.query(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*name)).await?;
            let Value::Array(parts) = response else {
                return Err(Error::rejected("the sentinels have no master of this name; check ?master="));
            };
            let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
                return Err(Error::Lost);
            };
            let text = |bytes| str::from_utf8(bytes).ok();
            text(host)
                .zip(text(port).and_then(|port| port.parse().ok()))
                .and_then(|(host, port)| sentinel.resolve_peer(host, port))
                .ok_or(Error::Lost)
        }
    }

    async fn connect_to(&self, address: &Address) -> Result<Connection, Error> {
        self.handshake(address, &self.settings.login, self.settings.database).await
    }

    /// Uses RESP3, which supports notices, and falls back to RESP2.
    async fn handshake(&self, address: &Address, login: &Login, database: u32) -> Result<Connection, Error> {
        match self.handshake_with(address, login, database, ProtocolVersion::RESP3).await {
            Err(Error::UnknownCommand) => {
                self.handshake_with(address, login, database, ProtocolVersion::RESP2).await
            }
            connection => connection,
        }
    }

    async fn handshake_with(
        &self,
        address: &Address,
        login: &Login,
        database: u32,
        protocol: ProtocolVersion,
    ) -> Result<Connection, Error> {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(protocol)
            .set_db(database.into())
            // `CLIENT SETINFO` would need one more permission and has no benefit.
            .set_skip_set_lib_name();
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password.expose());
        }
        let subscriptions = Arc::new(Subscriptions::default());
        let supports_push = protocol == ProtocolVersion::RESP3;
        let mut config =
            AsyncConnectionConfig::new().set_response_timeout(Some(self.settings.response_timeout));
        if supports_push {
            let subscriptions = Arc::clone(&subscriptions);
            config = config.set_push_sender(move |push| {
                subscriptions.on_push(push);
                Ok::<(), ()>(())
            });
        }
        let stream = self.open_stream(address).await?;
        let watchdog = Arc::new(Watchdog::new(self.clock().clone(), self.settings.response_timeout));
        let stream = WriteCoalescer::new(stream, Arc::clone(&watchdog));
        let (multiplexed, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| self.handshake_error(address, error))?;
        let close_on_drop = CloseOnDrop(Arc::clone(&subscriptions));
        let driver = task::spawn(async move {
            // The task owns this guard, so that all waiters are woken even if the driver panics or is aborted.
            let _close_on_drop = close_on_drop;
            driver.await;
        })?;
        tracing::debug!(%address, supports_push, "connected to redis");
        Ok(Connection::new(
            multiplexed,
            driver,
            subscriptions,
            address.clone(),
            self.sharded,
            self.cluster_scheme(),
            supports_push,
            watchdog,
        ))
    }

    /// The error of a failed handshake.
    fn handshake_error(&self, address: &Address, error: RedisError) -> Error {
        if error.kind() != ErrorKind::Io {
            let error = Error::from(error);
            let is_misdirected = !self.sharded && error.is_from_cluster_node();
            return if is_misdirected {
                connection::cluster_node_error(address, self.cluster_scheme())
            } else {
                error
            };
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() && !error.is_connection_dropped() {
            // Since TLS 1.3 a server rejects a client certificate only after the handshake.
            return crate::tls::rejected(address);
        }
        Error::unreachable(
            format!("redis at {address} closed the connection during the handshake"),
            io::Error::from(io::ErrorKind::ConnectionAborted),
        )
    }

    async fn open_stream(&self, address: &Address) -> Result<Box<dyn Stream>, Error> {
        let unreachable = |error: io::Error| {
            Error::unreachable(format!("could not reach redis at {address}"), sanitize(&error))
        };
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((&**host, *port)).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE).map_err(unreachable)?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    return Ok(Box::new(crate::tls::connect(tls, address, stream).await?));
                }
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(unreachable)?))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => {
                Err(Error::rejected("unix sockets are not supported on this system; use redis://host:port"))
            }
        }
    }

    /// The URL scheme of a cluster with this connector's transport.
    fn cluster_scheme(&self) -> &'static str {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return "rediss+cluster";
        }
        "redis+cluster"
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.settings.clock
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// The error during a failover.
pub(crate) const NOT_MASTER_YET: Error =
    Error::TryAgain("the server that the sentinels report is not a master yet");

/// TCP detects a vanished host within half a minute, even on a connection that only receives notices.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));

/// Closes the subscriptions when the connection's driver ends.
struct CloseOnDrop(Arc<Subscriptions>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
