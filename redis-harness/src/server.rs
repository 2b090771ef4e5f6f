//! One server process.
//! `cluster` and `sentinel` start several of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, net, thread};

use redis::{ConnectionAddr, FromRedisValue, IntoConnectionInfo};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::test_ca::TestCa;

/// A server for one test. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    frozen: AtomicBool,
    sentinel: bool,
    port: u16,
    folder: TempDir,
}

/// The settings of a [`Server`].
#[derive(Debug, Default)]
#[must_use]
pub struct ServerBuilder {
    settings: Vec<String>,
    sentinel: bool,
    files: Vec<(&'static str, String)>,
}

impl ServerBuilder {
    /// Adds a line to the configuration file. `{folder}` becomes the server's folder, and `{port}` its port.
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }

    /// Accepts only TLS. With `clients_too`, clients need a certificate from the same authority.
    pub fn with_tls(mut self, authority: &TestCa, clients_too: bool) -> Self {
        let identity = authority.issue("127.0.0.1");
        self.files.push(("ca.pem", authority.certificate().to_owned()));
        self.files.push(("cert.pem", identity.certificate));
        self.files.push(("key.pem", identity.key));
        let clients = if clients_too { "yes" } else { "no" };
        self.with("port 0")
            .with("tls-port {port}")
            .with("tls-ca-cert-file {folder}/ca.pem")
            .with("tls-cert-file {folder}/cert.pem")
            .with("tls-key-file {folder}/key.pem")
            .with(format!("tls-auth-clients {clients}"))
            .with("tls-replication yes")
            .with("tls-cluster yes")
    }

    pub(crate) fn for_sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Starts the server, and waits until it accepts connections.
    ///
    /// # Panics
    ///
    /// If `redis-server` is missing or does not start.
    #[must_use]
    pub fn start(self) -> Server {
        for _ in 0..20 {
            let port = free_port();
            let folder =
                tempfile::Builder::new().prefix("quota-redis-").tempdir().expect("a folder can be created");
            for (name, content) in &self.files {
                fs::write(folder.path().join(name), content).expect("the folder can be written");
            }
            let mut server =
                Server { child: None, frozen: AtomicBool::new(false), sentinel: self.sentinel, port, folder };
            server.configure(&self.settings);
            match server.launch() {
                Ok(()) => return server,
                // Another process has bound the port in the meantime.
                Err(output) if output.contains("Address already in use") => {}
                Err(output) => panic!("the server did not start:\n{output}"),
            }
        }
        panic!("no port was free for a server");
    }
}

/// A free port below the range for outgoing connections. Its cluster bus port (10,000 above it) is free too.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..20_000);
        if [port, port + 10_000].iter().all(|port| net::TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}

impl Server {
    /// Starts a single server without persistence.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The settings of a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the server's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The URL `redis://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Connects as the administrator, over the unix socket.
    ///
    /// # Panics
    ///
    /// If the server rejects it.
    #[must_use]
    pub fn admin(&self) -> redis::Connection {
        let info =
            ConnectionAddr::Unix(self.socket()).into_connection_info().expect("a path is a valid address");
        let client = redis::Client::open(info).expect("the address is valid");
        client.get_connection_with_timeout(Duration::from_secs(5)).expect("the server accepts connections")
    }

    /// Runs one command as the administrator.
    ///
    /// # Panics
    ///
    /// If the server returns an error.
    #[track_caller]
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs one command as the administrator.
    ///
    /// # Errors
    ///
    /// The error of the server.
    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let (name, arguments) = words.split_first().expect("a command has a name");
        redis::cmd(name).arg(arguments).query(&mut self.admin())
    }

    /// The number of calls of each command since the last reset, from `INFO commandstats`. It includes the calls of scripts,
    /// and excludes the commands that read the counts.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, u64)> {
        let text: String = self.command(&["INFO", "commandstats"]);
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        text.lines()
            .filter_map(line)
            .filter(|(name, _)| name != "info" && name != "client|setinfo" && !name.starts_with("config"))
            .collect()
    }

    /// Suspends the process. The system still accepts connections, but the server does not reply.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// Resumes the process.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// Kills the process, as in a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// Starts the server again after [`kill`](Self::kill), on the same port and in the same folder.
    ///
    /// # Panics
    ///
    /// If the server does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch().unwrap_or_else(|output| panic!("the server did not start again:\n{output}"));
    }

    /// Whether the process exists, whether or not it is suspended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether the process runs and is not suspended.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.is_running() && !self.frozen.load(Ordering::Relaxed)
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().map(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.expect("the server was started"), signal)
            .expect("a process can signal its own child");
    }

    fn configure(&self, settings: &[String]) {
        let folder = self.folder.path();
        let mut file = File::create(folder.join("redis.conf")).expect("the folder can be written");
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            "port {port}".to_owned(),
            "dir {folder}".to_owned(),
            "unixsocket {folder}/redis.sock".to_owned(),
            "unixsocketperm 700".to_owned(),
        ];
        if !self.sentinel {
            lines.extend(["save \"\"", "appendonly no"].map(str::to_owned));
        }
        for line in lines.iter().chain(settings) {
            let line =
                line.replace("{folder}", &folder.to_string_lossy()).replace("{port}", &self.port.to_string());
            writeln!(file, "{line}").expect("the file can be written");
        }
        // The file may contain passwords of a test.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }

    /// Starts the process. The error is the output of a process that ended before it was ready.
    fn launch(&mut self) -> Result<(), String> {
        let mut child = Command::new(program())
            .arg(self.folder.path().join("redis.conf"))
            .args(self.sentinel.then_some("--sentinel"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server or valkey-server is needed, see scripts/test: {error}")
            });
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, receiver) = mpsc::channel();
        // The thread ends with the process, and drains the pipe until then.
        thread::spawn(move || {
            let mut output = String::new();
            let mut sender = Some(sender);
            for line in stdout.lines().map_while(Result::ok) {
                // The socket is ready last. The message depends on the version, and sentinels do not print it.
                let has_socket =
                    line.contains("accept connections at") || line.contains("accept connections unix");
                let is_ready = has_socket || line.contains("Sentinel ID is");
                if sender.is_some() {
                    output += &line;
                    output += "\n";
                }
                if is_ready && let Some(sender) = sender.take() {
                    let _ = sender.send(Ok(()));
                }
            }
            if let Some(sender) = sender {
                let _ = sender.send(Err(output));
            }
        });
        let started = receiver
            .recv_timeout(Duration::from_secs(20))
            .unwrap_or_else(|_| Err("the server was not ready within 20 seconds".to_owned()));
        self.child = Some(child);
        started.inspect_err(|_| self.kill())
    }
}

/// The program that `REDIS_SERVER` names. The default is Redis, or Valkey where only that is installed.
fn program() -> OsString {
    if let Some(named) = std::env::var_os("REDIS_SERVER").filter(|named| !named.is_empty()) {
        return named;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let is_valkey = !has("redis-server") && has("valkey-server");
    if is_valkey { "valkey-server" } else { "redis-server" }.into()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
