//! `quota pick` and `quota explain`: the selected account, the exit codes, and that both commands agree.

use std::process::{Child, Stdio};
use std::time::Duration;

use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use serde_json::{Value, json};

use super::support::{Ended, Machine, Provider, argument};

const STATE: &str = ".local/state/quota/accounts.state.json";

/// The stored sessions.
fn stored_sessions(machine: &Machine) -> String {
    let Ok(files) = std::fs::read_dir(machine.path(&format!("{STATE}.sessions"))) else {
        return String::new();
    };
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

/// A machine with these accounts, each with the usage of its 5-hour window.
fn setup(accounts: &[(&str, f64)]) -> (Provider, Machine, String) {
    setup_with_config(accounts.iter().map(|(name, percent)| used(name, *percent)).collect(), "")
}

fn setup_with_config(accounts: Vec<Account>, more: &str) -> (Provider, Machine, String) {
    let provider = Provider::play(Script::new(accounts));
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let config = machine.write("config.toml", format!("{more}\n{text}"));
    (provider, machine, argument(&config).to_owned())
}

fn used(name: &str, percent: f64) -> Account {
    let window = Window::five_hour().used(percent).resets_in(Duration::from_secs(2 * 3600));
    Account::new(name).windows([window])
}

fn reasons(document: &Value) -> Vec<(&str, &str)> {
    let accounts = document["accounts"].as_array().unwrap().iter();
    accounts.map(|one| (one["account"].as_str().unwrap(), one["reason"].as_str().unwrap())).collect()
}

#[test]
fn the_main_account_is_picked_while_it_is_available() {
    let (provider, machine, config) = setup(&[("main", 60.0), ("work", 1.0)]);

    let ended = machine.run(&["pick", "--config", &config]);

    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "anthropic/main\n", ""));
    assert_eq!(provider.simulator.ledger().calls(), 1, "the other account is not refreshed");
}

#[test]
fn the_first_available_fallback_is_picked() {
    let (_provider, machine, config) = setup(&[("main", 100.0), ("work", 100.0), ("spare", 42.0)]);

    let ended = machine.run(&["pick", "--json", "--config", &config]);

    let document = ended.json();
    assert_eq!(
        (ended.code, &document["account"], &document["outcome"]),
        (Some(0), &json!("anthropic/spare"), &json!("picked"))
    );
    let expected =
        [("anthropic/main", "exhausted"), ("anthropic/work", "exhausted"), ("anthropic/spare", "available")];
    assert_eq!(reasons(&document), expected);
    assert_eq!(document["accounts"][0]["window"], "five_hour");
}

#[test]
fn eight_concurrent_picks_make_one_call_per_account() {
    let accounts = [("main", 100.0), ("work", 100.0), ("spare", 42.0)];
    let accounts = accounts.map(|(name, percent)| used(name, percent).latency(Duration::from_millis(50)));
    let (provider, machine, config) = setup_with_config(accounts.to_vec(), "");

    let start = |_| {
        let mut command = machine.command(&["pick", "--config", &config]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..8).map(start).collect();
    let ended: Vec<_> = children.into_iter().map(|one| Ended::of(one.wait_with_output().unwrap())).collect();

    for one in ended {
        assert_eq!((one.code, &*one.stdout, &*one.stderr), (Some(0), "anthropic/spare\n", ""));
    }
    let ledger = provider.simulator.ledger();
    let calls: Vec<_> = ledger.accounts.values().map(|account| account.calls).collect();
    assert_eq!(calls, [1, 1, 1], "{ledger:?}");
}

#[test]
fn pick_refreshes_every_account_until_one_is_available() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut accounts: Vec<_> = names.iter().map(|name| used(name, 100.0)).collect();
    accounts.push(used("last", 1.0));
    let (provider, machine, config) = setup_with_config(accounts, "");

    let explained = machine.run(&["explain", "--json", "--config", &config]).json();
    let ended = machine.run(&["pick", "--config", &config]);

    assert_eq!(explained["account"], "anthropic/last");
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "anthropic/last\n"), "{}", ended.stderr);
    assert_eq!(provider.simulator.ledger().calls(), 9);
}

#[test]
fn without_an_available_account_the_next_time_is_printed() {
    let (_provider, machine, config) = setup(&[("main", 100.0), ("work", 100.0)]);

    let ended = machine.run(&["pick", "--config", &config]);
    let document = machine.run(&["pick", "--json", "--config", &config]).json();

    assert_eq!((ended.code, &*ended.stdout, ended.stderr.lines().count()), (Some(1), "", 1));
    assert!(
        ended.stderr.starts_with("quota: no account available; next available: anthropic/"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(" in 2 h"), "{}", ended.stderr);
    assert_eq!((&document["account"], &document["outcome"]), (&Value::Null, &json!("no_account_available")));
    let seconds = document["retry_after_seconds"].as_u64().unwrap();
    assert!((7_000..=7_200).contains(&seconds), "{seconds}");
}

#[test]
fn the_configured_killswitch_and_minimum_apply() {
    let accounts = || vec![used("main", 85.0), used("work", 70.0)];
    let picked = |routing: &str| {
        let (_provider, machine, config) = setup_with_config(accounts(), routing);
        let ended = machine.run(&["pick", "--config", &config]);
        (ended.code.unwrap(), ended.stdout.trim_end().to_owned())
    };

    assert_eq!(picked(""), (0, "anthropic/main".to_owned()));
    assert_eq!(picked("[routing]\nmin_remaining = 20"), (0, "anthropic/work".to_owned()));
    assert_eq!(
        picked("[routing]\nmin_remaining = 50"),
        (0, "anthropic/main".to_owned()),
        "no account is above the minimum"
    );
    assert_eq!(picked("[routing]\nkillswitch = { five_hour = 20 }"), (0, "anthropic/work".to_owned()));
    assert_eq!(picked("[routing]\nkillswitch = 50"), (1, String::new()));
    assert_eq!(picked("[routing]\nmode = \"fallback_first\""), (0, "anthropic/work".to_owned()));
}

#[test]
fn a_limit_on_a_models_window_does_not_block_other_models() {
    let more = "[routing]\nkillswitch = { seven_day = 5, \"seven_day/fable\" = 20 }";
    let (_provider, machine, config) = setup_with_config(vec![used("main", 60.0)], more);

    for model in [None, Some("claude-sonnet-4-5"), Some("claude-fable-1")] {
        let arguments = ["pick", "--config", &config].into_iter();
        let arguments: Vec<_> =
            arguments.chain(model.into_iter().flat_map(|model| ["--model", model])).collect();

        let ended = machine.run(&arguments);

        assert_eq!(
            (ended.code, &*ended.stdout),
            (Some(0), "anthropic/main\n"),
            "{model:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_window_of_another_model_does_not_count() {
    let model = Window::model("Opus").used(100.0).resets_in(Duration::from_secs(3600));
    let main = Account::new("main").windows([Window::five_hour().used(1.0), model]);
    let (_provider, machine, config) = setup_with_config(vec![main, used("work", 1.0)], "");
    let pick = |model: &str| machine.run(&["pick", "--model", model, "--config", &config]).stdout;

    assert_eq!(pick("claude-opus-4-5"), "anthropic/work\n");
    assert_eq!(pick("claude-sonnet-4-5"), "anthropic/main\n");
}

#[test]
fn unknown_usage_is_69_unless_allowed() {
    let forbidden = used("main", 1.0).answers([Phase::new(Answer::Forbidden)]);
    let (_provider, machine, config) = setup_with_config(vec![forbidden], "");

    let denied = machine.run(&["pick", "--config", &config]);
    let allowed = machine.run(&["pick", "--unknown", "allow", "--config", &config]);
    let explained = machine.run(&["explain", "--config", &config]);

    assert_eq!((denied.code, &*denied.stdout, denied.stderr.lines().count()), (Some(69), "", 1));
    assert!(denied.stderr.contains("--unknown allow"), "{}", denied.stderr);
    assert_eq!((allowed.code, &*allowed.stdout), (Some(0), "anthropic/main\n"));
    assert_eq!(explained.code, Some(69));
    let open = machine.write(
        "open.toml",
        format!("[routing]\nwhen_unknown = \"allow\"\n{}", std::fs::read_to_string(&config).unwrap()),
    );
    assert_eq!(
        machine.run(&["pick", "--config", argument(&open)]).code,
        Some(0),
        "the configuration allows it"
    );
}

#[test]
fn stale_usage_is_used_and_refreshed_in_the_background() {
    let provider = Provider::play(Script::new([used("main", 1.0)]));
    let (machine, config) = provider.configure(Machine::new());
    let accounts = std::fs::read_to_string(&config).unwrap();
    let accounts = &accounts[accounts.find("[[accounts]]").unwrap()..];
    // With this policy every reading is stale at once.
    let policy = "[policy]\ngap = \"1us\"\nfreshness = \"2us\"\n";
    let old = machine.write("old.toml", format!("{policy}{accounts}"));
    assert_eq!(machine.run(&["status", "--config", argument(&config)]).code, Some(0));
    provider.simulator.set("main", Change::used(Window::five_hour(), 100.0)).unwrap();

    let ended = machine.run(&["pick", "--config", argument(&old)]);
    let next = machine.run(&["pick", "--config", argument(&config)]);

    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "anthropic/main\n", ""));
    assert_eq!(next.code, Some(1), "the first pick refreshed in the background");
    assert_eq!(provider.simulator.ledger().calls(), 2);
}

#[test]
fn an_account_without_a_login_is_not_picked() {
    let (_provider, machine, config) = setup(&[("main", 1.0), ("work", 1.0)]);
    assert_eq!(machine.run(&["pick", "--config", &config]).stdout, "anthropic/main\n");

    // The usage of main is fresh, but its login is missing.
    let mut command = machine.command(&["pick", "--json", "--config", &config]);
    let ended = Ended::of(command.env_remove("QUOTA_SIM_MAIN").output().unwrap());
    let mut command = machine.command(&["explain", "--json", "--config", &config]);
    let explained = Ended::of(command.env_remove("QUOTA_SIM_MAIN").output().unwrap());

    for document in [ended.json(), explained.json()] {
        assert_eq!(document["account"], "anthropic/work");
        assert_eq!(reasons(&document)[0], ("anthropic/main", "login_rejected"));
    }
}

#[test]
fn pick_and_explain_run_a_token_command_once() {
    for command in ["pick", "explain"] {
        let (provider, machine, config) = setup(&[("main", 1.0)]);
        let runs = machine.path("runs");
        let script = format!("echo run >> '{}'; echo \"$QUOTA_SIM_MAIN\"", runs.display());
        let text = std::fs::read_to_string(&config).unwrap();
        let login = format!("token_command = [\"/bin/sh\", \"-c\", {script:?}]");
        let text = text.replace("token_env = \"QUOTA_SIM_MAIN\"", &login);
        machine.write("config.toml", text);

        let ended = machine.run(&[command, "--config", &config]);

        assert_eq!((ended.code, provider.simulator.ledger().calls()), (Some(0), 1), "{}", ended.stderr);
        assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n", "{command}");
    }
}

#[test]
fn an_account_with_an_unreadable_login_is_not_picked() {
    let (_provider, machine, config) = setup(&[("main", 1.0), ("work", 1.0)]);
    assert_eq!(machine.run(&["pick", "--config", &config]).stdout, "anthropic/main\n");

    for command in ["pick", "explain"] {
        let mut command = machine.command(&[command, "--json", "--config", &config]);
        let document = Ended::of(command.env("QUOTA_SIM_MAIN", "two tokens").output().unwrap()).json();

        assert_eq!(document["account"], "anthropic/work");
        assert_eq!(reasons(&document)[0], ("anthropic/main", "credential_unavailable"));
        assert!(document["accounts"][0]["retry_at"].is_string(), "{document}");
    }
}

#[test]
fn a_session_stays_with_its_account_across_processes() {
    let accounts = vec![used("main", 1.0), used("work", 1.0), used("spare", 1.0)];
    let (provider, machine, config) = setup_with_config(accounts, "[routing]\nmode = \"sticky_balanced\"");
    let pick = |session: &str| machine.run(&["pick", "--session", session, "--config", &config]).stdout;
    let own = pick("one");
    let name = own.trim_end().trim_start_matches("anthropic/").to_owned();

    // A new session would hardly ever be placed on this account.
    provider.simulator.set(&name, Change::used(Window::five_hour(), 99.9)).unwrap();
    machine.run(&["status", "--max-age", "0s", "--config", &config]);

    assert_eq!(pick("one"), own);
    assert!(
        (0..8).any(|other| pick(&format!("other {other}")) != own),
        "another session gets another account"
    );
    let state = std::fs::read_to_string(machine.path(STATE)).unwrap() + &stored_sessions(&machine);
    assert!(state.contains("\"session\"") && !state.contains("other"), "{state}");
}

#[test]
fn explain_agrees_with_pick_and_stores_no_session() {
    for accounts in [
        vec![used("main", 60.0), used("work", 1.0)],
        vec![used("main", 100.0), used("work", 1.0)],
        vec![used("main", 100.0), used("work", 100.0)],
        vec![used("main", 100.0), used("work", 1.0).answers([Phase::new(Answer::Unauthorized)])],
    ] {
        let (_provider, machine, config) =
            setup_with_config(accounts, "[routing]\nmode = \"sticky_balanced\"");
        let options = ["--json", "--session", "s", "--config", &config];

        let explained = machine.run(&[&["explain"], &options[..]].concat());
        let trace = stored_sessions(&machine);
        let picked = machine.run(&[&["pick"], &options[..]].concat());

        assert_eq!(explained.code, picked.code, "{}", explained.stdout);
        let (explained, picked) = (explained.json(), picked.json());
        assert_eq!(explained["account"], picked["account"]);
        assert_eq!(reasons(&explained), reasons(&picked));
        assert!(!trace.contains("\"session\""), "{trace}");
    }
}

#[test]
fn explain_shows_every_account_with_its_windows_and_the_reason() {
    let (_provider, machine, config) = setup(&[("main", 100.0), ("work", 42.0), ("spare", 1.0)]);

    let ended = machine.run(&["explain", "--config", &config]);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    for expected in
        ["Use anthropic/work.", "5-hour window exhausted, resets ", "→ anthropic/work", "42 %", "standby"]
    {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\u{1b}'), "without a terminal there are no colors");
}

#[test]
fn a_memory_store_leaves_no_state_file() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);

    let ended = machine.run(&["--store", "memory:", "pick", "--config", &config]);

    assert_eq!((ended.code, &*ended.stdout), (Some(0), "anthropic/main\n"));
    assert!(!machine.path(STATE).exists());
}

#[test]
fn a_damaged_state_file_is_reported_and_not_changed() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);
    machine.write(STATE, "{\"accounts\":");

    let ended = machine.run(&["pick", "--config", &config]);

    assert_eq!((ended.code, &*ended.stdout, ended.stderr.lines().count()), (Some(0), "anthropic/main\n", 1));
    assert!(ended.stderr.contains("accounts.state.json: invalid at line"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(machine.path(STATE)).unwrap(), "{\"accounts\":");
}

#[test]
fn a_usage_error_is_64_and_an_invalid_configuration_78() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);
    let broken = machine
        .write("broken.toml", "[routing]\nmode = \"main_frist\"\n[[accounts]]\nid = \"anthropic/main\"\n");

    for wrong in [&["--unknown", "perhaps"][..], &["--modle", "x"], &["main"]] {
        assert_eq!(
            machine.run(&[&["pick", "--config", &config], wrong].concat()).code,
            Some(64),
            "{wrong:?}"
        );
    }
    let ended = machine.run(&["pick", "--config", argument(&broken)]);
    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.contains("broken.toml:2:8: ") && ended.stderr.contains("did you mean"),
        "{}",
        ended.stderr
    );
    assert_eq!(machine.run(&["pick", "--config", "nowhere.toml"]).code, Some(66));
}

#[test]
fn the_example_in_the_help_is_a_valid_configuration() {
    let machine = Machine::new();
    let help = machine.run(&["explain", "--help"]).stdout;
    let lines = help.lines().skip_while(|line| line.trim() != "[routing]");
    let mut example: String =
        lines.take_while(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
    assert!(example.contains("max_session_wait"), "{help}");
    example.push_str("[[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"MAIN\"\n");
    let config = machine.write("example.toml", example);

    let ended = machine.run(&["accounts", "list", "--config", argument(&config)]);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
}
