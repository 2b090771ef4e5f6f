//! `quota guard`: its exit codes and its waits.

use std::process::Stdio;
use std::time::Duration;

use quota::model::Scope;
use quota::{Percent, UsageReport, WindowId, WindowReading};
use quota_sim::{Account, Answer, Change, Phase, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

fn setup(account: Account) -> (Provider, Machine, String) {
    let provider = Provider::play(Script::new([account]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    (provider, machine, config)
}

fn used(percent: f64) -> Account {
    Account::new("main").windows([Window::five_hour().used(percent), Window::seven_day().used(50.0)])
}

#[test]
fn guard_ends_with_0_for_enough_and_1_for_too_little() {
    let (provider, machine, config) = setup(used(85.0));

    let enough = machine.run(&["guard", "--config", &config]);
    let little = machine.run(&["guard", "--min-remaining", "20", "--config", &config]);
    let other =
        machine.run(&["guard", "--min-remaining", "20", "--window", "seven_day", "--config", &config]);

    assert_eq!((enough.code, enough.stdout.as_str(), enough.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(little.code, Some(1));
    assert_eq!(little.stderr, "quota: anthropic/main: five_hour: only 15 % left (20 % required)\n");
    assert_eq!(other.code, Some(0));
    assert_eq!(provider.simulator.ledger().calls(), 1, "the three commands share one reading");
}

#[test]
fn unknown_usage_is_69_unless_allowed() {
    let (_provider, machine, config) = setup(used(1.0).answers([Phase::new(Answer::Forbidden)]));

    let denied = machine.run(&["guard", "--config", &config]);
    let allowed = machine.run(&["guard", "--unknown", "allow", "--config", &config]);

    assert_eq!((denied.code, denied.stderr.lines().count()), (Some(69), 1));
    assert!(denied.stderr.contains("--unknown allow"), "{}", denied.stderr);
    assert!(denied.stderr.contains("does not allow"), "the error has the reason: {}", denied.stderr);
    assert_eq!(allowed.code, Some(0));
}

#[test]
fn model_names_match_as_in_pick_and_an_unknown_one_is_reported() {
    let opus = Window::model("Opus").used(100.0).resets_in(Duration::from_secs(3600));
    let windows = [Window::five_hour().used(10.0), opus];
    let (_provider, machine, config) = setup(Account::new("main").windows(windows));
    let guard = |model| machine.run(&["guard", "--model", model, "--config", &config]);
    let pick = |model| machine.run(&["pick", "--model", model, "--config", &config]);

    for opus in ["opus", "claude-opus-4-5"] {
        assert_eq!((guard(opus).code, pick(opus).code), (Some(1), Some(1)), "{opus}");
    }
    let report = "quota: no window of anthropic/main names model \"claude-opsu-4-5\" (known: opus)\n";
    for ended in [guard("claude-opsu-4-5"), pick("claude-opsu-4-5")] {
        assert_eq!((ended.code, &*ended.stderr), (Some(0), report));
    }
}

#[test]
fn a_wait_without_a_refresh_prints_its_reason_once() {
    let (_provider, machine, config) = setup(used(1.0));
    let text = std::fs::read_to_string(&config).unwrap().replace("QUOTA_SIM_MAIN", "QUOTA_UNSET");
    std::fs::write(&config, text).unwrap();

    let ended = machine.run(&["guard", "--wait", "--timeout", "1s", "--config", &config]);

    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!((ended.code, lines.len()), (Some(69), 2), "{lines:?}");
    assert!(lines[0].contains("QUOTA_UNSET") && lines[0].ends_with("; waiting"), "{lines:?}");
    assert!(lines[1].contains("QUOTA_UNSET") && lines[1].contains("--unknown allow"), "{lines:?}");
}

#[test]
fn invalid_arguments_end_with_64() {
    let (_provider, machine, config) = setup(used(1.0));

    for wrong in [
        ["--min-remaining", "101"],
        ["--min-remaining", "some"],
        ["--account", "missing"],
        ["--unknown", "perhaps"],
        ["--timeout", "5m"],
    ] {
        assert_eq!(
            machine.run(&["guard", "--config", &config, wrong[0], wrong[1]]).code,
            Some(64),
            "{wrong:?}"
        );
    }
}

#[test]
fn json_has_the_windows_and_limits_that_decided() {
    let (_provider, machine, config) = setup(used(95.0));

    let ended = machine.run(&["guard", "--json", "--config", &config]);

    let document = ended.json();
    assert_eq!((ended.code, &document["go"], &document["result"]), (Some(1), &false.into(), &"below".into()));
    assert_eq!((&document["window"], &document["left_percent"]), (&"five_hour".into(), &5.0.into()));
}

#[test]
fn a_timed_out_wait_ends_with_the_current_result() {
    let (provider, machine, config) = setup(used(95.0));

    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(1));

    let ended = machine.run(&["guard", "--wait", "--timeout", "300ms", "--config", &config]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_wait_ends_when_another_process_finds_that_enough_is_left() {
    let (provider, machine, config) = setup(used(95.0));
    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(1));
    let waiting = machine
        .command(&["guard", "--wait", "--config", &config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    provider.simulator.set("main", Change::used(Window::five_hour(), 3.0)).unwrap();
    assert_eq!(machine.run(&["status", "--max-age", "0s", "--config", &config]).code, Some(0));

    let ended = Ended::of(waiting.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 2, "the waiting guard made no call");
}

fn ago(seconds: u64) -> jiff::Timestamp {
    quota::Clock::system().now() - Duration::from_secs(seconds)
}

/// A machine whose 5-hour window was read `read` seconds ago and reset `reset` seconds ago.
fn after_reset(read: u64, reset: u64, grace: &str) -> (Provider, Machine, String) {
    let (provider, machine, config) = setup(used(1.0));
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[policy]\n", &format!("[policy]\nreset_grace = \"{grace}\"\n"), 1);
    std::fs::write(&config, text).unwrap();
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(ago(reset));
    machine.seed([(UsageReport::polled([five]), ago(read))]);
    (provider, machine, config)
}

#[test]
fn guard_waits_for_the_refresh_after_a_reset() {
    for command in [&["guard"][..], &["guard", "--wait", "--timeout", "20s"], &["pick"]] {
        let (provider, machine, config) = after_reset(120, 3, "8s");

        let ended = machine.run(&[command, &["--config", &config]].concat());

        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("quota: anthropic/main: five_hour: reset at "), "{}", ended.stderr);
        assert!(ended.stderr.ends_with("; waiting\n"), "{}", ended.stderr);
        assert_eq!(provider.simulator.ledger().calls(), 1, "{command:?}");
    }
}

#[test]
fn a_grace_time_beyond_the_timeout_is_reported() {
    let run = ["run", "--", "/bin/true"];
    for command in [&["guard"][..], &["guard", "--wait", "--timeout", "1s"], &["pick"], &["explain"], &run] {
        let (provider, machine, config) = after_reset(10, 5, "15s");
        let (name, rest) = command.split_first().unwrap();

        let ended = machine.run(&[&[*name, "--config", &config], rest].concat());

        let shown = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(69), "{command:?}: {shown}");
        assert!(shown.contains("reset at ") && shown.contains("next refresh in "), "{command:?}: {shown}");
        assert_eq!(provider.simulator.ledger().calls(), 0, "{command:?}");
    }
}

#[test]
fn json_has_the_next_refresh_of_a_window_that_has_reset() {
    let (_provider, machine, config) = after_reset(10, 5, "15s");

    for command in ["guard", "pick"] {
        let document = machine.run(&[command, "--json", "--config", &config]).json();

        // One minute after the last call, which was ten seconds ago.
        let seconds = document["retry_after_seconds"].as_u64().unwrap();
        assert!((30..=50).contains(&seconds), "{command}: {document}");
    }
}

#[test]
fn a_stale_window_of_the_given_model_is_refreshed() {
    let opus = Window::model("Opus").used(20.0).resets_in(Duration::from_secs(3600));
    let windows = [Window::five_hour().used(10.0), opus];
    let (provider, machine, config) = setup(Account::new("main").windows(windows));
    let reading = |id: WindowId| {
        let reading = WindowReading::new(id, Percent::from_basis_points(1000));
        reading.resets_at(ago(0) + Duration::from_secs(3600))
    };
    let opus = WindowId::seven_day().for_model("Opus").unwrap();
    let opus = reading(opus).scope(Scope::model("Opus"));
    let polled = UsageReport::polled([reading(WindowId::five_hour()), opus]);
    machine.seed([(polled, ago(600)), (UsageReport::from_headers([reading(WindowId::five_hour())]), ago(0))]);

    let ended = machine.run(&["guard", "--window", "seven_day/opus", "--config", &config]);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[cfg(unix)]
#[test]
fn a_guard_does_not_wait_for_a_hook() {
    use std::io::{BufRead as _, BufReader};

    let (_provider, machine, config) = setup(used(95.0));
    let pipe = machine.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let script = format!("(echo begun; exec sleep 3600) > '{}' & wait", pipe.display());
    let hook = format!(
        "[[hooks]]\non = [\"refreshed\"]\nrun = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"60s\"\n"
    );
    let five = WindowReading::new(WindowId::five_hour(), Percent::from_basis_points(4000));
    machine.seed([(UsageReport::polled([five.resets_at(ago(0) + Duration::from_secs(3600))]), ago(400))]);
    // The first update of a journal finds no event.
    assert_eq!(machine.run(&["status", "--offline", "--config", &config]).code, Some(0));
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{hook}")).unwrap();
    let arguments = ["guard", "--wait", "--timeout", "4s", "--config", &config];
    let child = machine.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(std::fs::File::open(&pipe).unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let [helper] = machine.hook_processes()[..] else { panic!("one hook runs") };
    rustix::process::kill_process(helper, rustix::process::Signal::TERM).unwrap();
    // The pipe closes when the last process that has it open ends.
    assert!(lines.next().is_none());
}

#[test]
fn without_a_call_no_missing_window_is_reported() {
    let (provider, machine, config) = setup(used(1.0));

    let ended = machine.run(&["guard", "--wait", "--timeout", "1s", "--config", &config]);

    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.contains("no time was left for a call"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("no such window"), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[test]
fn if_all_accounts_are_disabled_every_command_ends_with_3() {
    let run = ["run", "--", "/bin/true"];
    let one = "quota: anthropic/main is disabled; enable it with: quota accounts enable anthropic/main\n";
    let several = "quota: all accounts are disabled; enable one with: quota accounts enable anthropic/main\n";
    let machine = Machine::new().set("QUOTA_MAIN", "sim-token-main").set("QUOTA_WORK", "sim-token-work");
    for (name, variable, line) in [("main", "QUOTA_MAIN", one), ("work", "QUOTA_WORK", several)] {
        machine.run(&["accounts", "add", name, "--token-env", variable]);
        machine.run(&["accounts", "disable", name]);

        for command in [&["guard"][..], &["pick"], &run, &["status"]] {
            let ended = machine.run(command);

            assert_eq!((ended.code, &*ended.stderr), (Some(3), line), "{command:?}");
        }
        assert_eq!(machine.run(&["explain"]).code, Some(3));
        let document = machine.run(&["pick", "--json"]).json();
        assert_eq!(document["outcome"], "all_accounts_disabled");
    }
    for command in ["guard", "status"] {
        assert_eq!(machine.run(&[command, "--account", "main"]).stderr, one, "{command}");
    }
}
