//! `quota demo`: what it guarantees for every seed.

use serde_json::Value;

use super::support::Machine;

fn run_demo(arguments: &[&str]) -> Value {
    let ended = Machine::new().run(&[&["demo", "--json"], arguments].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    ended.json()
}

fn all(figures: &Value, wanted: u64) -> bool {
    let figures = figures.as_object().unwrap();
    !figures.is_empty() && figures.values().all(|figure| *figure == wanted)
}

#[test]
fn twelve_seeds_make_no_concurrent_call_and_none_during_a_hold() {
    for seed in 0..12 {
        let accounts = ["1", "3", "6"][seed % 3];

        let summary = run_demo(&[
            "--seconds",
            "1",
            "--consumers",
            "200",
            "--accounts",
            accounts,
            "--seed",
            &seed.to_string(),
        ]);

        assert!(all(&summary["max_concurrent_per_account"], 1), "{summary}");
        assert!(all(&summary["calls_during_hold"], 0), "{summary}");
    }
}

#[test]
fn one_consumer_refreshes_every_account() {
    // One consumer refreshes the accounts in sequence. On a busy machine, one second is too short for fifty.
    let summary = run_demo(&["--seconds", "5", "--consumers", "1", "--accounts", "50", "--seed", "1"]);

    assert!(all(&summary["max_concurrent_per_account"], 1), "{summary}");
}

#[test]
fn the_summary_has_every_figure() {
    let summary = run_demo(&["--seconds", "1", "--consumers", "50", "--accounts", "2", "--seed", "7"]);

    let number = |name: &str| summary[name].as_f64().unwrap();
    let calls = summary["provider_calls"].as_object().unwrap();
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["anthropic/fallback-1", "anthropic/main"]);
    assert_eq!((number("consumers"), number("accounts"), number("seed")), (50.0, 2.0, 7.0));
    assert!(number("reads") > 0.0 && number("peek_ns_p50") > 0.0, "{summary}");
    assert!(number("naive_calls") > calls.values().map(|calls| calls.as_f64().unwrap()).sum(), "{summary}");
}

#[test]
fn no_account_exceeds_its_call_budget() {
    let summary = run_demo(&["--seconds", "2", "--accounts", "3", "--seed", "11"]);

    let calls = summary["provider_calls"].as_object().unwrap();
    assert!(calls.values().all(|calls| calls.as_u64().unwrap() <= 28), "{summary}");
}

#[test]
fn without_a_terminal_the_demo_prints_plain_lines() {
    let ended = Machine::new().run(&["demo", "--seconds", "1", "--consumers", "20", "--seed", "3"]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stdout.contains('\r'), "{}", ended.stdout);
    assert!(ended.stdout.contains("--seed 3"), "{}", ended.stdout);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_demo_with_a_summary() {
    use std::io::{BufRead, BufReader, Read as _};
    use std::process::{Command, Stdio};

    let machine = Machine::new();
    let mut command = machine.command(&["demo", "--seconds", "600", "--consumers", "5"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The demo installs its signal handlers before it prints.
    stdout.read_line(&mut String::new()).unwrap();

    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();

    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(rest.contains("read latency"), "{rest}");
}
