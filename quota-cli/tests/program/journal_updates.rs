//! A command that changed a record updates the journal and starts its hooks.

use std::io::Write as _;
use std::process::{Child, Stdio};

use quota_sim::{Account, Change, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

/// An account that was read at 40 %, and a hook that logs every threshold and reset.
struct Env {
    provider: Provider,
    machine: Machine,
    config: String,
}

impl Env {
    fn new(freshness: &str) -> Self {
        let account = Account::new("main").windows([Window::five_hour().used(40.0)]);
        let provider = Provider::play(Script::new([account]));
        let (machine, config) = provider.configure(Machine::new());
        let log = machine.path("log");
        let hook = format!(
            "[[hooks]]\non = [\"threshold\", \"reset\"]\nrun = [\"/bin/sh\", \"-c\", \"cat >> '{}'\"]\n",
            log.display()
        );
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replacen("[policy]\n", &format!("[policy]\nfreshness = \"{freshness}\"\n"), 1);
        std::fs::write(&config, format!("{text}\n{hook}")).unwrap();
        let config = argument(&config).to_owned();
        assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
        Self { provider, machine, config }
    }

    fn set_usage(&self, percent: f64) {
        let window = Change::used(Window::five_hour(), percent);
        self.provider.simulator.set("main", window).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.machine.command(arguments);
        command.args(["--config", &self.config]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Changes the account to the login of Claude Code.
    fn log_in(&self) {
        self.machine.log_in("sim-token-main");
        let text = std::fs::read_to_string(&self.config).unwrap();
        let text: Vec<_> = text.lines().filter(|line| !line.starts_with("token_env")).collect();
        std::fs::write(&self.config, text.join("\n")).unwrap();
    }

    /// Runs a statusline with this 5-hour window in its session data.
    fn session(&self, five_hour: &str) {
        let mut line = self.machine.command(&["statusline", "--config", &self.config]);
        let mut line = line.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let session = format!(r#"{{"rate_limits":{{"five_hour":{five_hour}}}}}"#);
        line.stdin.take().unwrap().write_all(session.as_bytes()).unwrap();
        assert!(line.wait().unwrap().success());
    }

    /// Waits for all hooks to end. Returns the thresholds and resets that they ran for, in order.
    fn hook_runs(&self) -> Vec<String> {
        self.machine.wait_for_hooks();
        let log = std::fs::read_to_string(self.machine.path("log")).unwrap_or_default();
        let threshold = |line: &str| {
            let payload: serde_json::Value = serde_json::from_str(line).unwrap();
            if payload["kind"] == "reset" {
                "reset".to_owned()
            } else {
                payload["threshold_percent"].to_string()
            }
        };
        log.lines().map(threshold).collect()
    }
}

/// The arguments with which a statusline starts a refresher.
const REFRESHER: [&str; 5] = ["refresh-detached", "--account", "anthropic/main", "--claim", "0"];

#[test]
fn a_refresher_updates_the_journal() {
    let env = Env::new("2ms");
    env.set_usage(80.0);

    env.start(&REFRESHER).wait().unwrap();

    assert_eq!(env.hook_runs(), ["50.0", "75.0"]);
}

#[test]
fn a_guard_updates_the_journal() {
    let env = Env::new("2ms");
    env.set_usage(80.0);

    let ended = env.machine.run(&["guard", "--min-remaining", "30", "--config", &env.config]);

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
    assert_eq!(env.hook_runs(), ["50.0", "75.0"]);
}

#[test]
fn pick_and_explain_update_the_journal() {
    for choice in ["pick", "explain"] {
        let env = Env::new("2ms");
        // A stale reading that makes the account unavailable is refreshed before the choice.
        env.set_usage(100.0);
        assert_eq!(env.machine.run(&["status", "--config", &env.config]).code, Some(0));
        assert_eq!(env.hook_runs(), ["50.0", "75.0", "90.0", "100.0"]);
        env.set_usage(20.0);

        let ended = env.machine.run(&[choice, "--config", &env.config]);

        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
        assert_eq!(env.hook_runs()[4..], ["reset"], "{choice}");
    }
}

#[cfg(unix)]
#[test]
fn a_command_starts_before_its_hooks_end() {
    let env = Env::new("2ms");
    env.set_usage(100.0);
    assert_eq!(env.machine.run(&["status", "--config", &env.config]).code, Some(0));
    let (started, after) = (env.machine.path("started"), env.machine.path("after"));
    // The hook ends when the command has started. If the command waited for the hook, both would hang.
    let script = format!("until [ -e '{}' ]; do :; done; : > '{}'", started.display(), after.display());
    let hook = format!(
        "[[hooks]]\non = [\"refreshed\"]\nrun = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"60s\"\n"
    );
    let text = std::fs::read_to_string(&env.config).unwrap();
    std::fs::write(&env.config, format!("{text}\n{hook}")).unwrap();
    env.set_usage(20.0);

    let command = ["run", "--config", &env.config, "--", "/bin/sh", "-c", ": > \"$0\"", argument(&started)];
    let ended = env.machine.run(&command);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    // The process that updates the journal outlives the command.
    while !after.exists() || env.hook_runs().len() < 5 {}
    assert_eq!(env.hook_runs()[4..], ["reset"]);
}

#[test]
fn a_waiting_guard_updates_the_journal() {
    let env = Env::new("2ms");
    env.set_usage(95.0);
    let mut guard = env.start(&["guard", "--wait"]);

    while env.hook_runs().len() < 3 {
        assert!(guard.try_wait().unwrap().is_none(), "too little is left, so guard must still wait");
    }

    guard.kill().unwrap();
    guard.wait().unwrap();
    assert_eq!(env.hook_runs(), ["50.0", "75.0", "90.0"]);
}

#[test]
fn a_hook_that_hangs_times_out_and_the_next_command_reports_it_once() {
    let env = Env::new("2ms");
    let text = std::fs::read_to_string(&env.config).unwrap();
    let hook = "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"tail\", \"-f\", \"/dev/null\"]\ntimeout = \"50ms\"\n";
    std::fs::write(&env.config, format!("{text}\n{hook}")).unwrap();
    env.set_usage(80.0);

    let ended = env.machine.run(&["guard", "--min-remaining", "30", "--config", &env.config]);

    assert_eq!(ended.code, Some(1));
    assert!(!ended.stderr.contains("hook"), "{}", ended.stderr);
    env.machine.wait_for_hooks();
    let reports =
        |ended: &Ended| ended.stderr.matches("hook 2 timed out after 0.05 s (for threshold").count();
    let next = || env.machine.run(&["status", "--offline", "--config", &env.config]);
    assert_eq!((reports(&next()), reports(&next())), (1, 0));
}

#[test]
fn concurrent_commands_run_each_hook_once() {
    let env = Env::new("2ms");
    env.set_usage(80.0);

    let commands: [&[&str]; 3] = [&REFRESHER, &["guard"], &["status"]];
    let all: Vec<_> = commands.iter().cycle().take(9).map(|arguments| env.start(arguments)).collect();
    for mut one in all {
        one.wait().unwrap();
    }

    assert_eq!(env.hook_runs(), ["50.0", "75.0"]);
}

#[test]
fn session_usage_is_an_event_without_a_call() {
    let env = Env::new("1h");
    env.log_in();

    env.session(r#"{"used_percentage":55.0}"#);

    // The refresher outlives the statusline.
    while env.hook_runs().is_empty() {}
    assert_eq!(env.hook_runs(), ["50.0"]);
    assert_eq!(env.provider.simulator.ledger().calls(), 1);
}

#[test]
fn implausible_session_usage_is_no_event() {
    let env = Env::new("1h");
    env.log_in();
    let overnight = quota::Clock::system().now().as_second() - 9 * 3600;

    env.session(&format!(r#"{{"used_percentage":{}}}"#, overnight));
    env.session(&format!(r#"{{"used_percentage":97.0,"resets_at":{overnight}}}"#));
    env.session(r#"{"used_percentage":55.0}"#);

    // The process that runs the hooks outlives the statusline.
    while env.hook_runs().is_empty() {}
    assert_eq!(env.hook_runs(), ["50.0"]);
    let events = env.machine.run(&["events", "--json", "--config", &env.config]);
    let thresholds = events.stdout.lines().filter(|line| line.contains(r#""kind":"threshold""#));
    assert_eq!(thresholds.count(), 1, "{}", events.stdout);
}
