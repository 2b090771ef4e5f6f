//! Accounts of six providers at once, read by many real processes that share a store.

use std::process::Stdio;

use quota_sim::{Account, Answer, Change, Script, Window};
use serde_json::Value;

use super::support::{Machine, Provider, argument};

const PROVIDERS: [&str; 6] = ["anthropic", "openai", "zai", "kimi", "minimax", "copilot"];
/// The provider that rate limits its account.
const THROTTLED: &str = "kimi";

struct Fleet {
    machine: Machine,
    config: String,
    provider: Provider,
}

impl Fleet {
    /// Accounts with the names of their providers.
    fn new() -> Self {
        let account =
            |name: &&str| Account::new(*name).provider(*name).windows([Window::five_hour().used(42.0)]);
        let provider = Provider::play(Script::new(PROVIDERS.iter().map(account)));
        let (machine, config) = provider.configure(Machine::new());
        let config = argument(&config).to_owned();
        Self { machine, config, provider }
    }

    fn throttle(&self) {
        let hour = std::time::Duration::from_secs(3600);
        let throttled = Change::answer_for(Answer::ThrottleUntilEnd, hour);
        self.provider.simulator.set(THROTTLED, throttled).unwrap();
    }

    /// Runs this many processes at once, and returns the accounts that the last one shows.
    fn status(&self, processes: usize) -> Vec<Value> {
        let arguments = ["status", "--json", "--config", &self.config];
        let start =
            || self.machine.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let started: Vec<_> = (0..processes).map(|_| start()).collect();
        let ended: Vec<_> = started.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let shown: Value = serde_json::from_slice(&ended.last().unwrap().stdout).unwrap();
        shown["accounts"].as_array().unwrap().clone()
    }

    fn calls(&self) -> Vec<(String, u64, u64)> {
        let ledger = self.provider.simulator.ledger();
        let accounts = ledger.accounts.iter();
        accounts.map(|(name, account)| (name.clone(), account.calls, account.calls_during_hold)).collect()
    }
}

#[test]
fn each_account_is_called_once_by_all_processes() {
    let fleet = Fleet::new();

    fleet.status(12);
    fleet.status(6);

    let mut expected: Vec<_> = PROVIDERS.iter().map(|name| ((*name).to_owned(), 1, 0)).collect();
    expected.sort_unstable();
    assert_eq!(fleet.calls(), expected);
}

#[test]
fn a_hold_of_one_provider_does_not_hold_the_others() {
    let fleet = Fleet::new();
    fleet.throttle();

    fleet.status(12);
    let shown = fleet.status(6);

    for account in &shown {
        let is_throttled = account["account"].as_str().unwrap().starts_with(THROTTLED);
        assert_eq!(account["hold"].is_null(), !is_throttled, "{account}");
        assert_eq!(account["state"] == "fresh", !is_throttled, "{account}");
    }
    assert!(
        fleet.calls().iter().all(|(_, calls, during_hold)| (*calls, *during_hold) == (1, 0)),
        "{:?}",
        fleet.calls()
    );
}

#[test]
fn a_demo_with_six_providers_calls_each_account_once_per_interval() {
    let providers: Vec<_> = PROVIDERS.iter().flat_map(|name| ["--provider", name]).collect();
    let arguments =
        ["demo", "--json", "--seconds", "1", "--accounts", "6", "--consumers", "200", "--seed", "5"];

    let summary = Machine::new().run(&[&arguments[..], &providers].concat()).json();

    let figures = |name: &str| summary[name].as_object().unwrap().clone();
    let calls = figures("provider_calls");
    assert_eq!(calls.len(), 6, "{summary}");
    assert!(PROVIDERS.iter().all(|name| calls.keys().any(|id| id.starts_with(name))), "{summary}");
    assert!(figures("max_concurrent_per_account").values().all(|calls| *calls == 1), "{summary}");
    assert!(figures("calls_during_hold").values().all(|calls| *calls == 0), "{summary}");
}
