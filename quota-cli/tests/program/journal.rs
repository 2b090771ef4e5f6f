//! What commands that read the store show of what others did, and the hooks they run for it, on a real server.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use quota_sim::{Account, Script, Window};
use redis_harness::Server;
use rustix::process::{Pid, Signal, getsid, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::program::{Ended, Machine, Provider, argument};

fn playing(percent: f64) -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(percent)])]))
}

/// A machine on `server` whose every `status` asks `provider`, with these lines more in its configuration.
fn machine(server: &Server, provider: &Provider, more: &str) -> (Machine, PathBuf) {
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[policy]\n", "[policy]\nfreshness = \"2ms\"\n", 1);
    std::fs::write(&config, format!("{text}\n{more}")).unwrap();
    (machine.set("QUOTA_STORE", &server.url()), config)
}

/// An account whose use was seen at 40 and then at 80 %.
fn risen(server: &Server) -> (Machine, PathBuf) {
    let (before, after) = (playing(40.0), playing(80.0));
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
    let (machine, config) = risen(&server);

    let ended = machine.run(&["events", "--json", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let told: Vec<_> =
        lines(&ended).iter().map(|line| json!([line["kind"], line["threshold_percent"]])).collect();
    assert_eq!(told, [json!(["refreshed", null]), json!(["threshold", 50.0]), json!(["threshold", 75.0])]);
}

#[test]
fn a_hook_runs_once_however_many_processes_find_its_event() {
    let server = Server::start();
    let (before, after) = (playing(40.0), playing(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let (second, config) = machine(&server, &after, "");
    let told = second.path("told");
    let hook = format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", \"cat >> '{}'\"]\n",
        told.display()
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

    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(r#""threshold_percent":75.0"#), "{told}");
}

#[test]
fn follow_prints_new_events() {
    let server = Server::start();
    let (before, after) = (playing(40.0), playing(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let mut follower = first
        .command(&["events", "--follow", "--json", "--config", argument(&config)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(follower.stdout.take().unwrap()).lines();

    let (second, config) = machine(&server, &after, "");
    second.run(&["status", "--config", argument(&config)]);

    let kinds: Vec<_> = (0..3)
        .map(|_| serde_json::from_str::<Value>(&told.next().unwrap().unwrap()).unwrap()["kind"].clone())
        .collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(kinds, ["refreshed", "threshold", "threshold"]);
}

/// A hook whose grandchild has this pipe open until it is ended.
fn endless(pipe: &std::path::Path) -> String {
    let script = format!("(echo begun; exec sleep 3600) > '{}' & wait", pipe.display());
    let script = serde_json::to_string(&script).unwrap();
    format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\ntimeout = \"60s\"\n"
    )
}

/// The commands that start hooks, also for calls of other processes.
const WITH_HOOKS: [&[&str]; 6] = [
    &["status"],
    &["pace"],
    &["budget"],
    &["events"],
    &["events", "--follow"],
    &["accounts", "clear-hold", "main"],
];

/// An account with a hook, a rise to 80 % that no journal has, and how to forget that a journal got it.
struct Risen {
    server: Server,
    machine: Machine,
    config: PathBuf,
    _providers: [Provider; 2],
}

const JOURNAL: &str = "quota:1:{anthropic/main#journal}";

impl Risen {
    fn new(hook: impl FnOnce(&Machine) -> String) -> Self {
        let server = Server::start();
        let (before, after) = (playing(40.0), playing(80.0));
        let (first, config) = machine(&server, &before, "");
        first.run(&["status", "--config", argument(&config)]);
        assert_eq!(server.command::<i64>(&["COPY", JOURNAL, "kept"]), 1);
        let (second, config) = machine(&server, &after, "");
        second.run(&["status", "--config", argument(&config)]);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}\n{}", hook(&second))).unwrap();
        let risen = Self { server, machine: second, config, _providers: [before, after] };
        risen.forget();
        risen
    }

    /// As if the command that saw 80 % had been killed before it wrote that down.
    fn forget(&self) {
        assert_eq!(self.server.command::<i64>(&["COPY", "kept", JOURNAL, "REPLACE"]), 1);
    }

    fn start(&self, command: &[&str]) -> Child {
        use std::os::unix::process::CommandExt as _;

        let mut command = self.machine.command(&[command, &["--config", argument(&self.config)]].concat());
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// A signal ends the process that runs the hooks, with all that the hook has started.
#[test]
fn no_command_waits_for_its_hooks_or_ends_them() {
    let risen = Risen::new(|machine| {
        let pipe = machine.path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        endless(&pipe)
    });
    let signals = [Signal::HUP, Signal::TERM];
    for (command, signal) in WITH_HOOKS.into_iter().zip(signals.into_iter().cycle()) {
        risen.forget();
        let mut child = risen.start(command);
        let mut lines = BufReader::new(std::fs::File::open(risen.machine.path("pipe")).unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "begun");

        if command.contains(&"--follow") {
            kill_process_group(Pid::from_child(&child), Signal::HUP).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(129));
        } else {
            assert!(child.wait().unwrap().code().is_some_and(|code| code <= 1), "{command:?}");
        }

        let [helper] = risen.machine.hook_processes()[..] else { panic!("{command:?}: one hook runs") };
        assert_eq!(getsid(Some(helper)).unwrap(), helper, "it has a session of its own");
        // Ctrl-C is not for it.
        kill_process(helper, Signal::INT).unwrap();
        assert_eq!(risen.machine.hook_processes(), [helper]);
        kill_process(helper, signal).unwrap();
        // The pipe ends with the last process that has it open.
        assert!(lines.next().is_none(), "{command:?}");
        risen.machine.wait_for_hooks();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hook_can_be_interrupted_as_any_program() {
    let risen = Risen::new(|machine| {
        let script = format!("grep SigIgn /proc/self/status > '{}'", machine.path("ignored").display());
        let script = serde_json::to_string(&script).unwrap();
        format!("[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\n")
    });

    risen.start(&["status"]).wait().unwrap();
    risen.machine.wait_for_hooks();

    let ignored = std::fs::read_to_string(risen.machine.path("ignored")).unwrap();
    let mask = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    let bits = [Signal::INT, Signal::QUIT].map(|signal| 1 << (signal.as_raw() - 1));
    assert!(bits.iter().all(|bit: &u64| mask & bit == 0), "{ignored}");
}

/// A hook that says that it has begun, and ends once there is a file.
fn patient(machine: &Machine) -> String {
    let [begun, go, done] = ["begun", "go", "done"].map(|name| machine.path(name).display().to_string());
    let script = format!("echo > '{begun}'; until [ -e '{go}' ]; do :; done; echo x >> '{done}'");
    let script = serde_json::to_string(&script).unwrap();
    format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\ntimeout = \"60s\"\n"
    )
}

#[test]
fn a_hook_outlives_a_hangup_and_a_kill_of_the_group_of_its_command() {
    for signal in [Signal::HUP, Signal::KILL] {
        let risen = Risen::new(patient);
        let mut child = risen.start(&["events", "--follow"]);
        while !risen.machine.path("begun").exists() {}

        kill_process_group(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        std::fs::write(risen.machine.path("go"), "").unwrap();

        risen.machine.wait_for_hooks();
        assert_eq!(std::fs::read_to_string(risen.machine.path("done")).unwrap(), "x\n");
    }
}

#[test]
fn a_hook_whose_process_is_killed_does_not_run_again() {
    let risen = Risen::new(patient);
    risen.start(&["status"]).wait().unwrap();
    while !risen.machine.path("begun").exists() {}
    let [helper] = risen.machine.hook_processes()[..] else { panic!("one hook runs") };

    kill_process(helper, Signal::KILL).unwrap();
    risen.machine.wait_for_hooks();
    std::fs::remove_file(risen.machine.path("begun")).unwrap();
    risen.start(&["status"]).wait().unwrap();
    risen.machine.wait_for_hooks();

    assert!(!risen.machine.path("begun").exists());
    // Nothing ends the command of the hook, which has a process group of its own.
    std::fs::write(risen.machine.path("go"), "").unwrap();
    while !risen.machine.path("done").exists() {}
}

/// A hook that leaves a file.
fn leaves_a_file(machine: &Machine) -> String {
    let ran = machine.path("ran");
    format!("[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"touch\", {ran:?}]\n")
}

#[test]
fn a_command_that_fails_after_an_event_has_started_its_hooks() {
    let risen = Risen::new(leaves_a_file);

    let ended = risen.machine.run(&["pace", "--window", "moon", "--config", argument(&risen.config)]);
    risen.machine.wait_for_hooks();

    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(risen.machine.path("ran").exists());
}

/// The output of `quota status` run from a file that `then` has deleted or replaced.
#[cfg(target_os = "linux")]
fn status_after_an_upgrade(risen: &Risen, then: &str) -> Ended {
    let program = risen.machine.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_quota"), &program).unwrap();
    let command = risen.machine.command(&["status", "--offline", "--config", argument(&risen.config)]);
    let script = format!(r#"exec 9<"$0"; /bin/rm "$0"; {then}; exec /proc/self/fd/9 "$@""#);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &script]).arg(&program).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let ended = Ended::of(shell.current_dir(risen.machine.path(".")).output().unwrap());
    risen.machine.wait_for_hooks();
    ended
}

#[cfg(target_os = "linux")]
#[test]
fn hooks_start_after_the_program_was_replaced() {
    let risen = Risen::new(leaves_a_file);

    let ended = status_after_an_upgrade(&risen, &format!("/bin/cp {:?} \"$0\"", env!("CARGO_BIN_EXE_quota")));

    assert!(risen.machine.path("ran").exists(), "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn hooks_that_cannot_start_are_reported() {
    let risen = Risen::new(leaves_a_file);

    let ended = status_after_an_upgrade(&risen, ":");

    assert!(ended.stderr.contains("could not start the hooks of anthropic/main"), "{}", ended.stderr);
}

#[test]
fn a_failed_hook_is_reported_once_by_doctor_or_the_next_command() {
    let failing = "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/false\"]\n";
    let risen = Risen::new(|_| failing.to_owned());
    let config = argument(&risen.config);
    let run = |command: &[&str]| risen.machine.run(&[command, &["--config", config]].concat());
    let line = "hook 1 ended with exit status: 1 (for threshold of anthropic/main)";

    assert!(!run(&["status", "--offline"]).stderr.contains("hook"));
    risen.machine.wait_for_hooks();
    let reports = [run(&["events"]), run(&["events"])].map(|ended| ended.stderr.matches(line).count());
    risen.forget();
    run(&["status", "--offline"]);
    risen.machine.wait_for_hooks();
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
    let (before, after) = (playing(40.0), playing(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    let told = first.path("told");
    let hook = format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", \"/usr/bin/env > '{}'\"]\n",
        told.display()
    );
    let (second, config) = machine(&server, &after, &hook);
    let second = second.set("ANTHROPIC_API_KEY", "sk-ant-api03-made-up").set("DISPLAY", ":0");

    second.run(&["status", "--config", argument(&config)]);
    second.wait_for_hooks();

    let told = std::fs::read_to_string(told).unwrap();
    assert!(told.contains("QUOTA_EVENT=threshold\n") && told.contains("DISPLAY=:0\n"), "{told}");
    for secret in ["ANTHROPIC_API_KEY", "QUOTA_SIM_MAIN", "QUOTA_STORE"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn the_calls_of_all_processes_are_counted_together() {
    let server = Server::start();
    let (machine, config) = risen(&server);

    let ended = machine.run(&["budget", "--json", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let account = &ended.json()["accounts"][0];
    assert_eq!((&account["calls"], &account["left"]), (&json!(2), &json!(26)));
    assert_eq!(account["callers"][0]["name"], "quota status");
    assert_eq!(account["hold"], Value::Null);
}

#[test]
fn two_readings_a_moment_apart_are_no_pace() {
    let server = Server::start();
    let (machine, config) = risen(&server);

    let ended = machine.run(&["pace", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("80 % used"), "{}", ended.stdout);
    assert!(ended.stdout.contains("trend needs 30 min of data"), "{}", ended.stdout);
}

#[test]
fn one_reading_in_mid_window_gives_the_average() {
    let server = Server::start();
    // Two thirds of five hours have passed.
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
fn a_use_that_the_provider_lowers_within_its_period_is_one_reset() {
    let server = Server::start();
    let (before, after) = (playing(96.0), playing(3.0));
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
fn a_drawing_goes_to_a_file() {
    let server = Server::start();
    let (machine, config) = risen(&server);

    let ended = machine.run(&["pace", "--svg", "pace.svg", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(std::fs::read_to_string(machine.path("pace.svg")).unwrap().starts_with("<svg "));
}

#[test]
fn an_unreachable_store_is_one_line() {
    let mut server = Server::start();
    let (machine, config) = risen(&server);
    server.kill();

    for command in ["events", "budget", "pace"] {
        let ended = machine.run(&[command, "--config", argument(&config)]);

        assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn without_a_shared_store_the_reason_is_printed() {
    let provider = playing(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["--store", "memory:", "events", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    assert!(ended.stderr.contains("--store"), "{}", ended.stderr);
}

#[test]
fn without_events_text_has_a_line_and_json_is_empty() {
    let server = Server::start();
    let provider = playing(40.0);
    let (machine, config) = machine(&server, &provider, "");
    machine.run(&["status", "--config", argument(&config)]);

    let people = machine.run(&["events", "--config", argument(&config)]);
    let programs = machine.run(&["events", "--json", "--config", argument(&config)]);

    assert_eq!((people.code, people.stdout.as_str(), people.stderr.lines().count()), (Some(0), "", 1));
    assert_eq!((programs.code, programs.stdout.as_str(), programs.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn an_unknown_account_is_reported_with_the_nearest_name() {
    let provider = playing(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["budget", "--account", "anthropic/mian", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("did you mean anthropic/main?"), "{}", ended.stderr);
}
