//! A command that changed a record updates the journal and starts the hooks.

use std::io::Write as _;
use std::process::{Child, Stdio};

use quota_sim::{Account, Change, Script, Window};

use super::program::{Ended, Machine, Provider, argument};

/// An account that was seen at 40 %, of which nothing stays fresh, and a hook that writes a line for every threshold and reset.
struct World {
    provider: Provider,
    machine: Machine,
    config: String,
}

impl World {
    fn new(freshness: &str) -> Self {
        let account = Account::new("main").windows([Window::five_hour().used(40.0)]);
        let provider = Provider::play(Script::new([account]));
        let (machine, config) = provider.configure(Machine::new());
        let told = machine.path("told");
        let hook = format!(
            "[[hooks]]\non = [\"threshold\", \"reset\"]\nrun = [\"/bin/sh\", \"-c\", \"cat >> '{}'\"]\n",
            told.display()
        );
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replacen("[policy]\n", &format!("[policy]\nfreshness = \"{freshness}\"\n"), 1);
        std::fs::write(&config, format!("{text}\n{hook}")).unwrap();
        let config = argument(&config).to_owned();
        assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
        Self { provider, machine, config }
    }

    fn uses(&self, percent: f64) {
        let window = Change::used(Window::five_hour(), percent);
        self.provider.simulator.set("main", window).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.machine.command(arguments);
        command.args(["--config", &self.config]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Lets Claude Code be logged in as the account.
    fn log_in(&self) {
        self.machine.log_in("sim-token-main");
        let text = std::fs::read_to_string(&self.config).unwrap();
        let text: Vec<_> = text.lines().filter(|line| !line.starts_with("token_env")).collect();
        std::fs::write(&self.config, text.join("\n")).unwrap();
    }

    /// Gives a statusline this five-hour window of a session.
    fn session(&self, five_hour: &str) {
        let mut line = self.machine.command(&["statusline", "--config", &self.config]);
        let mut line = line.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let session = format!(r#"{{"rate_limits":{{"five_hour":{five_hour}}}}}"#);
        line.stdin.take().unwrap().write_all(session.as_bytes()).unwrap();
        assert!(line.wait().unwrap().success());
    }

    /// The thresholds and resets that hooks ran for, in their order, once all hooks have ended.
    fn told(&self) -> Vec<String> {
        self.machine.wait_for_hooks();
        let told = std::fs::read_to_string(self.machine.path("told")).unwrap_or_default();
        let threshold = |line: &str| {
            let note: serde_json::Value = serde_json::from_str(line).unwrap();
            if note["kind"] == "reset" { "reset".to_owned() } else { note["threshold_percent"].to_string() }
        };
        told.lines().map(threshold).collect()
    }
}

/// As a statusline starts it.
const REFRESHER: [&str; 5] = ["refresh-detached", "--account", "anthropic/main", "--claim", "0"];

#[test]
fn a_refresher_updates_the_journal() {
    let world = World::new("2ms");
    world.uses(80.0);

    world.start(&REFRESHER).wait().unwrap();

    assert_eq!(world.told(), ["50.0", "75.0"]);
}

#[test]
fn a_guard_updates_the_journal() {
    let world = World::new("2ms");
    world.uses(80.0);

    let ended = world.machine.run(&["guard", "--min-remaining", "30", "--config", &world.config]);

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
    assert_eq!(world.told(), ["50.0", "75.0"]);
}

#[test]
fn pick_and_explain_update_the_journal() {
    for choice in ["pick", "explain"] {
        let world = World::new("2ms");
        // What is old and against an account is looked at again before the choice.
        world.uses(100.0);
        assert_eq!(world.machine.run(&["status", "--config", &world.config]).code, Some(0));
        assert_eq!(world.told(), ["50.0", "75.0", "90.0", "100.0"]);
        world.uses(20.0);

        let ended = world.machine.run(&[choice, "--config", &world.config]);

        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
        assert_eq!(world.told()[4..], ["reset"], "{choice}");
    }
}

#[cfg(unix)]
#[test]
fn a_command_starts_before_its_hooks_end() {
    let world = World::new("2ms");
    world.uses(100.0);
    assert_eq!(world.machine.run(&["status", "--config", &world.config]).code, Some(0));
    let (begun, after) = (world.machine.path("begun"), world.machine.path("after"));
    // The hook ends when the command has begun, and so never, if the command waits for it.
    let script = format!("until [ -e '{}' ]; do :; done; : > '{}'", begun.display(), after.display());
    let hook = format!(
        "[[hooks]]\non = [\"refreshed\"]\nrun = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"60s\"\n"
    );
    let text = std::fs::read_to_string(&world.config).unwrap();
    std::fs::write(&world.config, format!("{text}\n{hook}")).unwrap();
    world.uses(20.0);

    let command = ["run", "--config", &world.config, "--", "/bin/sh", "-c", ": > \"$0\"", argument(&begun)];
    let ended = world.machine.run(&command);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    // The process that updates the journal outlives the command.
    while !after.exists() || world.told().len() < 5 {}
    assert_eq!(world.told()[4..], ["reset"]);
}

#[test]
fn a_waiting_guard_updates_the_journal() {
    let world = World::new("2ms");
    world.uses(95.0);
    let mut guard = world.start(&["guard", "--wait"]);

    while world.told().len() < 3 {
        assert!(guard.try_wait().unwrap().is_none(), "it waits for more than there is");
    }

    guard.kill().unwrap();
    guard.wait().unwrap();
    assert_eq!(world.told(), ["50.0", "75.0", "90.0"]);
}

#[test]
fn a_hook_that_hangs_times_out_and_the_next_command_reports_it_once() {
    let world = World::new("2ms");
    let text = std::fs::read_to_string(&world.config).unwrap();
    let hook = "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"tail\", \"-f\", \"/dev/null\"]\ntimeout = \"50ms\"\n";
    std::fs::write(&world.config, format!("{text}\n{hook}")).unwrap();
    world.uses(80.0);

    let ended = world.machine.run(&["guard", "--min-remaining", "30", "--config", &world.config]);

    assert_eq!(ended.code, Some(1));
    assert!(!ended.stderr.contains("hook"), "{}", ended.stderr);
    world.machine.wait_for_hooks();
    let reports =
        |ended: &Ended| ended.stderr.matches("hook 2 timed out after 0.05 s (for threshold").count();
    let next = || world.machine.run(&["status", "--offline", "--config", &world.config]);
    assert_eq!((reports(&next()), reports(&next())), (1, 0));
}

#[test]
fn of_concurrent_commands_one_runs_the_hooks() {
    let world = World::new("2ms");
    world.uses(80.0);

    let commands: [&[&str]; 3] = [&REFRESHER, &["guard"], &["status"]];
    let all: Vec<_> = commands.iter().cycle().take(9).map(|arguments| world.start(arguments)).collect();
    for mut one in all {
        one.wait().unwrap();
    }

    assert_eq!(world.told(), ["50.0", "75.0"]);
}

#[test]
fn usage_of_a_session_is_an_event_without_a_call() {
    let world = World::new("1h");
    world.log_in();

    world.session(r#"{"used_percentage":55.0}"#);

    // The refresher outlives the statusline.
    while world.told().is_empty() {}
    assert_eq!(world.told(), ["50.0"]);
    assert_eq!(world.provider.simulator.ledger().calls(), 1);
}

#[test]
fn implausible_usage_of_a_session_is_no_event() {
    let world = World::new("1h");
    world.log_in();
    let overnight = quota::Clock::system().now().as_second() - 9 * 3600;

    world.session(&format!(r#"{{"used_percentage":{}}}"#, overnight));
    world.session(&format!(r#"{{"used_percentage":97.0,"resets_at":{overnight}}}"#));
    world.session(r#"{"used_percentage":55.0}"#);

    // What runs the hooks outlives the line.
    while world.told().is_empty() {}
    assert_eq!(world.told(), ["50.0"]);
    let events = world.machine.run(&["events", "--json", "--config", &world.config]);
    let thresholds = events.stdout.lines().filter(|line| line.contains(r#""kind":"threshold""#));
    assert_eq!(thresholds.count(), 1, "{}", events.stdout);
}
