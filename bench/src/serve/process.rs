//! `quota serve` as a process, with a simulated provider.

use std::net::SocketAddr;
use std::process::Stdio;

use quota_sim::{Account, Script, Simulator, Window};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The provider accepts calls without a pause, so the accounts need not wait for each other.
pub(super) const NO_PAUSE: &str = "[policy]\nmin_call_interval = \"1ms\"\n";

/// A provider with accounts that are named `a0`, `a1` and so on.
pub(super) async fn provider(accounts: usize) -> Simulator {
    let accounts = (0..accounts)
        .map(|number| Account::new(format!("a{number}")).windows([Window::five_hour().used(10.0)]));
    Simulator::builder(Script::new(accounts)).start().await.expect("a simulator")
}

/// A gateway process. It is killed when it is dropped.
pub(super) struct Process {
    pub(super) address: SocketAddr,
    child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
    _home: TempDir,
}

impl Process {
    /// Starts the program that was built together with this one, and waits until it listens. Its store is a file of its own, unless
    /// `store` is a URL.
    pub(super) async fn start(
        provider: &Simulator,
        accounts: usize,
        policy: &str,
        store: Option<&str>,
    ) -> Self {
        let program = std::env::current_exe().expect("this program is a file").with_file_name("quota");
        assert!(program.exists(), "{} is not built; run scripts/bench", program.display());
        let home = tempfile::tempdir().expect("a folder");
        let config = home.path().join("config.toml");
        let url = provider.url();
        let account = |number| {
            format!(
                "[[accounts]]\nid = \"anthropic/a{number}\"\nbase_url = \"{url}\"\ntoken_env = \"TOKEN_{number}\"\n"
            )
        };
        let text: String = std::iter::once(policy.to_owned()).chain((0..accounts).map(account)).collect();
        std::fs::write(&config, text).expect("the disk has space");
        let mut command = Command::new(program);
        command.env_clear().env("HOME", home.path()).arg("serve").arg("--config").arg(&config);
        command.args(["--listen", "127.0.0.1:0"]);
        command.envs(store.map(|store| ("QUOTA_STORE", store)));
        command.envs((0..accounts).map(|number| (format!("TOKEN_{number}"), format!("sim-token-a{number}"))));
        let mut child =
            command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let line = lines.next_line().await.expect("a line").expect("the address");
        let address = line.strip_prefix("Listening on http://").expect("the address");
        let address = address.parse().expect("an address");
        Self { address, child, _stdout: lines, _home: home }
    }

    /// The resident memory in KiB; `None` where the system has no `/proc`.
    pub(super) fn resident_kib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
        kib.trim().parse().ok()
    }
}

/// The usage path of an account.
pub(super) fn usage_of(number: usize) -> String {
    format!("/account/anthropic/a{number}/api/oauth/usage")
}
