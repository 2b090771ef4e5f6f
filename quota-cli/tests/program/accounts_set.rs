//! `quota accounts set`: limits of accounts that are there.

use std::process::Stdio;

use serde_json::{Value, json};

use super::program::{Ended, Machine};

const FILE: &str = ".local/state/quota/accounts.json";

/// A machine with the added accounts main, and work with a minimum of 10 %.
fn machine() -> Machine {
    let machine = Machine::new();
    for add in
        [&["main", "--token-env", "MAIN"][..], &["work", "--token-env", "WORK", "--min-remaining", "10"]]
    {
        assert_eq!(machine.run(&[&["accounts", "add"], add].concat()).code, Some(0));
    }
    machine
}

fn set(machine: &Machine, arguments: &[&str]) -> Ended {
    machine.run(&[&["accounts", "set"], arguments].concat())
}

/// The minimum and the killswitch of the account in that place.
fn limits(machine: &Machine, at: usize) -> [Value; 2] {
    let account = machine.run(&["accounts", "list", "--json"]).json()["accounts"][at].clone();
    ["min_remaining", "killswitch"].map(|name| account[name]["every_percent"].clone())
}

#[test]
fn a_limit_that_is_named_is_changed_and_the_other_one_stays() {
    let machine = machine();

    let stop = set(&machine, &["work", "--killswitch", "5"]);
    let minimum = set(&machine, &["work", "--min-remaining", "20.5"]);

    assert_eq!((stop.code, &*stop.stdout), (Some(0), "anthropic/work: killswitch 5 %\n"));
    assert_eq!((minimum.code, &*minimum.stdout), (Some(0), "anthropic/work: minimum 20.5 %\n"));
    assert_eq!(limits(&machine, 1), [json!(20.5), json!(5.0)]);
    assert_eq!(limits(&machine, 0), [Value::Null, Value::Null]);
}

#[test]
fn a_limit_that_is_taken_away_is_that_of_the_routing_again() {
    let machine = machine();

    let ended = set(&machine, &["work", "--min-remaining", "none"]);

    assert_eq!((ended.code, &*ended.stdout), (Some(0), "anthropic/work: minimum that of [routing]\n"));
    assert_eq!(limits(&machine, 1), [Value::Null, Value::Null]);
}

#[test]
fn the_login_of_claude_code_has_limits_without_being_named() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    assert_eq!(set(&machine, &["main", "--killswitch", "5"]).code, Some(0));

    assert_eq!(limits(&machine, 0), [Value::Null, json!(5.0)]);
}

#[test]
fn limits_of_the_configuration_are_to_be_changed_there() {
    let machine = Machine::new();
    let config = "[[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"MAIN\"\n";
    machine.write(".config/quota/config.toml", config);

    let ended = set(&machine, &["main", "--min-remaining", "20"]);

    assert_eq!((ended.code, &*ended.stdout, ended.stderr.lines().count()), (Some(64), "", 1));
    assert!(
        ended.stderr.contains("config.toml, line 2, and its limits are to be changed there"),
        "{ended:?}"
    );
    assert!(!machine.path(FILE).exists());
}

#[test]
fn a_limit_of_a_command_that_hides_one_of_the_configuration_is_changed_by_command() {
    let machine = machine();
    let config = "[[accounts]]\nid = \"anthropic/work\"\ntoken_env = \"WORK\"\nmin_remaining = 40\n";
    machine.write(".config/quota/config.toml", config);
    assert_eq!(limits(&machine, 1), [json!(10.0), Value::Null]);

    let other = set(&machine, &["work", "--killswitch", "5"]);
    let ended = set(&machine, &["work", "--min-remaining", "none"]);

    assert_eq!(other.code, Some(64), "{other:?}");
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "anthropic/work: minimum that of the configuration\n")
    );
    assert_eq!(limits(&machine, 1), [json!(40.0), Value::Null]);
}

#[test]
fn an_account_that_is_removed_meanwhile_stays_away_in_20_rounds() {
    let machine = machine();
    for round in 0..20 {
        machine.run(&["accounts", "add", "spare", "--token-env", "SPARE"]);

        let start = |arguments: &[&str]| {
            let mut command = machine.command(&[&["accounts"], arguments].concat());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let both = [start(&["remove", "spare"]), start(&["set", "work", "--killswitch", "5"])];
        both.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));

        let list = machine.run(&["accounts", "list", "--json"]).json();
        assert_eq!(list["unusable"], json!([]), "round {round}");
        assert_eq!(list["accounts"].as_array().unwrap().len(), 2, "round {round}");
    }
}

#[test]
fn what_cannot_be_set_is_told_and_changes_nothing() {
    let machine = machine();
    let before = std::fs::read(machine.path(FILE)).unwrap();

    for (arguments, told) in [
        (&["wrok", "--killswitch", "5"][..], "no account wrok; did you mean anthropic/work?"),
        (&["work", "--killswitch", "101"], "a percentage from 0 to 100, or none"),
        (&["work"], "--min-remaining"),
    ] {
        let ended = set(&machine, arguments);

        assert_eq!((ended.code, &*ended.stdout), (Some(64), ""), "{arguments:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    assert_eq!(std::fs::read(machine.path(FILE)).unwrap(), before);
}
