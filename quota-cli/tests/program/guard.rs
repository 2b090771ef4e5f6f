//! `quota guard`: its exit codes, and what it waits for.

use std::process::Stdio;
use std::time::Duration;

use quota_sim::{Account, Answer, Change, Phase, Script, Window};

use super::program::{Ended, Machine, Provider, argument};

fn world(account: Account) -> (Provider, Machine, String) {
    let provider = Provider::play(Script::new([account]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    (provider, machine, config)
}

fn used(percent: f64) -> Account {
    Account::new("main").windows([Window::five_hour().used(percent), Window::seven_day().used(50.0)])
}

#[test]
fn enough_is_0_and_too_little_is_1() {
    let (provider, machine, config) = world(used(85.0));

    let enough = machine.run(&["guard", "--config", &config]);
    let little = machine.run(&["guard", "--min-remaining", "20", "--config", &config]);
    let other =
        machine.run(&["guard", "--min-remaining", "20", "--window", "seven_day", "--config", &config]);

    assert_eq!((enough.code, enough.stdout.as_str(), enough.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(little.code, Some(1));
    assert_eq!(little.stderr, "quota: anthropic/main: too little left: 15 % in five_hour\n");
    assert_eq!(other.code, Some(0));
    assert_eq!(provider.simulator.ledger().calls(), 1, "the three share one number");
}

#[test]
fn what_cannot_be_told_is_69_unless_it_is_allowed() {
    let (_provider, machine, config) = world(used(1.0).answers([Phase::new(Answer::Forbidden)]));

    let denied = machine.run(&["guard", "--config", &config]);
    let allowed = machine.run(&["guard", "--unknown", "allow", "--config", &config]);

    assert_eq!((denied.code, denied.stderr.lines().count()), (Some(69), 1));
    assert!(denied.stderr.contains("--unknown allow"), "{}", denied.stderr);
    assert!(denied.stderr.contains("does not allow"), "it says why: {}", denied.stderr);
    assert_eq!(allowed.code, Some(0));
}

#[test]
fn a_model_is_matched_as_by_pick_and_reported_if_no_window_names_it() {
    let opus = Window::model("Opus").used(100.0).resets_in(Duration::from_secs(3600));
    let windows = [Window::five_hour().used(10.0), opus];
    let (_provider, machine, config) = world(Account::new("main").windows(windows));
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
fn whoever_waits_for_a_number_that_cannot_come_is_told_why_once() {
    let (_provider, machine, config) = world(used(1.0));
    let text = std::fs::read_to_string(&config).unwrap().replace("QUOTA_SIM_MAIN", "QUOTA_NOBODY");
    std::fs::write(&config, text).unwrap();

    let ended = machine.run(&["guard", "--wait", "--timeout", "1s", "--config", &config]);

    let told: Vec<_> = ended.stderr.lines().collect();
    assert_eq!((ended.code, told.len()), (Some(69), 2), "{told:?}");
    assert!(told[0].contains("QUOTA_NOBODY") && told[0].ends_with("; waiting"), "{told:?}");
    assert!(told[1].contains("QUOTA_NOBODY") && told[1].contains("--unknown allow"), "{told:?}");
}

#[test]
fn what_is_not_understood_is_64() {
    let (_provider, machine, config) = world(used(1.0));

    for wrong in [
        ["--min-remaining", "101"],
        ["--min-remaining", "some"],
        ["--account", "nobody"],
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
fn json_says_what_it_was_judged_by() {
    let (_provider, machine, config) = world(used(95.0));

    let ended = machine.run(&["guard", "--json", "--config", &config]);

    let document = ended.json();
    assert_eq!(
        (ended.code, &document["go"], &document["verdict"]),
        (Some(1), &false.into(), &"below".into())
    );
    assert_eq!((&document["window"], &document["left_percent"]), (&"five_hour".into(), &5.0.into()));
}

#[test]
fn a_wait_that_is_over_ends_as_it_stands() {
    let (provider, machine, config) = world(used(95.0));

    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(1));

    let ended = machine.run(&["guard", "--wait", "--timeout", "300ms", "--config", &config]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_wait_ends_when_another_process_finds_that_enough_is_left() {
    let (provider, machine, config) = world(used(95.0));
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
    assert_eq!(provider.simulator.ledger().calls(), 2, "who waits has not asked");
}
