//! `quota wrap`: real programs with TLS, in place of the hosts of providers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use quota_sim::{Account, Script, TlsFront, Window};
use tokio::runtime::Runtime;

use super::support::{Ended, Machine, Provider, argument};

const HOST: &str = "api.anthropic.com";
const OTHER_HOST: &str = "other.example";
const USAGE: &str = "https://api.anthropic.com/api/oauth/usage";

/// A provider with two accounts, and hosts with TLS before it.
struct Setup {
    provider: Provider,
    front: TlsFront,
    machine: Machine,
    config: PathBuf,
    _authority: PathBuf,
    _runtime: Runtime,
}

impl Setup {
    fn new() -> Self {
        Self::with(|provider| provider.simulator.url().socket_addrs(|| None).unwrap()[0], &["http/1.1"])
    }

    /// The server of the hosts, which is the provider unless a test has its own.
    fn with(server: impl FnOnce(&Provider) -> SocketAddr, protocols: &[&str]) -> Self {
        let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
        let provider = Provider::play(Script::new([account("main", 62.0), account("other", 5.0)]));
        let server = server(&provider);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let front = TlsFront::start([(HOST, server), (OTHER_HOST, server)], protocols);
        let front = runtime.block_on(front).unwrap();
        let (machine, config) = provider.configure(Machine::new());
        let authority = machine.write("authority.pem", front.certificate());
        let machine = machine
            .set("PATH", &std::env::var("PATH").unwrap())
            .set("HTTPS_PROXY", &front.proxy_url())
            .set("SSL_CERT_FILE", argument(&authority));
        Self { provider, front, machine, config, _authority: authority, _runtime: runtime }
    }

    fn wrapped(&self, command: &[&str]) -> Command {
        self.machine.command(&[&["wrap", "--config", argument(&self.config), "--"], command].concat())
    }

    fn run(&self, command: &[&str]) -> Ended {
        Ended::of(self.wrapped(command).output().unwrap())
    }

    fn curl(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["curl", "-sS", "--max-time", "60"], arguments].concat())
    }

    fn authorization(&self, account: &str) -> String {
        format!("Authorization: Bearer {}", self.provider.token_of(account))
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }

    /// What wrapped commands have left behind.
    fn leftovers(&self) -> Vec<PathBuf> {
        leftovers(self.machine.temp())
    }
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { with(path) } else { vec![path] })
        .filter(|path| is_ours(path))
        .collect()
}

fn with(folder: PathBuf) -> Vec<PathBuf> {
    let inner = leftovers(&folder);
    std::iter::once(folder).chain(inner).collect()
}

fn is_ours(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with("wrap-")
}

#[test]
fn usage_is_answered_from_the_readings_over_both_versions() {
    let setup = Setup::new();

    for version in ["--http1.1", "--http2"] {
        let ended =
            setup.curl(&[version, "-H", &setup.authorization("other"), USAGE, "-w", " %{http_version}"]);

        let text = format!("{}{}", ended.stdout, ended.stderr);
        assert!(text.contains("\"utilization\":5.0") && text.ends_with(&version[6..7]), "{text}");
    }
    assert_eq!((setup.calls(), setup.front.connections(HOST)), (1, 0));
    assert_eq!(setup.leftovers(), [""; 0].map(PathBuf::from));
}
