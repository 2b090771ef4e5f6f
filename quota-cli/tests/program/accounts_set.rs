//! `quota accounts set`: changes the limits of existing accounts.

use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Ended, Machine};

const CONFIG: &str = ".config/quota/config.toml";

/// A machine with the accounts main and work. The account work has a minimum of 10 %.
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

/// The minimum and the killswitch of the account at this position in the list.
fn limits(machine: &Machine, at: usize) -> [Value; 2] {
    let account = machine.run(&["accounts", "list", "--json"]).json()["accounts"][at].clone();
    ["min_remaining", "killswitch"].map(|name| account[name]["every_percent"].clone())
}

#[test]
fn setting_one_limit_does_not_change_the_other() {
    let machine = machine();

    let stop = set(&machine, &["work", "--killswitch", "5"]);
    let minimum = set(&machine, &["work", "--min-remaining", "20.5"]);

    assert_eq!((stop.code, &*stop.stdout), (Some(0), "anthropic/work killswitch: 5 %\n"));
    assert_eq!((minimum.code, &*minimum.stdout), (Some(0), "anthropic/work minimum: 20.5 %\n"));
    assert_eq!(limits(&machine, 1), [json!(20.5), json!(5.0)]);
    assert_eq!(limits(&machine, 0), [Value::Null, Value::Null]);
}

#[test]
fn a_minimum_below_the_killswitch_is_a_warning() {
    let machine = machine();
    let warning = |account, minimum, killswitch| {
        format!(
            "quota: anthropic/{account}: the minimum of {minimum} % has no effect, because the account is not used below its \
             killswitch of {killswitch} %\n"
        )
    };
    let limits = ["--min-remaining", "5", "--killswitch", "20"];

    let added = machine.run(&[&["accounts", "add", "spare", "--token-env", "HOME"][..], &limits].concat());
    let changed = set(&machine, &["work", "--killswitch", "30"]);
    let equal = set(&machine, &["work", "--killswitch", "10"]);

    assert!(added.stderr.starts_with(&warning("spare", 5, 20)), "{}", added.stderr);
    assert_eq!((changed.code, changed.stderr), (Some(0), warning("work", 10, 30)));
    assert_eq!((equal.code, &*equal.stderr), (Some(0), ""));
}

#[test]
fn a_removed_limit_falls_back_to_routing() {
    let machine = machine();

    let ended = set(&machine, &["work", "--min-remaining", "none"]);

    assert_eq!((ended.code, &*ended.stdout), (Some(0), "anthropic/work minimum: inherited from [routing]\n"));
    assert_eq!(limits(&machine, 1), [Value::Null, Value::Null]);
}

#[test]
fn the_default_account_can_have_limits() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    assert_eq!(set(&machine, &["main", "--killswitch", "5"]).code, Some(0));

    assert_eq!(limits(&machine, 0), [Value::Null, json!(5.0)]);
}

#[test]
fn limits_are_set_in_the_configuration() {
    let machine = Machine::new();
    let text = "[[accounts]]\nid = \"anthropic/main\"\nmin_remaining = 40 # for weekends\n";
    machine.write(CONFIG, text);

    let ended = set(&machine, &["main", "--min-remaining", "20"]);

    assert_eq!((ended.code, &*ended.stdout), (Some(0), "anthropic/main minimum: 20 %\n"));
    assert_eq!(std::fs::read_to_string(machine.path(CONFIG)).unwrap(), text.replace("40", "20"));
}

#[test]
fn a_limit_for_all_windows_keeps_the_limit_of_one() {
    let machine = Machine::new();
    machine.write(CONFIG, "[[accounts]]\nid = \"anthropic/main\"\nkillswitch = { five_hour = 10 }\n");

    let ended = set(&machine, &["main", "--killswitch", "5"]);

    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "anthropic/main killswitch: 5 %, 10 % of five_hour\n")
    );
}

#[test]
fn a_concurrent_remove_wins_over_set_in_20_rounds() {
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
fn an_invalid_limit_is_an_error_and_changes_nothing() {
    let machine = machine();
    let before = std::fs::read(machine.path(CONFIG)).unwrap();

    for (arguments, message) in [
        (&["wrok", "--killswitch", "5"][..], "unknown account wrok; did you mean anthropic/work?"),
        (&["work", "--killswitch", "101"], "a percentage from 0 to 100, or none"),
        (&["work"], "--min-remaining"),
    ] {
        let ended = set(&machine, arguments);

        assert_eq!((ended.code, &*ended.stdout), (Some(64), ""), "{arguments:?}");
        assert!(ended.stderr.contains(message), "{ended:?}");
    }
    assert_eq!(std::fs::read(machine.path(CONFIG)).unwrap(), before);
}
