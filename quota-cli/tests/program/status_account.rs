//! `quota status --account` refreshes and shows only the given accounts.

use quota_sim::{Account, Script, Window};
use serde_json::Value;

use super::support::{Machine, Provider, argument};

fn three_accounts() -> Provider {
    let used = |name: &str| Account::new(name).windows([Window::five_hour().used(40.0)]);
    Provider::play(Script::new(["main", "work", "spare"].map(used)))
}

/// The accounts in the JSON of `quota status`, and whether each has usage.
fn shown(json: &Value) -> Vec<(&str, bool)> {
    let accounts = json["accounts"].as_array().unwrap().iter();
    accounts.map(|account| (account["account"].as_str().unwrap(), account["error"].is_null())).collect()
}

#[test]
fn only_the_named_accounts_are_refreshed_and_shown() {
    let provider = three_accounts();
    let (machine, config) = provider.configure(Machine::new());
    let named = ["--account", "spare", "--account", "anthropic/main", "--config", argument(&config)];

    let programs = machine.run(&[&["status", "--json"], &named[..]].concat());
    let people = machine.run(&[&["status"], &named[..]].concat());

    assert_eq!(programs.code, Some(0), "{}", programs.stderr);
    assert_eq!(shown(&programs.json()), [("anthropic/main", true), ("anthropic/spare", true)]);
    assert!(people.stdout.contains("main") && people.stdout.contains("spare"), "{}", people.stdout);
    assert!(!people.stdout.contains("work"), "{}", people.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 2);
}

#[test]
fn several_accounts_are_given_in_one_option_or_in_several() {
    let provider = three_accounts();
    let (machine, config) = provider.configure(Machine::new());
    machine.run(&["status", "--config", argument(&config)]);

    for command in ["status", "pace", "budget"] {
        let shown = |accounts: &[&str]| {
            let ended = machine.run(&[&["--config", argument(&config), command], accounts].concat());
            ["main", "work", "spare"].map(|name| ended.stdout.contains(name))
        };
        let one = shown(&["--account", "main,anthropic/spare"]);

        assert_eq!(one, shown(&["--account", "main", "--account", "spare"]), "{command}");
        assert_eq!(one, [true, false, true], "{command}");
    }
}

#[test]
fn several_accounts_are_rejected_where_one_is_needed() {
    let machine = Machine::new();
    for command in ["guard", "statusline"] {
        let ended = machine.run(&[command, "--account", "main,work"]);

        assert_eq!(ended.code, Some(64), "{command}");
        assert!(ended.stderr.contains("expected a single account"), "{}", ended.stderr);
    }
}

#[test]
fn an_account_without_data_does_not_affect_another() {
    let provider = three_accounts();
    let (machine, config) = provider.configure(Machine::new());
    machine.run(&["status", "--account", "main", "--config", argument(&config)]);

    let offline = ["status", "--offline", "--json", "--config", argument(&config), "--account"];
    let with_data = machine.run(&[&offline[..], &["main"]].concat());
    let unknown = machine.run(&[&offline[..], &["work"]].concat());

    assert_eq!((with_data.code, shown(&with_data.json())), (Some(0), vec![("anthropic/main", true)]));
    assert_eq!((unknown.code, shown(&unknown.json())), (Some(1), vec![("anthropic/work", false)]));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn refreshing_one_account_calls_no_other() {
    let provider = three_accounts();
    let (machine, config) = provider.configure(Machine::new());
    machine.run(&["status", "--config", argument(&config)]);

    let ended =
        machine.run(&["status", "--max-age", "0s", "--account", "work", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ledger = provider.simulator.ledger();
    let calls = |name| ledger.account(name).unwrap().calls;
    assert_eq!((calls("main"), calls("work"), calls("spare")), (1, 2, 1));
}

#[test]
fn an_unknown_account_has_a_suggestion() {
    let provider = three_accounts();
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["status", "--account", "mian", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert!(ended.stderr.contains("unknown account mian; did you mean anthropic/main?"), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 0);
}
