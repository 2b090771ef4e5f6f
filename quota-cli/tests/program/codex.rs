//! An account of another provider than Anthropic in every command: OpenAI Codex, with the login that Codex itself wrote.

use std::time::Duration;

use quota_sim::{Account, Script, Window};
use serde_json::json;

use super::support::{Machine, Provider, argument};

/// A machine with a login of Codex in `~/.codex` and one in `~/.codex-work`, and a simulator that plays both accounts.
struct Codex {
    machine: Machine,
    config: String,
    _provider: Provider,
}

fn login(name: &str) -> String {
    json!({
        "OPENAI_API_KEY": null,
        "tokens": { "access_token": format!("sim-token-{name}"), "account_id": format!("sim-org-{name}") },
    })
    .to_string()
}

fn setup(main: f64, work: f64) -> Codex {
    let account = |name: &str, used: f64| {
        let resets = Duration::from_secs(3 * 3600);
        let windows = [Window::five_hour().used(used).resets_in(resets), Window::seven_day().used(20.0)];
        Account::new(name).provider("openai").windows(windows)
    };
    let provider = Provider::play(Script::new([account("main", main), account("work", work)]));
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));
    machine.write(".codex-work/auth.json", login("work"));
    let config = format!(
        "[providers.codex]\nbase_url = \"{}\"\n\n[[accounts]]\nid = \"codex/main\"\n\n\
         [[accounts]]\nid = \"openai/work\"\nlogin_dir = \"~/.codex-work\"\n",
        provider.url().trim_end_matches('/')
    );
    let config = argument(&machine.write("config.toml", config)).to_owned();
    Codex { machine, config, _provider: provider }
}

#[test]
fn status_shows_the_windows_and_the_plan() {
    let codex = setup(62.5, 1.0);

    let shown = codex.machine.run(&["status", "--config", &codex.config, "--json"]).json();

    let main = &shown["accounts"][0];
    assert_eq!((&main["account"], &main["plan"]), (&json!("openai/main"), &json!("plus")));
    let windows: Vec<_> =
        main["windows"].as_array().unwrap().iter().map(|one| (&one["id"], &one["used_percent"])).collect();
    assert_eq!(windows, [(&json!("five_hour"), &json!(62.5)), (&json!("seven_day"), &json!(20.0))]);
}

#[test]
fn statusline_shows_the_stored_reading() {
    let codex = setup(62.5, 1.0);
    codex.machine.run(&["status", "--config", &codex.config]);

    let ended = codex.machine.run(&["statusline", "--config", &codex.config, "--account", "codex/main"]);

    assert!(ended.stdout.contains("62.5"), "{} {}", ended.stdout, ended.stderr);
}

#[test]
fn guard_exits_by_what_is_left() {
    let codex = setup(62.5, 99.0);
    let guard = |account: &str| {
        codex
            .machine
            .run(&["guard", "--config", &codex.config, "--account", account, "--min-remaining", "10"])
            .code
    };

    assert_eq!((guard("openai/main"), guard("openai/work")), (Some(0), Some(1)));
}

#[test]
fn pick_prefers_the_account_that_is_not_exhausted() {
    let codex = setup(100.0, 1.0);

    let ended = codex.machine.run(&["pick", "--config", &codex.config]);

    assert_eq!((ended.code, ended.stdout.trim_end()), (Some(0), "openai/work"), "{}", ended.stderr);
}

#[test]
fn run_passes_the_folder_of_the_login_and_no_api_key() {
    let codex = setup(100.0, 1.0);
    let Codex { machine, config, .. } = &codex;
    let script = "echo \"$QUOTA_ACCOUNT $CODEX_HOME ${OPENAI_API_KEY-none}\"";
    let mut command = machine.command(&["run", "--config", config, "--", "/bin/sh", "-c", script]);

    let output = command.env("OPENAI_API_KEY", "sk-made-up").output().unwrap();

    let folder = machine.path(".codex-work");
    let expected = format!("openai/work {} none\n", argument(&folder));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn doctor_checks_the_login_of_codex() {
    let codex = setup(1.0, 1.0);

    let ended = codex.machine.run(&["doctor", "--config", &codex.config]);

    assert!(ended.stdout.contains(".codex/auth.json"), "{}", ended.stdout);
}

#[test]
fn an_api_key_alone_says_how_to_log_in() {
    let codex = setup(1.0, 1.0);
    codex.machine.write(".codex/auth.json", r#"{"OPENAI_API_KEY":"sk-made-up"}"#);

    let ended = codex.machine.run(&["status", "--config", &codex.config, "--account", "codex/main"]);

    assert!(ended.stdout.contains("codex login") || ended.stderr.contains("codex login"), "{}", ended.stdout);
}

#[test]
fn init_finds_the_login_of_codex() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));

    let ended = machine.run(&["init", "--print"]);

    assert!(ended.stdout.contains("\nid = \"openai/main\"\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("\nid = \"anthropic/main\"\n"), "{}", ended.stdout);
}

#[test]
fn without_a_configuration_the_login_of_codex_is_offered() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));

    let ended = machine.run(&["status"]);

    assert_eq!(ended.code, Some(3));
    assert!(
        ended.stderr.contains("There is a login of Codex. To use it, run: quota init"),
        "{}",
        ended.stderr
    );
}

#[test]
fn commands_that_need_an_account_offer_the_login_of_codex() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));

    for arguments in [&["pick"][..], &["explain"], &["guard", "--min-remaining", "1"], &["run", "--", "true"]]
    {
        let ended = machine.run(arguments);

        assert_eq!(ended.code, Some(69), "{arguments:?}");
        let hint = "quota: there is a login of Codex, but no account for it; run: quota init\n";
        assert_eq!((&*ended.stderr, &*ended.stdout), (hint, ""), "{arguments:?}");
    }
}

#[test]
fn the_document_of_a_command_has_the_reason_beside_the_offer() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));

    let ended = machine.run(&["guard", "--min-remaining", "1", "--json"]);

    assert_eq!((ended.code, &ended.json()["result"]), (Some(69), &json!("unknown")));
    assert!(ended.stderr.contains("run: quota init"), "{}", ended.stderr);
}

#[test]
fn doctor_warns_of_a_login_without_an_account() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", login("main"));

    let checks = machine.run(&["doctor", "--json"]).json();

    let checks = checks["checks"].as_array().unwrap();
    let unused = checks.iter().find(|check| check["subject"] == "openai/main").unwrap();
    assert_eq!((&unused["level"], &unused["hint"]), (&json!("warn"), &json!("run: quota init")));
    assert!(unused["message"].as_str().unwrap().contains("there is a login of Codex"), "{unused}");
}

#[test]
fn a_hook_accepts_the_usual_name_of_the_provider() {
    let machine = Machine::new();
    let hook = "[[hooks]]\non = [\"reset\"]\naccounts = [\"codex/main\"]\nrun = [\"true\"]\n";
    let config = machine.write("config.toml", format!("[[accounts]]\nid = \"openai/main\"\n\n{hook}"));
    let config = argument(&config);

    let listed = machine.run(&["accounts", "--config", config]);
    let removed = machine.run(&["accounts", "remove", "codex/main", "--config", config]);

    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(removed.stderr.contains("openai/main") && removed.stderr.contains("hook"), "{}", removed.stderr);
}

#[test]
fn accounts_add_accepts_the_usual_name_of_the_provider() {
    let machine = Machine::new();

    let ended = machine.run(&["accounts", "add", "codex/work", "--login-dir", "~/.codex-work"]);

    assert_eq!(ended.stdout, "added openai/work: login of Codex in ~/.codex-work\n", "{}", ended.stderr);
    let config = std::fs::read_to_string(machine.path(".config/quota/config.toml")).unwrap();
    assert!(config.contains("id = \"openai/work\"\nlogin_dir = \"~/.codex-work\"\n"), "{config}");
}

#[test]
fn a_folder_for_claude_code_is_rejected() {
    let ended = Machine::new().run(&["accounts", "add", "codex/work", "--claude-config-dir", "~/x"]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("login_dir"), "{}", ended.stderr);
}

#[test]
fn a_saved_response_is_parsed_by_the_usual_name() {
    let machine = Machine::new();
    let body = json!({ "plan_type": "plus", "rate_limit": { "primary_window": {
        "used_percent": 40, "limit_window_seconds": 604_800, "reset_at": 1_783_000_000,
    } } });
    let file = machine.write("saved", body.to_string());

    let parsed = machine.run(&["parse", "codex", argument(&file)]).json();

    assert_eq!((&parsed["kind"], &parsed["windows"][0]["id"]), (&json!("usage"), &json!("seven_day")));
}

#[test]
fn a_login_is_not_parsed() {
    let machine = Machine::new();
    let file = machine.write("saved", login("main"));

    let ended = machine.run(&["parse", "codex", argument(&file)]);

    assert_eq!(ended.code, Some(65));
    assert!(ended.stderr.contains("do not share this file") && !ended.stderr.contains("sim-token"));
}

#[test]
fn the_headers_of_codex_are_parsed() {
    let machine = Machine::new();
    let lines = "HTTP/2 200\nx-codex-primary-used-percent: 42.5\nx-codex-primary-window-minutes: 300\n";
    let file = machine.write("saved", lines);

    let parsed = machine.run(&["parse", "codex", "--headers", argument(&file)]).json();

    assert_eq!(parsed["windows"][0]["used_percent"], 42.5);
}

#[test]
fn the_demo_plays_accounts_of_several_providers() {
    let arguments =
        ["demo", "--json", "--seconds", "1", "--consumers", "50", "--accounts", "4", "--provider", "all"];

    let summary = Machine::new().run(&arguments).json();

    let calls = summary["provider_calls"].as_object().unwrap();
    let names: Vec<_> = calls.keys().collect();
    assert!(names.iter().any(|name| name.starts_with("openai/")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("anthropic/")), "{names:?}");
    assert!(summary["calls_during_hold"].as_object().unwrap().values().all(|calls| *calls == 0), "{summary}");
}

#[test]
fn providers_are_listed_with_their_names() {
    let listed = Machine::new().run(&["providers", "--json"]).json();

    let codex = &listed["providers"][1];
    assert_eq!((&codex["id"], &codex["other_names"][0]), (&json!("openai"), &json!("codex")));
}

#[test]
fn an_unknown_provider_is_answered_with_the_nearest_name() {
    let machine = Machine::new();
    let config = machine.write("config.toml", "[[accounts]]\nid = \"codx/main\"\n");

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("did you mean codex/main?"), "{}", ended.stderr);
}
