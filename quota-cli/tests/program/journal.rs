//! Commands that read the store show the events of other processes and start hooks for them. The store is a real Redis server.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use quota_sim::{Account, Script, Window};
use redis_harness::Server;
use rustix::process::{Pid, Signal, getsid, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::support::{Ended, Machine, Provider, argument};

fn provider_at(percent: f64) -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(percent)])]))
}

/// A machine on `server`. Each `status` calls `provider`, because its data is stale after 2 ms. `more` is appended to the configuration.
fn machine(server: &Server, provider: &Provider, more: &str) -> (Machine, PathBuf) {
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[policy]\n", "[policy]\nfreshness = \"2ms\"\n", 1);
    std::fs::write(&config, format!("{text}\n{more}")).unwrap();
    (machine.set("QUOTA_STORE", &server.url()), config)
}

/// A machine with an account that was read at 40 % and then at 80 %.
fn machine_with_a_rise(server: &Server) -> (Machine, PathBuf) {
    let (before, after) = (provider_at(40.0), provider_at(80.0));
    let (first, config) = machine(server, &before, "");
    assert_eq!(first.run(&["status", "--config", argument(&config)]).code, Some(0));
    let (second, config) = machine(server, &after, "");
    assert_eq!(second.run(&["status", "--config", argument(&config)]).code, Some(0));
    (second, config)
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_of_one_process_is_shown_by_another() {
    let server = Server::start();
    let (machine, config) = machine_with_a_rise(&server);

    let ended = machine.run(&["events", "--json", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let log: Vec<_> =
        lines(&ended).iter().map(|line| json!([line["kind"], line["threshold_percent"]])).collect();
    assert_eq!(log, [json!(["refreshed", null]), json!(["threshold", 50.0]), json!(["threshold", 75.0])]);
}

#[test]
fn a_hook_runs_once_for_an_event_that_six_processes_find() {
    let server = Server::start();
    let (before, after) = (provider_at(40.0), provider_at(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let (second, config) = machine(&server, &after, "");
    let log = second.path("log");
    let hook = format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", \"cat >> '{}'\"]\n",
        log.display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{hook}")).unwrap();

    let spawn = |_| {
        let mut command = second.command(&["status", "--config", argument(&config)]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..6).map(spawn).collect();
    for mut child in children {
        child.wait().unwrap();
    }
    second.wait_for_hooks();

    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(r#""threshold_percent":75.0"#), "{log}");
}

#[test]
fn follow_prints_new_events() {
    let server = Server::start();
    let (before, after) = (provider_at(40.0), provider_at(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let mut follower = first
        .command(&["events", "--follow", "--json", "--config", argument(&config)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(follower.stdout.take().unwrap()).lines();

    let (second, config) = machine(&server, &after, "");
    second.run(&["status", "--config", argument(&config)]);

    let kinds: Vec<_> = (0..3)
        .map(|_| serde_json::from_str::<Value>(&log.next().unwrap().unwrap()).unwrap()["kind"].clone())
        .collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(kinds, ["refreshed", "threshold", "threshold"]);
}

/// A hook that starts a child process, which keeps this pipe open until it is killed.
fn endless_hook(pipe: &std::path::Path) -> String {
    let script = format!("(echo started; exec sleep 3600) > '{}' & wait", pipe.display());
    let script = serde_json::to_string(&script).unwrap();
    format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\ntimeout = \"60s\"\n"
    )
}

/// The commands that start hooks, including for events of other processes.
const WITH_HOOKS: [&[&str]; 6] = [
    &["status"],
    &["pace"],
    &["budget"],
    &["events"],
    &["events", "--follow"],
    &["accounts", "clear-hold", "main"],
];

/// An account with a hook, and a rise to 80 % that the journal does not have yet.
struct RiseTest {
    server: Server,
    machine: Machine,
    config: PathBuf,
    _providers: [Provider; 2],
}

const JOURNAL: &str = "quota:1:{anthropic/main#journal}";

impl RiseTest {
    fn new(hook: impl FnOnce(&Machine) -> String) -> Self {
        let server = Server::start();
        let (before, after) = (provider_at(40.0), provider_at(80.0));
        let (first, config) = machine(&server, &before, "");
        first.run(&["status", "--config", argument(&config)]);
        assert_eq!(server.command::<i64>(&["COPY", JOURNAL, "before"]), 1);
        let (second, config) = machine(&server, &after, "");
        second.run(&["status", "--config", argument(&config)]);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}\n{}", hook(&second))).unwrap();
        let test = Self { server, machine: second, config, _providers: [before, after] };
        test.restore_old_journal();
        test
    }

    /// Restores the journal from before the rise, as if the command that read 80 % had been killed before it updated the journal.
    fn restore_old_journal(&self) {
        assert_eq!(self.server.command::<i64>(&["COPY", "before", JOURNAL, "REPLACE"]), 1);
    }

    fn start(&self, command: &[&str]) -> Child {
        use std::os::unix::process::CommandExt as _;

        let mut command = self.machine.command(&[command, &["--config", argument(&self.config)]].concat());
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// A signal to the process that runs the hooks also ends the processes that the hook started.
#[test]
fn no_command_waits_for_its_hooks_or_stops_them() {
    let test = RiseTest::new(|machine| {
        let pipe = machine.path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        endless_hook(&pipe)
    });
    let signals = [Signal::HUP, Signal::TERM];
    for (command, signal) in WITH_HOOKS.into_iter().zip(signals.into_iter().cycle()) {
        test.restore_old_journal();
        let mut child = test.start(command);
        let mut lines = BufReader::new(std::fs::File::open(test.machine.path("pipe")).unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "started");

        if command.contains(&"--follow") {
            kill_process_group(Pid::from_child(&child), Signal::HUP).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(129));
        } else {
            assert!(child.wait().unwrap().code().is_some_and(|code| code <= 1), "{command:?}");
        }

        let [helper] = test.machine.hook_processes()[..] else { panic!("{command:?}: one hook runs") };
        assert_eq!(getsid(Some(helper)).unwrap(), helper, "it leads its own session");
        // The hook process ignores SIGINT.
        kill_process(helper, Signal::INT).unwrap();
        assert_eq!(test.machine.hook_processes(), [helper]);
        kill_process(helper, signal).unwrap();
        // The pipe closes when the last process that has it open ends.
        assert!(lines.next().is_none(), "{command:?}");
        test.machine.wait_for_hooks();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hook_does_not_inherit_ignored_signals() {
    let test = RiseTest::new(|machine| {
        let script = format!("grep SigIgn /proc/self/status > '{}'", machine.path("ignored").display());
        let script = serde_json::to_string(&script).unwrap();
        format!("[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\n")
    });

    test.start(&["status"]).wait().unwrap();
    test.machine.wait_for_hooks();

    let ignored = std::fs::read_to_string(test.machine.path("ignored")).unwrap();
    let mask = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    let bits = [Signal::INT, Signal::QUIT].map(|signal| 1 << (signal.as_raw() - 1));
    assert!(bits.iter().all(|bit: &u64| mask & bit == 0), "{ignored}");
}

/// A hook that creates the file `started`, and ends once the file `go` exists.
fn hook_that_waits_for_a_file(machine: &Machine) -> String {
    let [started, go, done] = ["started", "go", "done"].map(|name| machine.path(name).display().to_string());
    let script = format!("echo > '{started}'; until [ -e '{go}' ]; do :; done; echo x >> '{done}'");
    let script = serde_json::to_string(&script).unwrap();
    format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\ntimeout = \"60s\"\n"
    )
}

#[test]
fn a_hook_outlives_a_signal_to_the_group_of_its_command() {
    for signal in [Signal::HUP, Signal::KILL] {
        let test = RiseTest::new(hook_that_waits_for_a_file);
        let mut child = test.start(&["events", "--follow"]);
        while !test.machine.path("started").exists() {}

        kill_process_group(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        std::fs::write(test.machine.path("go"), "").unwrap();

        test.machine.wait_for_hooks();
        assert_eq!(std::fs::read_to_string(test.machine.path("done")).unwrap(), "x\n");
    }
}

#[test]
fn a_hook_whose_process_is_killed_does_not_run_again() {
    let test = RiseTest::new(hook_that_waits_for_a_file);
    test.start(&["status"]).wait().unwrap();
    while !test.machine.path("started").exists() {}
    let [helper] = test.machine.hook_processes()[..] else { panic!("one hook runs") };

    kill_process(helper, Signal::KILL).unwrap();
    test.machine.wait_for_hooks();
    std::fs::remove_file(test.machine.path("started")).unwrap();
    test.start(&["status"]).wait().unwrap();
    test.machine.wait_for_hooks();

    assert!(!test.machine.path("started").exists());
    // The command of the hook still runs, because it has its own process group.
    std::fs::write(test.machine.path("go"), "").unwrap();
    while !test.machine.path("done").exists() {}
}

/// A hook that creates the file `ran`.
fn hook_that_creates_a_file(machine: &Machine) -> String {
    let ran = machine.path("ran");
    format!("[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"touch\", {ran:?}]\n")
}

#[test]
fn a_command_that_fails_after_an_event_has_started_its_hooks() {
    let test = RiseTest::new(hook_that_creates_a_file);

    let ended = test.machine.run(&["pace", "--window", "moon", "--config", argument(&test.config)]);
    test.machine.wait_for_hooks();

    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(test.machine.path("ran").exists());
}

/// Runs `quota status` from a program file that is deleted, and then replaced if `then` does so.
#[cfg(target_os = "linux")]
fn status_after_an_upgrade(test: &RiseTest, then: &str) -> Ended {
    let program = test.machine.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_quota"), &program).unwrap();
    let command = test.machine.command(&["status", "--offline", "--config", argument(&test.config)]);
    let script = format!(r#"exec 9<"$0"; /bin/rm "$0"; {then}; exec /proc/self/fd/9 "$@""#);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &script]).arg(&program).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let ended = Ended::of(shell.current_dir(test.machine.path(".")).output().unwrap());
    test.machine.wait_for_hooks();
    ended
}

#[cfg(target_os = "linux")]
#[test]
fn hooks_start_after_the_program_was_replaced() {
    let test = RiseTest::new(hook_that_creates_a_file);

    let ended = status_after_an_upgrade(&test, &format!("/bin/cp {:?} \"$0\"", env!("CARGO_BIN_EXE_quota")));

    assert!(test.machine.path("ran").exists(), "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn hooks_that_cannot_start_are_reported() {
    let test = RiseTest::new(hook_that_creates_a_file);

    let ended = status_after_an_upgrade(&test, ":");

    assert!(ended.stderr.contains("could not start the hooks of anthropic/main"), "{}", ended.stderr);
}

#[test]
fn a_failed_hook_is_reported_once_by_doctor_or_the_next_command() {
    let failing = "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/false\"]\n";
    let test = RiseTest::new(|_| failing.to_owned());
    let config = argument(&test.config);
    let run = |command: &[&str]| test.machine.run(&[command, &["--config", config]].concat());
    let line = "hook 1 ended with exit status: 1 (for threshold of anthropic/main)";

    assert!(!run(&["status", "--offline"]).stderr.contains("hook"));
    test.machine.wait_for_hooks();
    let reports = [run(&["events"]), run(&["events"])].map(|ended| ended.stderr.matches(line).count());
    test.restore_old_journal();
    run(&["status", "--offline"]);
    test.machine.wait_for_hooks();
    let checks = [run(&["doctor", "--json"]), run(&["doctor", "--json"])];

    assert_eq!(reports, [1, 0]);
    let hooks = checks.map(|ended| {
        let document = ended.json();
        let checks = document["checks"].as_array().unwrap().clone();
        checks
            .iter()
            .filter(|check| check["area"] == "hook")
            .map(|check| check["message"].clone())
            .collect::<Vec<_>>()
    });
    assert!(hooks[0].len() == 1 && hooks[0][0].as_str().unwrap().starts_with(line), "{hooks:?}");
    assert!(hooks[1].is_empty(), "{hooks:?}");
}

#[test]
fn a_hook_gets_its_payload_and_no_secret() {
    let server = Server::start();
    let (before, after) = (provider_at(40.0), provider_at(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let log = first.path("log");
    let hook = format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", \"/usr/bin/env > '{}'\"]\n",
        log.display()
    );
    let (second, config) = machine(&server, &after, &hook);
    let second = second.set("ANTHROPIC_API_KEY", "sk-ant-api03-made-up").set("DISPLAY", ":0");

    second.run(&["status", "--config", argument(&config)]);
    second.wait_for_hooks();

    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("QUOTA_EVENT=threshold\n") && log.contains("DISPLAY=:0\n"), "{log}");
    for secret in ["ANTHROPIC_API_KEY", "QUOTA_SIM_MAIN", "QUOTA_STORE"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn the_calls_of_all_processes_are_counted_together() {
    let server = Server::start();
    let (machine, config) = machine_with_a_rise(&server);

    let ended = machine.run(&["budget", "--json", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let account = &ended.json()["accounts"][0];
    assert_eq!((&account["calls"], &account["left"]), (&json!(2), &json!(26)));
    assert_eq!(account["callers"][0]["name"], "quota status");
    assert_eq!(account["hold"], Value::Null);
}

#[test]
fn two_readings_within_milliseconds_give_no_trend() {
    let server = Server::start();
    let (machine, config) = machine_with_a_rise(&server);

    let ended = machine.run(&["pace", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("80 % used"), "{}", ended.stdout);
    assert!(ended.stdout.contains("trend needs 30 min of data"), "{}", ended.stdout);
}

#[test]
fn one_reading_in_mid_window_gives_the_average() {
    let server = Server::start();
    // Two thirds of the window have elapsed.
    let window = Window::five_hour().used(80.0).resets_in(Duration::from_secs(6_000));
    let provider = Provider::play(Script::new([Account::new("main").windows([window])]));
    let (machine, config) = machine(&server, &provider, "");
    machine.run(&["status", "--config", argument(&config)]);

    let people = machine.run(&["pace", "--config", argument(&config)]);
    let programs = machine.run(&["pace", "--json", "--config", argument(&config)]);

    assert_eq!((people.code, people.stderr.as_str()), (Some(0), ""));
    assert!(people.stdout.contains("average since the window began"), "{}", people.stdout);
    let window = &programs.json()["accounts"][0]["windows"][0];
    assert_eq!((&window["basis"], &window["enough"]), (&json!("average"), &json!(false)));
    assert_eq!(window["at_reset_percent"].as_f64().unwrap().round(), 120.0);
}

#[test]
fn usage_lowered_within_a_window_is_one_reset() {
    let server = Server::start();
    let (before, after) = (provider_at(96.0), provider_at(3.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let (second, config) = machine(&server, &after, "");
    for _ in 0..3 {
        second.run(&["status", "--config", argument(&config)]);
    }

    let ended = second.run(&["events", "--json", "--config", argument(&config)]);

    let kinds: Vec<_> = lines(&ended).iter().map(|line| line["kind"].clone()).collect();
    let resets = kinds.iter().filter(|kind| **kind == "reset").count();
    assert_eq!((resets, kinds.contains(&json!("threshold"))), (1, false), "{kinds:?}");
}

#[test]
fn pace_writes_an_svg_file() {
    let server = Server::start();
    let (machine, config) = machine_with_a_rise(&server);

    let ended = machine.run(&["pace", "--svg", "pace.svg", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(std::fs::read_to_string(machine.path("pace.svg")).unwrap().starts_with("<svg "));
}

#[test]
fn an_unreachable_store_is_one_line() {
    let mut server = Server::start();
    let (machine, config) = machine_with_a_rise(&server);
    server.kill();

    for command in ["events", "budget", "pace"] {
        let ended = machine.run(&[command, "--config", argument(&config)]);

        assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn without_a_shared_store_the_reason_is_printed() {
    let provider = provider_at(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["--store", "memory:", "events", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    assert!(ended.stderr.contains("--store"), "{}", ended.stderr);
}

#[test]
fn without_events_text_has_a_line_and_json_is_empty() {
    let server = Server::start();
    let provider = provider_at(40.0);
    let (machine, config) = machine(&server, &provider, "");
    machine.run(&["status", "--config", argument(&config)]);

    let people = machine.run(&["events", "--config", argument(&config)]);
    let programs = machine.run(&["events", "--json", "--config", argument(&config)]);

    assert_eq!((people.code, people.stdout.as_str(), people.stderr.lines().count()), (Some(0), "", 1));
    assert_eq!((programs.code, programs.stdout.as_str(), programs.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn an_unknown_account_is_reported_with_the_nearest_name() {
    let provider = provider_at(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["budget", "--account", "anthropic/mian", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("did you mean anthropic/main?"), "{}", ended.stderr);
}
