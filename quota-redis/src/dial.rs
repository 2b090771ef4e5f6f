//! Making a connection: the stream, TLS, the handshake, and finding a master by sentinels.
//! When to do so, and what is done with it, is in `node`.

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
use crate::board::Board;
use crate::failure::{Failure, plain};
use crate::gather::Gather;
use crate::options::{Login, Settings};
use crate::task;
use crate::watchdog::Watchdog;
use crate::wire::{self, Wire};

/// Makes connections by one set of settings.
pub(crate) struct Dialer {
    settings: Settings,
    sharded: bool,
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsConnector>,
}

/// Where a connection is to go.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// To this server.
    At(Address),
    /// To the server that the sentinels take for the master of this name.
    Master { sentinels: Vec<Address>, name: Arc<str> },
}

/// Bytes both ways, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dialer {
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

    /// Connects, within the time there is for it.
    pub(crate) async fn dial(&self, place: &Place) -> Result<Wire, Failure> {
        let dialed = async {
            match place {
                Place::At(address) => self.wire(address).await,
                Place::Master { sentinels, name } => self.master(sentinels, name).await,
            }
        };
        let late = || Failure::Away { why: "redis could not be reached in time".into(), source: None };
        self.clock().bounded(self.settings.connect_timeout, dialed).await.unwrap_or_else(|| Err(late()))
    }

    /// Asks all sentinels at once, and takes the first server named that says of itself that it is the master.
    async fn master(&self, sentinels: &[Address], name: &Arc<str>) -> Result<Wire, Failure> {
        let mut answers = JoinSet::new();
        for sentinel in sentinels {
            let question = self.master_by(sentinel.clone(), Arc::clone(name));
            answers.spawn(question);
        }
        let mut tried = Vec::new();
        let mut failure = Failure::Away { why: "no sentinel answered".into(), source: None };
        while let Some(answer) = answers.join_next().await {
            let address = match answer {
                Ok(Ok(address)) if !tried.contains(&address) => address,
                Ok(Err(why)) => {
                    failure = why;
                    continue;
                }
                _ => continue,
            };
            tried.push(address.clone());
            match self.master_at(&address).await {
                Ok(wire) => return Ok(wire),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    async fn master_at(&self, address: &Address) -> Result<Wire, Failure> {
        let wire = self.wire(address).await?;
        // A sentinel may lag behind: what counts is what the server takes itself for.
        match wire.ask(&cmd("ROLE")).await? {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Ok(wire)
            }
            _ => Err(NO_MASTER),
        }
    }

    fn master_by(
        &self,
        sentinel: Address,
        name: Arc<str>,
    ) -> impl Future<Output = Result<Address, Failure>> + Send + use<> {
        let settings = self.settings.clone();
        #[cfg(feature = "tls")]
        let dialer = Self { settings, sharded: false, tls: self.tls.clone() };
        #[cfg(not(feature = "tls"))]
        let dialer = Self { settings, sharded: false };
        async move {
            let login = dialer.settings.sentinel_login.clone();
            let wire = dialer.handshake(&sentinel, &login, 0).await?;
            let answer = wire.ask(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*name)).await?;
            let Value::Array(parts) = answer else {
                return Err(Failure::refused("the sentinels know no master of this name"));
            };
            let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
                return Err(Failure::Lost);
            };
            let text = |bytes| str::from_utf8(bytes).ok();
            text(host)
                .zip(text(port).and_then(|port| port.parse().ok()))
                .and_then(|(host, port)| sentinel.neighbour(host, port))
                .ok_or(Failure::Lost)
        }
    }

    async fn wire(&self, address: &Address) -> Result<Wire, Failure> {
        self.handshake(address, &self.settings.login, self.settings.database).await
    }

    /// With notices if the server speaks RESP3, without if it does not.
    async fn handshake(&self, address: &Address, login: &Login, database: u32) -> Result<Wire, Failure> {
        match self.shake(address, login, database, ProtocolVersion::RESP3).await {
            Err(Failure::NoCommand) => self.shake(address, login, database, ProtocolVersion::RESP2).await,
            wire => wire,
        }
    }

    async fn shake(
        &self,
        address: &Address,
        login: &Login,
        database: u32,
        protocol: ProtocolVersion,
    ) -> Result<Wire, Failure> {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(protocol)
            .set_db(database.into())
            // It would need a right more, and says nothing that matters here.
            .set_skip_set_lib_name();
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password.expose());
        }
        let board = Arc::new(Board::default());
        let hears = protocol == ProtocolVersion::RESP3;
        let mut config =
            AsyncConnectionConfig::new().set_response_timeout(Some(self.settings.response_timeout));
        if hears {
            let board = Arc::clone(&board);
            config = config.set_push_sender(move |push| {
                board.hear(&push);
                Ok::<(), ()>(())
            });
        }
        let stream = self.stream(address).await?;
        let watchdog = Arc::new(Watchdog::new(self.clock().clone(), self.settings.response_timeout));
        let stream = Gather::new(stream, Arc::clone(&watchdog));
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| self.unwelcome(address, error))?;
        let ending = Ending(Arc::clone(&board));
        let driver = task::spawn(async move {
            // Moved in first, so that everybody is woken however the driver ends.
            let _ending = ending;
            driver.await;
        })?;
        tracing::debug!(%address, hears, "connected to redis");
        Ok(Wire::new(
            connection,
            driver,
            board,
            address.clone(),
            self.sharded,
            self.cluster_scheme(),
            hears,
            watchdog,
        ))
    }

    /// Why a handshake failed.
    fn unwelcome(&self, address: &Address, error: RedisError) -> Failure {
        if error.kind() != ErrorKind::Io {
            let failure = Failure::from(error);
            let is_misdirected = !self.sharded && failure.is_of_a_cluster();
            return if is_misdirected { wire::of_a_cluster(address, self.cluster_scheme()) } else { failure };
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() && !error.is_connection_dropped() {
            // Since TLS 1.3 a server says only now that it does not take a client's certificate.
            return crate::tls::refused(address);
        }
        Failure::away(
            format!("redis at {address} hung up"),
            io::Error::from(io::ErrorKind::ConnectionAborted),
        )
    }

    async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, Failure> {
        let unreachable =
            |error: io::Error| Failure::away(format!("redis at {address} cannot be reached"), plain(&error));
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
            Address::Unix(_) => Err(Failure::refused("this system has no unix sockets")),
        }
    }

    /// What the URL of a cluster begins with, if it is reached as this dialer reaches servers.
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

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// What is said while a failover is under way.
pub(crate) const NO_MASTER: Failure = Failure::NotNow("the server that the sentinels name is no master yet");

/// A host that went away without a word is noticed within half a minute, also where only notices are waited for.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));

/// Ends a board when the connection's driver does.
struct Ending(Arc<Board>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}
