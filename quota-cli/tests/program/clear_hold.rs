//! `quota accounts clear-hold` clears a hold for all processes, and none of them restores it.

use std::path::PathBuf;
use std::time::Duration;

use quota_sim::{Account, Answer, Change, Script, Window};
use serde_json::{Value, json};

use super::support::{Ended, Machine, Provider, argument};

const DAY: u64 = 24 * 3600;

/// A machine with one account that the provider throttles for 18 days.
struct Env {
    provider: Provider,
    machine: Machine,
    config: PathBuf,
}

impl Env {
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

    /// The account in the JSON of `quota status`.
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
fn a_retry_after_of_18_days_is_shown_and_capped_at_24_hours() {
    let env = Env::new();

    let shown = env.run(&["status"]).stdout;

    assert!(shown.contains("; the provider asked for 18 d"), "{shown}");
    let account = env.account(&["--offline"]);
    let requested = account["hold"]["retry_after_seconds"].as_u64().unwrap();
    assert!((18 * DAY - 60..=18 * DAY).contains(&requested), "{account}");
    let [since, until] = [&account["last_failure"]["at"], &account["hold"]["until"]]
        .map(|at| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let held = Duration::try_from(until.duration_since(since)).unwrap();
    assert!((DAY..DAY + 60).contains(&held.as_secs()), "{account}");
}

#[test]
fn after_a_clear_the_next_status_calls_the_provider() {
    let env = Env::new();
    env.run(&["status"]);
    env.provider.simulator.set("main", Change::follow_script()).unwrap();
    assert_eq!((env.account(&[])["hold"]["reason"].take(), env.calls()), (json!("rate_limited"), 1));

    let cleared = env.clear();

    assert_eq!((cleared.code, cleared.stderr.as_str()), (Some(0), ""));
    assert!(cleared.stdout.starts_with("cleared: rate limited until "), "{}", cleared.stdout);
    let account = env.account(&[]);
    assert_eq!((&account["state"], &account["hold"]), (&json!("fresh"), &Value::Null));
    assert_eq!(env.calls(), 2);
    assert_eq!(env.clear().stdout, "anthropic/main has no hold\n");
}

#[test]
fn a_429_after_a_clear_creates_a_new_hold() {
    let env = Env::new();
    env.run(&["status"]);
    env.clear();

    let account = env.account(&[]);

    assert_eq!((&account["hold"]["reason"], env.calls()), (&json!("rate_limited"), 2));
}

#[test]
fn a_new_token_is_not_held_by_the_hold_of_the_old_one() {
    let env = Env::new();
    env.run(&["status"]);
    env.provider.simulator.set("main", Change::follow_script()).unwrap();
    env.provider.simulator.set("main", Change::token("sim-token-replaced")).unwrap();
    assert_eq!((env.account(&[])["hold"]["reason"].take(), env.calls()), (json!("rate_limited"), 1));

    let mut status = env.machine.command(&["status", "--json", "--config", argument(&env.config)]);
    let replaced = Ended::of(status.env("QUOTA_SIM_MAIN", "sim-token-replaced").output().unwrap()).json();

    let account = &replaced["accounts"][0];
    assert_eq!((&account["state"], &account["hold"]), (&json!("fresh"), &Value::Null));
    assert_eq!(env.calls(), 2);
}

#[cfg(unix)]
#[test]
fn a_running_watch_does_not_restore_a_cleared_hold() {
    let env = Env::new();
    let mut pty = super::pty::Pty::new(100, 24);
    let watch = env.machine.command(&["watch", "--config", argument(&env.config)]);
    let mut watch = pty.start(watch);
    // `watch` writes changed words only, so the test waits for one word of the hold.
    pty.until("retrying");
    env.provider.simulator.set("main", Change::follow_script()).unwrap();

    assert!(env.clear().stdout.starts_with("cleared: "));

    // `watch` shows the usage that was read after the clear.
    let read = env.account(&[]);
    pty.until("resets");
    pty.press("q");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!((&read["hold"], &read["state"]), (&Value::Null, &json!("fresh")));
    assert_eq!(env.account(&["--offline"])["hold"], Value::Null);
}

#[test]
fn a_provider_cooldown_that_remains_after_a_clear_is_reported() {
    let env = Env::new();
    let config = env.machine.write("usual.toml", env.provider.client_config());
    let run = |arguments: &[&str]| env.machine.run(&[arguments, &["--config", argument(&config)]].concat());
    run(&["status"]);

    let cleared = run(&["accounts", "clear-hold", "main"]);

    assert!(cleared.stdout.starts_with("cleared: rate limited until "), "{}", cleared.stdout);
    assert!(cleared.stderr.contains("provider cooldown after a 429"), "{}", cleared.stderr);
}

#[test]
fn an_unknown_account_is_a_usage_error() {
    let env = Env::new();

    let ended = env.run(&["accounts", "clear-hold", "mian"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert!(ended.stderr.contains("did you mean anthropic/main?"), "{}", ended.stderr);
}

#[test]
fn a_store_that_does_not_answer_is_an_error() {
    let env = Env::new();

    let ended = env.run(&["--store", "redis://127.0.0.1:1", "accounts", "clear-hold", "main"]);

    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (Some(69), "", 1));
    assert!(ended.stderr.contains("could not clear the hold on anthropic/main: "), "{}", ended.stderr);
}
