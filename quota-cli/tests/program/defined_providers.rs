//! A provider that only the configuration describes, in every command. The simulator's endpoint of Codex serves it.

use std::time::Duration;

use quota_sim::{Account, Script, Window};
use serde_json::json;

use super::support::{Machine, Provider, argument};

/// A machine with two accounts of the provider, and the simulator that plays them.
struct Defined {
    machine: Machine,
    config: String,
    _provider: Provider,
}

impl Defined {
    fn new(main: f64) -> Self {
        let account = |name: &str, used: f64| {
            let five_hour = Window::five_hour().used(used).resets_in(Duration::from_secs(3 * 3600));
            Account::new(name).provider("openai").windows([five_hour, Window::seven_day().used(20.0)])
        };
        let provider = Provider::play(Script::new([account("main", main), account("work", 1.0)]));
        let machine = Machine::new().set("MAIN", "sim-token-main").set("WORK", "sim-token-work");
        let config = format!(
            r#"[[providers]]
id = "made-up"
name = "Made Up"
url = "{}/backend-api/wham/usage"
plan = "$.plan_type"

[[providers.windows]]
rows = "$.rate_limit[?@.limit_window_seconds]"
length = "$.limit_window_seconds"
used = "$.used_percent"
resets_at = "$.reset_at"

[[accounts]]
id = "made-up/main"
token_env = "MAIN"

[[accounts]]
id = "made-up/work"
token_env = "WORK"
"#,
            provider.url().trim_end_matches('/')
        );
        let config = argument(&machine.write("config.toml", config)).to_owned();
        Self { machine, config, _provider: provider }
    }

    fn run(&self, arguments: &[&str]) -> super::support::Ended {
        self.machine.run(&[&arguments[..1], &["--config", &self.config], &arguments[1..]].concat())
    }
}

#[test]
fn status_shows_the_windows_and_the_plan() {
    let shown = Defined::new(62.5).run(&["status", "--json"]).json();

    let main = &shown["accounts"][0];
    assert_eq!((&main["account"], &main["plan"]), (&json!("made-up/main"), &json!("plus")));
    let windows: Vec<_> =
        main["windows"].as_array().unwrap().iter().map(|one| (&one["id"], &one["used_percent"])).collect();
    assert_eq!(windows, [(&json!("five_hour"), &json!(62.5)), (&json!("seven_day"), &json!(20.0))]);
}

#[test]
fn the_other_commands_use_the_reading() {
    let defined = Defined::new(99.5);
    defined.run(&["status"]);

    let line = defined.run(&["statusline", "--account", "made-up/main"]);
    let guard = defined.run(&["guard", "--account", "made-up/main", "--min-remaining", "10"]);
    let pick = defined.run(&["pick"]);
    let doctor = defined.run(&["doctor"]);
    let script = "echo \"$QUOTA_ACCOUNT\"";
    let run = defined.run(&["run", "--", "/bin/sh", "-c", script]);

    assert!(line.stdout.contains("99.5"), "{} {}", line.stdout, line.stderr);
    assert_eq!((guard.code, pick.code), (Some(1), Some(0)), "{} {}", guard.stderr, pick.stderr);
    assert!(doctor.stdout.contains("made-up/main"), "{}", doctor.stdout);
    assert_eq!(run.stdout, pick.stdout, "{}", run.stderr);
}

#[test]
fn providers_lists_it() {
    let shown = Defined::new(1.0).run(&["providers"]);

    assert!(
        shown.stdout.contains("made-up: Made Up") && shown.stdout.contains("defined in the configuration")
    );
}

#[test]
fn an_account_of_it_can_be_added() {
    let defined = Defined::new(1.0);
    let added = defined.machine.run(&[
        "accounts",
        "add",
        "made-up/third",
        "--token-env",
        "THIRD",
        "--config",
        &defined.config,
    ]);

    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let config = std::fs::read_to_string(&defined.config).unwrap();
    assert!(config.contains("made-up/third") && config.contains("[[providers.windows]]"), "{config}");
}

#[test]
fn parse_is_a_dry_run_on_a_saved_response() {
    let defined = Defined::new(1.0);
    let body = r#"{"rate_limit":{"a":{"limit_window_seconds":18000,"used_percent":7},"b":{"limit_window_seconds":60}}}"#;
    let file = defined.machine.write("saved.json", body);

    let parsed = defined.run(&["parse", "--provider", "made-up", argument(&file)]).json();

    assert_eq!(parsed["windows"][0]["used_percent"], 7.0);
    assert_eq!(parsed["ignored"][0]["reason"], "it has no usage");
    let positional = defined.run(&["parse", "made-up", argument(&file)]).json();
    assert_eq!(positional, parsed);
}

#[test]
fn an_unusable_configuration_leaves_the_known_providers() {
    let machine = Machine::new();
    let token = "sk-ant-oat01-made-up-n33dle";
    machine
        .write(".config/quota/config.toml", format!("[[providers]]\nid = \"{token}\"\nplan = \"$.plan\"\n"));

    let listed = machine.run(&["providers"]);
    let status = machine.run(&["status"]);

    assert!(listed.code == Some(0) && listed.stdout.contains("Anthropic"), "{}", listed.stderr);
    assert!(listed.stderr.contains("only the providers that quota knows"), "{}", listed.stderr);
    assert!(status.code != Some(0) && !format!("{}{}", listed.stderr, status.stderr).contains("n33dle"));
}
