//! A simulated provider with a ledger, and the program configured for it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use quota_sim::{Account, Ledger, Script, Simulator, Window};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::process::Process;

/// The policy with which readings stay fresh.
const WARM: &str = "max_age = \"1h\"\nfull_refresh_interval = \"1h\"\nmax_concurrent_calls = 8";

pub(super) struct Fixture {
    home: TempDir,
    config: PathBuf,
    tokens: Vec<(String, String)>,
    pub(super) simulator: Simulator,
    runtime: Runtime,
}

impl Fixture {
    /// Creates accounts without readings.
    pub(super) fn cold(accounts: usize, policy: &str) -> Self {
        let accounts = (0..accounts).map(|number| {
            let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
            Account::new(format!("account-{number}"))
                .windows(windows)
                .latency(Duration::from_millis(50))
                .budget(30)
        });
        Self::of(accounts, policy)
    }

    fn of(accounts: impl IntoIterator<Item = Account>, policy: &str) -> Self {
        let script = Script::new(accounts);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started");
        let started = runtime.block_on(Simulator::builder(script.clone()).start());
        let simulator = started.expect("a port is free");
        let home = tempfile::tempdir().expect("the disk has space");
        let config = home.path().join("config.toml");
        let text = format!(
            "[policy]\nmin_call_interval = \"1ms\"\n{policy}\n{}",
            script.client_config(&simulator.url())
        );
        std::fs::write(&config, text).expect("the disk has space");
        let token = |account: &Account| {
            let name = account.name().to_uppercase().replace('-', "_");
            (format!("QUOTA_SIM_{name}"), account.token().into_owned())
        };
        let tokens = script.accounts().iter().map(token).collect();
        Self { home, config, tokens, simulator, runtime }
    }

    /// Creates accounts whose readings all stay fresh.
    pub(super) fn warm(accounts: usize) -> Self {
        let fixture = Self::cold(accounts, WARM);
        fixture.process(["status"]).time_ms();
        fixture
    }

    /// Creates these accounts, whose readings all stay fresh.
    pub(super) fn warm_with(accounts: impl IntoIterator<Item = Account>) -> Self {
        let fixture = Self::of(accounts, WARM);
        fixture.process(["status"]).time_ms();
        fixture
    }

    /// Creates one account with fresh readings whose login is Claude Code's, with a state file of `size` bytes that was written a few
    /// seconds ago.
    pub(super) fn warm_login(size: usize) -> Self {
        let fixture = Self::warm(1);
        let home = fixture.home.path();
        let write = |name: &str, text: &str| {
            let path = home.join(name);
            std::fs::create_dir_all(path.parent().expect("the path has a folder"))
                .expect("the disk has space");
            std::fs::write(path, text).expect("the disk has space");
        };
        let (variable, token) = &fixture.tokens[0];
        let login = format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}","expiresAt":4000000000000}}}}"#);
        write(".claude/.credentials.json", &login);
        // Most of a large state file are the projects and their histories.
        let project =
            r#""/home/me/project":{"history":[{"display":"explain this function","pastedContents":{}}]},"#;
        let projects = project.repeat(size / project.len());
        let account = r#"{"accountUuid":"account-a","organizationUuid":"org-a"}"#;
        let state = format!(r#"{{"projects":{{{projects}"/":{{}}}},"oauthAccount":{account}}}"#);
        write(".claude.json", &state);
        let config = std::fs::read_to_string(&fixture.config).expect("the file was written");
        let with_login =
            config.replace(&format!("token_env = \"{variable}\""), "claude_config_dir = \"~/.claude\"");
        assert_ne!(with_login, config, "the account has another login now");
        std::fs::write(&fixture.config, with_login).expect("the disk has space");
        // The file's metadata identify its content only if the last write is older than two seconds.
        fixture.runtime.block_on(quota_core::Clock::system().sleep(Duration::from_secs(3)));
        fixture.process(["status", "--refresh"]).time_ms();
        // Otherwise the processes may not open the state file at all, and the row could not fail.
        let memory = fixture.home.path().join(".local/state/quota/login-ids.json");
        assert!(memory.is_file(), "the program has read the state file and remembers its login");
        fixture
    }

    /// The program with this configuration.
    pub(super) fn process<const N: usize>(&self, arguments: [&str; N]) -> Process {
        self.process_with(self.config(), arguments)
    }

    /// The program with `accounts` accounts, of which only the first ones exist at the provider.
    pub(super) fn process_among<const N: usize>(&self, accounts: usize, arguments: [&str; N]) -> Process {
        let mut text = std::fs::read_to_string(&self.config).expect("the file was written");
        for number in self.tokens.len()..accounts {
            let _ = write!(
                text,
                "\n[[accounts]]\nid = \"anthropic/other-{number}\"\ntoken_env = \"OTHER_{number}\"\n"
            );
        }
        let config = self.home.path().join(format!("config-{accounts}.toml"));
        std::fs::write(&config, text).expect("the disk has space");
        self.process_with(config.to_str().expect("a temporary path is text"), arguments)
    }

    fn process_with<const N: usize>(&self, config: &str, arguments: [&str; N]) -> Process {
        let mut all = vec!["--config", config];
        all.splice(0..0, arguments);
        let process =
            Process::built("quota", []).with("HOME", self.home.path().to_string_lossy()).with("TZ", "UTC");
        let process = all.into_iter().fold(process, Process::argument);
        self.tokens.iter().fold(process, |process, (name, token)| process.with(name, token))
    }

    /// The home directory.
    pub(super) fn home(&self) -> &str {
        self.home.path().to_str().expect("a temporary path is text")
    }

    /// The path of the configuration, which identifies its processes.
    pub(super) fn config(&self) -> &str {
        self.config.to_str().expect("a temporary path is text")
    }

    pub(super) fn until(&self, condition: impl FnMut(&Ledger) -> bool) -> Ledger {
        self.runtime.block_on(self.simulator.until(condition))
    }
}
