//! Runs the program in an isolated environment, against a simulated provider.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use quota::record::Seed;
use quota::{QuotaManager, Snapshot, UsageReport};
use quota_sim::{Script, Simulator};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An isolated machine: an empty home directory, and only the environment variables that a test sets.
#[derive(Debug)]
pub(crate) struct Machine {
    home: TempDir,
    temp: TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let (home, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let variables =
            vec![("TZ".into(), "UTC".into()), ("TMPDIR".into(), argument(temp.path()).to_owned())];
        Self { home, temp, variables }
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The temporary directory.
    pub(crate) fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// The files for outages in the state folder.
    pub(crate) fn outage_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(".local/state/quota")).into_iter().flatten();
        let is_file = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("outage-") && name.ends_with(".db")
        };
        entries.map(|entry| entry.unwrap().path()).filter(is_file).collect()
    }

    /// The document that describes the outage.
    pub(crate) fn outage(&self) -> serde_json::Value {
        let file = rusqlite::Connection::open(&self.outage_files()[0]).unwrap();
        let read = "SELECT body FROM document WHERE key = '*#outage'";
        let body: Vec<u8> = file.query_row(read, (), |row| row.get(0)).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Changes that document.
    pub(crate) fn change_outage(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let file = rusqlite::Connection::open(&self.outage_files()[0]).unwrap();
        let mut outage = self.outage();
        change(&mut outage);
        let write = "UPDATE document SET body = ?1 WHERE key = '*#outage'";
        assert_eq!(file.execute(write, [serde_json::to_vec(&outage).unwrap()]).unwrap(), 1);
    }

    /// Writes a file below the home directory.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// Stores readings of `anthropic/main`, each with its time.
    pub(crate) fn seed(&self, readings: impl IntoIterator<Item = (UsageReport, Timestamp)>) {
        let path = self.path(".local/state/quota/quota.db");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = quota::open_store(&format!("sqlite://{}", path.display())).unwrap();
            let manager = QuotaManager::builder(store).build().unwrap();
            let account = manager.account(&"anthropic/main".parse().unwrap());
            for (usage, at) in readings {
                account.seed(&Seed::new(Snapshot::of(&usage, at))).unwrap();
            }
            manager.close().await;
        });
    }

    /// Writes a login of Claude Code with this token.
    pub(crate) fn log_in(&self, token: &str) {
        let expires_at = 4_102_444_800_000_u64;
        let login = serde_json::json!({ "claudeAiOauth": {
            "accessToken": token, "refreshToken": "sk-ant-ort01-made-up", "expiresAt": expires_at,
            "subscriptionType": "max", "rateLimitTier": "default_claude_max_20x",
        } });
        self.write(".claude/.credentials.json", login.to_string());
    }

    /// A command that runs the program on this machine, in the home directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quota"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// The detached processes of this machine that run hooks.
    #[cfg(target_os = "linux")]
    pub(crate) fn hook_processes(&self) -> Vec<rustix::process::Pid> {
        let home = format!("HOME={}", self.home.path().display());
        let has = |id: i32, file: &str, wanted: &str| {
            read_of_process(id, file).split(|byte| *byte == 0).any(|word| word == wanted.as_bytes())
        };
        let ids = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let runs_hooks = |id: &i32| has(*id, "cmdline", "run-hooks") && has(*id, "environ", &home);
        ids.filter(runs_hooks).filter_map(rustix::process::Pid::from_raw).collect()
    }

    /// The detached hook processes of all machines, because the system does not show their environment.
    #[cfg(all(unix, not(target_os = "linux")))]
    pub(crate) fn hook_processes(&self) -> Vec<rustix::process::Pid> {
        let listed = Command::new("ps").args(["-axo", "pid=,command="]).output().unwrap();
        let lines = String::from_utf8_lossy(&listed.stdout).into_owned();
        let ids = lines.lines().filter(|line| line.contains(" run-hooks"));
        let ids = ids.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        ids.filter_map(rustix::process::Pid::from_raw).collect()
    }

    /// Waits until all started hooks have ended.
    #[cfg(unix)]
    pub(crate) fn wait_for_hooks(&self) {
        while !self.hook_processes().is_empty() {
            std::thread::yield_now();
        }
    }
}

/// Reads a file of a process in `/proc`. During `exec`, the arguments and the environment are empty, so this retries until they are
/// set or the process has ended.
#[cfg(target_os = "linux")]
fn read_of_process(id: i32, file: &str) -> Vec<u8> {
    loop {
        let contents = std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        if !contents.is_empty() || std::fs::read_link(format!("/proc/{id}/exe")).is_err() {
            return contents;
        }
    }
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A simulated provider that runs until the end of the test.
pub(crate) struct Provider {
    pub(crate) simulator: Simulator,
    script: Script,
    _runtime: Runtime,
}

impl Provider {
    pub(crate) fn play(script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::builder(script.clone()).start()).unwrap();
        Self { simulator, script, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        self.simulator.url().to_string()
    }

    /// The token of its first account.
    pub(crate) fn token(&self) -> String {
        self.script.accounts()[0].token().into_owned()
    }

    /// The token of the account with this name.
    pub(crate) fn token_of(&self, name: &str) -> String {
        let account = self.script.accounts().iter().find(|account| account.name() == name);
        account.expect("the script has the account").token().into_owned()
    }

    /// A configuration of all its accounts, with the default policy.
    pub(crate) fn client_config(&self) -> String {
        self.script.client_config(&self.simulator.url())
    }

    /// Writes a configuration of all its accounts without a minimum interval between calls. The tokens are in variables of `machine`.
    pub(crate) fn configure(&self, machine: Machine) -> (Machine, PathBuf) {
        let policy = "[policy]\ngap = \"1ms\"\nquiet = { span = \"1ms\", scope = \"account\" }\n";
        let config = machine.write("config.toml", format!("{policy}{}", self.client_config()));
        let machine = self.script.accounts().iter().fold(machine, |machine, account| {
            let name = account.name().to_uppercase().replace(['-', '.'], "_");
            machine.set(&format!("QUOTA_SIM_{name}"), &account.token())
        });
        (machine, config)
    }
}

/// The path as a command line argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().unwrap()
}
