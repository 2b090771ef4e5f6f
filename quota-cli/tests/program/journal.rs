//! What commands that read the store show of what others did, and the hooks they run for it, on a real server.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use quota_sim::{Account, Script, Window};
use redis_harness::Server;
use rustix::process::{Pid, Signal, kill_process};
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
fn what_one_process_saw_another_tells() {
    let server = Server::start();
    let (machine, config) = risen(&server);

    let ended = machine.run(&["events", "--json", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let told: Vec<_> =
        lines(&ended).iter().map(|line| json!([line["kind"], line["threshold_percent"]])).collect();
    assert_eq!(told, [json!(["refreshed", null]), json!(["threshold", 50.0]), json!(["threshold", 75.0])]);
}

#[test]
fn a_hook_runs_once_however_many_processes_see_its_happening() {
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

    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(r#""threshold_percent":75.0"#), "{told}");
}

#[test]
fn who_follows_is_told_what_happens() {
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

#[test]
fn whoever_is_told_waits_for_no_hook_and_may_leave_before_it_ends() {
    const JOURNAL: &str = "quota:1:{anthropic/main#journal}";
    let server = Server::start();
    let (before, after) = (playing(40.0), playing(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    assert_eq!(server.command::<i64>(&["COPY", JOURNAL, "kept"]), 1);
    let endless = "[[hooks]]\non = [\"threshold\"]\nrun = [\"/bin/sh\", \"-c\", \"exec sleep 3600\"]\ntimeout = \"60s\"\n";
    let (second, config) = machine(&server, &after, endless);
    let plain = second.path("plain.toml");
    std::fs::write(&plain, std::fs::read_to_string(&config).unwrap().replace(endless, "")).unwrap();
    second.run(&["status", "--config", argument(&plain)]);
    // As if whoever asked had been killed before it wrote down what had happened.
    assert_eq!(server.command::<i64>(&["COPY", "kept", JOURNAL, "REPLACE"]), 1);

    let mut teller = second
        .command(&["events", "--json", "--config", argument(&config)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told: Vec<_> = BufReader::new(teller.stdout.take().unwrap()).lines().take(3).collect();
    kill_process(Pid::from_child(&teller), Signal::INT).unwrap();
    let ended = teller.wait_with_output().unwrap();

    assert_eq!((told.len(), ended.status.code()), (3, Some(130)));
    // Nothing was waited for until its time was over.
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

/// A hook whose grandchild has this pipe open until it is ended.
fn endless(pipe: &std::path::Path) -> String {
    let script = format!("(echo begun; exec sleep 3600) > '{}' & wait", pipe.display());
    let script = serde_json::to_string(&script).unwrap();
    format!(
        "[[hooks]]\non = [\"threshold\"]\nthresholds = [75]\nrun = [\"/bin/sh\", \"-c\", {script}]\ntimeout = \"60s\"\n"
    )
}

/// The commands that run hooks, also for calls of other processes.
const WITH_HOOKS: [&[&str]; 6] = [
    &["status"],
    &["pace"],
    &["budget"],
    &["events"],
    &["events", "--follow"],
    &["accounts", "clear-hold", "main"],
];

#[test]
fn a_signal_ends_a_command_and_all_that_its_hooks_have_started() {
    const JOURNAL: &str = "quota:1:{anthropic/main#journal}";
    let server = Server::start();
    let (before, after) = (playing(40.0), playing(80.0));
    let (first, config) = machine(&server, &before, "");
    first.run(&["status", "--config", argument(&config)]);
    assert_eq!(server.command::<i64>(&["COPY", JOURNAL, "kept"]), 1);
    let pipe = first.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (second, config) = machine(&server, &after, &endless(&pipe));

    let signals = [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)];
    let with_signals = |command| signals.map(|(signal, code)| (command, signal, code));
    for (command, signal, code) in WITH_HOOKS.into_iter().flat_map(with_signals) {
        // As if the command that saw 80 % had been killed before it wrote that down.
        assert_eq!(server.command::<i64>(&["COPY", "kept", JOURNAL, "REPLACE"]), 1);
        let mut child = second
            .command(&[command, &["--config", argument(&config)]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(std::fs::File::open(&pipe).unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "begun");

        kill_process(Pid::from_child(&child), signal).unwrap();

        assert_eq!(child.wait().unwrap().code(), Some(code), "{command:?}");
        // The pipe ends with the last process that has it open.
        assert!(lines.next().is_none(), "{command:?}");
    }
}

#[test]
fn a_hook_gets_its_note_and_no_secret() {
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
    assert_eq!((&account["made"], &account["left"]), (&json!(2), &json!(26)));
    assert_eq!(account["callers"][0]["name"], "quota status");
    assert_eq!(account["held"], Value::Null);
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
fn a_store_that_is_gone_is_told_in_one_line() {
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
fn without_a_shared_store_it_is_said_why_there_is_nothing() {
    let provider = playing(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["--store", "memory:", "events", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    assert!(ended.stderr.contains("--store"), "{}", ended.stderr);
}

#[test]
fn where_nothing_has_happened_people_are_told_and_programs_get_nothing() {
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
fn an_account_that_there_is_not_is_told_with_the_one_that_may_be_meant() {
    let provider = playing(40.0);
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["budget", "--account", "anthropic/mian", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("did you mean anthropic/main?"), "{}", ended.stderr);
}
