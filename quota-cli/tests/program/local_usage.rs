//! The usage that Claude Code and Codex stored on this machine, in the commands.

use jiff::Timestamp;
use quota_sim::{Account, Script, Window};
use serde_json::{Value, json};

use super::support::{Machine, Provider, argument};

/// A time after the files that exist now, in whole milliseconds. It is in the past when a program has started.
fn just_now() -> i64 {
    quota::Clock::system().now().as_millisecond() + 1
}

fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap().to_string()
}

/// A machine with the logins of both programs, and a simulator that plays their accounts.
struct Setup {
    machine: Machine,
    config: String,
    provider: Provider,
}

const ACCOUNT: &str = r#"{ "accountUuid": "account-a", "organizationUuid": "org-a" }"#;

impl Setup {
    fn new() -> Self {
        Self::with_policy("")
    }

    /// Every reading is stale.
    fn always_stale() -> Self {
        Self::with_policy("[policy]\nmax_age = \"2ms\"\ngap = \"1ms\"\n")
    }

    fn with_policy(policy: &str) -> Self {
        let machine = Machine::new();
        machine.log_in("sim-token-claude");
        let codex = json!({ "tokens": { "access_token": "sim-token-codex", "account_id": "sim-org-codex" } });
        machine.write(".codex/auth.json", codex.to_string());
        let account =
            |name, provider| Account::new(name).provider(provider).windows([Window::five_hour().used(10.0)]);
        let script = Script::new([account("claude", "anthropic"), account("codex", "openai")]);
        let provider = Provider::play(script);
        let url = provider.url();
        let config = format!(
            "{policy}[providers.anthropic]\nbase_url = \"{url}\"\n[providers.openai]\nbase_url = \"{url}\"\n\n\
             [[accounts]]\nid = \"anthropic/main\"\n\n[[accounts]]\nid = \"openai/main\"\n"
        );
        let config = argument(&machine.write("config.toml", config)).to_owned();
        Self { machine, config, provider }
    }

    /// Writes the state file of Claude Code with usage that it fetched at this time.
    fn cache(&self, account: &str, fetched_at: i64) {
        let reset = rfc3339(fetched_at + 3_600_000);
        let file = json!({
            "oauthAccount": serde_json::from_str::<Value>(ACCOUNT).unwrap(),
            "cachedUsageUtilization": {
                "fetchedAtMs": fetched_at, "accountUuid": account,
                "utilization": { "five_hour": { "utilization": 55, "resets_at": reset } },
            },
        });
        self.machine.write(".claude.json", file.to_string());
    }

    /// Writes a session of Codex that began now, with this use and reset.
    fn session(&self, used: f64, reset: &Value) {
        let at = rfc3339(just_now());
        let start =
            json!({ "timestamp": at, "type": "session_meta", "payload": { "model_provider": "openai" } });
        let limits =
            json!({ "primary": { "used_percent": used, "window_minutes": 300, "resets_at": reset } });
        let payload = json!({ "type": "token_count", "rate_limits": limits });
        let event = json!({ "timestamp": at, "type": "event_msg", "payload": payload });
        self.machine.write(".codex/sessions/2026/11/30/rollout-a.jsonl", format!("{start}\n{event}\n{{\"ti"));
    }

    fn status(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["status", "--config", &self.config, "--json"];
        all.extend(arguments);
        self.machine.run(&all).json()["accounts"][0].clone()
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

fn window(account: &Value) -> (Option<f64>, Option<&str>) {
    let window = &account["windows"][0];
    (window["used_percent"].as_f64(), window["source"].as_str())
}

#[test]
fn usage_that_claude_code_cached_saves_a_call() {
    let setup = Setup::new();
    setup.cache("account-a", just_now());

    let shown = setup.status(&["--account", "anthropic/main"]);

    assert_eq!((window(&shown), setup.calls()), ((Some(55.0), Some("local")), 0), "{shown}");
}

#[test]
fn guard_and_pick_use_it_too() {
    let setup = Setup::new();
    setup.cache("account-a", just_now());
    let run = |arguments: &[&str]| setup.machine.run(&[arguments, &["--config", &setup.config]].concat());

    let guard = run(&["guard", "--account", "anthropic/main", "--min-remaining", "50"]);
    let pick = run(&["pick"]);

    assert_eq!((guard.code, pick.stdout.trim_end(), setup.calls()), (Some(1), "anthropic/main", 0));
}

#[test]
fn usage_of_another_claude_account_is_not_used() {
    let setup = Setup::new();
    setup.cache("account-b", just_now());

    let shown = setup.status(&["--account", "anthropic/main"]);

    assert_eq!((window(&shown).0, setup.calls()), (Some(10.0), 1), "{shown}");
}

#[test]
fn usage_from_before_the_login_is_not_used() {
    let setup = Setup::new();
    setup.cache("account-a", just_now() - 1000);
    setup.machine.log_in("sim-token-claude");

    let shown = setup.status(&["--account", "anthropic/main"]);

    assert_eq!((window(&shown).0, setup.calls()), (Some(10.0), 1), "{shown}");
}

#[test]
fn usage_from_the_future_is_not_used() {
    let setup = Setup::new();
    setup.cache("account-a", just_now() + 3_600_000);

    let shown = setup.status(&["--account", "anthropic/main"]);

    assert_eq!((window(&shown).0, setup.calls()), (Some(10.0), 1), "{shown}");
}

#[test]
fn a_session_of_codex_updates_the_reading() {
    let setup = Setup::always_stale();
    let polled = setup.status(&["--account", "openai/main"]);
    setup.session(33.0, &polled["windows"][0]["resets_at"]);

    let shown = setup.status(&["--account", "openai/main", "--offline"]);

    assert_eq!((window(&shown), setup.calls()), ((Some(33.0), Some("local")), 1), "{shown}");
}

#[test]
fn a_session_of_another_codex_login_is_not_used() {
    let setup = Setup::always_stale();
    setup.status(&["--account", "openai/main"]);
    setup.session(33.0, &json!(rfc3339(just_now() + 600_000)));

    let shown = setup.status(&["--account", "openai/main", "--offline"]);

    assert_eq!(window(&shown).0, Some(10.0), "{shown}");
}

#[test]
fn an_unknown_session_of_codex_is_not_used_without_a_reading() {
    let setup = Setup::new();
    setup.session(33.0, &json!(rfc3339(just_now() + 600_000)));

    let shown = setup.status(&["--account", "openai/main", "--offline"]);

    assert_eq!(shown["windows"], json!([]), "{shown}");
}
