//! The sockets of a gateway: TCP, Unix, and those that systemd passes to the process.

use std::io;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;
#[cfg(unix)]
use std::time::Duration;

use listenfd::ListenFd;
#[cfg(unix)]
use quota::Clock;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::address::ListenAddress;

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Listener {
    /// Listens on an address. Call this inside a tokio runtime.
    ///
    /// Only this user can connect to a Unix socket, because its file is created with mode 0600. A file that a killed
    /// process left behind is replaced. The file is removed when the listener is dropped.
    ///
    /// # Errors
    ///
    /// [`ListenError`] with the error of the system.
    pub async fn bind(address: &ListenAddress) -> Result<Self, ListenError> {
        let bound = match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(|tcp| Self(Kind::Tcp(tcp))),
            ListenAddress::Unix(path) => bind_unix(path).await,
        };
        bound.map_err(|source| ListenError { address: address.to_string(), source })
    }

    /// Takes over the listening sockets that systemd passed to the process (socket activation, `LISTEN_FDS`).
    ///
    /// Each socket is returned only once per process. Call this inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if one of them is not a listening stream socket.
    pub fn inherited() -> Result<Vec<Self>, ListenError> {
        let mut sockets = ListenFd::from_env();
        let mut listeners = Vec::new();
        for at in 0..sockets.len() {
            let error = |source| ListenError { address: format!("inherited socket {at}"), source };
            match sockets.take_tcp_listener(at) {
                Ok(Some(tcp)) => {
                    tcp.set_nonblocking(true).map_err(error)?;
                    listeners.push(Self(Kind::Tcp(TcpListener::from_std(tcp).map_err(error)?)));
                }
                Ok(None) => {}
                #[cfg(unix)]
                Err(_) => {
                    let Some(unix) = sockets.take_unix_listener(at).map_err(error)? else { continue };
                    unix.set_nonblocking(true).map_err(error)?;
                    listeners.push(Self(Kind::Unix(UnixListener::from_std(unix).map_err(error)?, None)));
                }
                #[cfg(not(unix))]
                Err(source) => return Err(error(source)),
            }
        }
        Ok(listeners)
    }

    /// The address, with the port that the system selected.
    #[must_use]
    pub fn address(&self) -> Option<ListenAddress> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.local_addr().ok().map(ListenAddress::Tcp),
            #[cfg(unix)]
            Kind::Unix(unix, _) => {
                let address = unix.local_addr().ok()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// The URL for clients, or the path of the Unix socket.
    #[must_use]
    pub fn display(&self, scheme: &str) -> String {
        match (&self.0, self.address()) {
            (Kind::Tcp(_), Some(ListenAddress::Tcp(address))) => format!("{scheme}://{address}"),
            #[cfg(unix)]
            (Kind::Unix(_, Some(file)), _) => format!("unix:{}", file.path.display()),
            (_, Some(address)) => address.to_string(),
            _ => "an inherited socket".to_owned(),
        }
    }

    /// Whether only programs on this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.local_addr().is_ok_and(|address| ListenAddress::Tcp(address).is_local()),
            #[cfg(unix)]
            Kind::Unix(..) => true,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            #[cfg(unix)]
            Kind::Unix(unix, _) => unix.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// The file of a Unix socket, which is removed on drop.
#[cfg(unix)]
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device and inode numbers, because another process may have replaced the file.
    identity: Option<(u64, u64)>,
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;

    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Binds a socket with a private file. The mode is set under a temporary name, so that no other user can connect
/// before.
#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    use std::os::unix::fs::PermissionsExt as _;

    let _starting = lock_folder(path)?;
    check_unused(path).await?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // A process that was killed at this point may have had the same process id.
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    let moved = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = moved {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    Ok(Listener(Kind::Unix(listener, Some(file))))
}

/// Locks the folder of a socket, so that two processes do not replace the same stale file. A file system without locks is accepted.
#[cfg(unix)]
fn lock_folder(path: &Path) -> io::Result<std::fs::File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::File::open(folder.unwrap_or(Path::new(".")))?;
    match folder.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::AddrInUse.into()),
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(folder),
    }
}

/// Checks that no process listens on a socket. Connections are refused only if the file's process was killed.
#[cfg(unix)]
async fn check_unused(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;

    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // If a running process has a full queue, the connection fails with another error, or hangs.
    match Clock::system().bounded(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The timeout of a connection to an existing socket.
#[cfg(unix)]
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(not(unix))]
async fn bind_unix(_path: &Path) -> io::Result<Listener> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

/// Why the gateway cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}")]
#[non_exhaustive]
pub struct ListenError {
    /// The address.
    pub address: String,
    /// The error of the system.
    pub source: io::Error,
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn unix(path: &Path) -> ListenAddress {
        ListenAddress::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_its_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.sock");

        let listener = Listener::bind(&unix(&path)).await.unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listener.display("http"), format!("unix:{}", path.display()));
        drop(listener);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_socket_of_a_killed_process_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let listener = Listener::bind(&unix(&path)).await.unwrap();

        assert!(UnixStream::connect(&path).await.is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn the_socket_of_a_running_process_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.sock");
        let running = Listener::bind(&unix(&path)).await.unwrap();

        let error = Listener::bind(&unix(&path)).await.unwrap_err();

        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(running);
    }

    #[tokio::test]
    async fn a_file_of_a_process_killed_while_it_started_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.sock");
        let left = folder.path().join(format!("quota.sock.{}", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());

        let listener = Listener::bind(&unix(&path)).await.unwrap();

        assert!(!left.exists() && UnixStream::connect(&path).await.is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn of_two_processes_that_start_at_once_only_one_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.sock");
        let starting = lock_folder(&path).unwrap();

        let error = Listener::bind(&unix(&path)).await.unwrap_err();

        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        drop(starting);
        assert!(Listener::bind(&unix(&path)).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "notes").unwrap();

        assert!(Listener::bind(&unix(&path)).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
    }

    #[tokio::test]
    async fn a_free_port_is_in_the_address() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();

        assert!(listener.is_local());
        assert!(!listener.display("http").ends_with(":0"));
    }
}
