//! `quota accounts clear-hold`: a hold is lifted for all processes, and none of them brings it back.

use std::path::PathBuf;
use std::time::Duration;

use quota_sim::{Account, Answer, Change, Script, Window};
use serde_json::{Value, json};

use super::program::{Ended, Machine, Provider, argument};

const DAY: u64 = 24 * 3600;

/// A machine whose account the provider throttles for 18 days.
struct World {
    provider: Provider,
    machine: Machine,
    config: PathBuf,
}

impl World {
    fn new() -> Self {
        let provider =
            Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]));
        let throttled = Change::answer_for(Answer::ThrottleUntilEnd, Duration::from_secs(18 * DAY));
        provider.simulator.set("main", throttled).unwrap();
        let (machine, config) = provider.configure(Machine::new());
        Self { provider, machine, config }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.machine.run(&[arguments, &["--config", argument(&self.config)]].concat())
    }

    /// The account as `quota status` shows it.
    fn account(&self, arguments: &[&str]) -> Value {
        self.run(&[&["status", "--json"], arguments].concat()).json()["accounts"][0].take()
    }

    fn clear(&self) -> Ended {
        self.run(&["accounts", "clear-hold", "main"])
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

#[test]
fn a_wait_of_18_days_is_shown_and_held_for_24_hours() {
    let world = World::new();

    let shown = world.run(&["status"]).stdout;

    assert!(shown.contains("; the provider asked for 18 d"), "{shown}");
    let account = world.account(&["--offline"]);
    let requested = account["hold"]["retry_after_seconds"].as_u64().unwrap();
    assert!((18 * DAY - 60..=18 * DAY).contains(&requested), "{account}");
    let [since, until] = [&account["last_failure"]["at"], &account["hold"]["until"]]
        .map(|at| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let held = Duration::try_from(until.duration_since(since)).unwrap();
    assert!((DAY..DAY + 60).contains(&held.as_secs()), "{account}");
}

#[test]
fn after_a_clear_the_next_status_calls_the_provider() {
    let world = World::new();
    world.run(&["status"]);
    world.provider.simulator.set("main", Change::follow_script()).unwrap();
    assert_eq!((world.account(&[])["hold"]["reason"].take(), world.calls()), (json!("rate_limited"), 1));

    let cleared = world.clear();

    assert_eq!((cleared.code, cleared.stderr.as_str()), (Some(0), ""));
    assert!(cleared.stdout.starts_with("cleared: rate limited until "), "{}", cleared.stdout);
    let account = world.account(&[]);
    assert_eq!((&account["state"], &account["hold"]), (&json!("fresh"), &Value::Null));
    assert_eq!(world.calls(), 2);
    assert_eq!(world.clear().stdout, "anthropic/main has no hold\n");
}

#[test]
fn after_a_clear_a_new_429_holds() {
    let world = World::new();
    world.run(&["status"]);
    world.clear();

    let account = world.account(&[]);

    assert_eq!((&account["hold"]["reason"], world.calls()), (&json!("rate_limited"), 2));
}

#[test]
fn a_replaced_token_calls_during_the_hold_of_the_old_one() {
    let world = World::new();
    world.run(&["status"]);
    world.provider.simulator.set("main", Change::follow_script()).unwrap();
    world.provider.simulator.set("main", Change::token("sim-token-replaced")).unwrap();
    assert_eq!((world.account(&[])["hold"]["reason"].take(), world.calls()), (json!("rate_limited"), 1));

    let mut status = world.machine.command(&["status", "--json", "--config", argument(&world.config)]);
    let replaced = Ended::of(status.env("QUOTA_SIM_MAIN", "sim-token-replaced").output().unwrap()).json();

    let account = &replaced["accounts"][0];
    assert_eq!((&account["state"], &account["hold"]), (&json!("fresh"), &Value::Null));
    assert_eq!(world.calls(), 2);
}

#[cfg(unix)]
#[test]
fn a_program_that_runs_during_a_clear_does_not_restore_the_hold() {
    let world = World::new();
    let mut pty = super::pty::Pty::new(100, 24);
    let watch = world.machine.command(&["watch", "--config", argument(&world.config)]);
    let mut watch = pty.start(watch);
    // A word of the hold; the terminal gets single words.
    pty.until("retrying");
    world.provider.simulator.set("main", Change::follow_script()).unwrap();

    assert!(world.clear().stdout.starts_with("cleared: "));

    // It shows the number that was read once the hold was lifted.
    let read = world.account(&[]);
    pty.until("resets");
    pty.press("q");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!((&read["hold"], &read["state"]), (&Value::Null, &json!("fresh")));
    assert_eq!(world.account(&["--offline"])["hold"], Value::Null);
}

#[test]
fn the_cooldown_that_a_clear_leaves_is_reported() {
    let world = World::new();
    let config = world.machine.write("usual.toml", world.provider.usual_config());
    let run = |arguments: &[&str]| world.machine.run(&[arguments, &["--config", argument(&config)]].concat());
    run(&["status"]);

    let cleared = run(&["accounts", "clear-hold", "main"]);

    assert!(cleared.stdout.starts_with("cleared: rate limited until "), "{}", cleared.stdout);
    assert!(cleared.stderr.contains("provider cooldown after a 429"), "{}", cleared.stderr);
}

#[test]
fn an_unknown_account_is_an_error_of_usage() {
    let world = World::new();

    let ended = world.run(&["accounts", "clear-hold", "mian"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert!(ended.stderr.contains("did you mean anthropic/main?"), "{}", ended.stderr);
}

#[test]
fn a_store_that_does_not_answer_is_an_error() {
    let world = World::new();

    let ended = world.run(&["--store", "redis://127.0.0.1:1", "accounts", "clear-hold", "main"]);

    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (Some(69), "", 1));
    assert!(ended.stderr.contains("could not clear the hold on anthropic/main: "), "{}", ended.stderr);
}
