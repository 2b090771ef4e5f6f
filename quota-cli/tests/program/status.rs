//! `quota status`: where accounts come from, and how failed ones are shown.

use quota_sim::{Account, Answer, Phase, Script, Window};
use serde_json::{Value, json};

use super::support::{Machine, Provider, argument};

fn answering(name: &str, answer: Answer) -> Account {
    Account::new(name).answers([Phase::new(answer)])
}

fn used(name: &str, percent: f64) -> Account {
    Account::new(name).windows([Window::five_hour().used(percent)])
}

#[test]
fn a_fresh_machine_lists_the_searched_places_with_3() {
    let machine = Machine::new();

    let ended = machine.run(&["status"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    for looked_for in [".config/quota/config.toml does not exist", ".claude/.credentials.json does not exist"]
    {
        assert!(ended.stderr.contains(looked_for), "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("[[accounts]]"), "{}", ended.stderr);
}

#[test]
fn json_of_a_fresh_machine_is_valid() {
    let ended = Machine::new().run(&["status", "--json"]);

    assert_eq!((ended.code, &ended.json()["accounts"]), (Some(3), &json!([])));
}

#[test]
fn without_a_home_directory_status_ends_with_3() {
    let machine = Machine::new();

    let output = machine.command(&["status"]).env_remove("HOME").output().unwrap();

    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn claude_codes_login_is_detected_and_used() {
    let provider = Provider::play(Script::new([used("main", 62.5).with_token("sim-token-claude")]));
    let machine = Machine::new();
    machine.log_in("sim-token-claude");
    let config = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{}\"\n", provider.url());
    machine.write(".config/quota/config.toml", config);

    let ended = machine.run(&["status"]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.contains("max 20x") && ended.stdout.contains("62.5 %"), "{}", ended.stdout);
}

#[test]
fn claude_codes_login_is_not_modified() {
    let provider = Provider::play(Script::new([used("main", 1.0).with_token("sim-token-claude")]));
    let machine = Machine::new();
    machine.log_in("sim-token-claude");
    let login = machine.path(".claude/.credentials.json");
    let before = std::fs::read(&login).unwrap();
    let config = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{}\"\n", provider.url());
    let config = machine.write("config.toml", config);

    machine.run(&["status", "--config", argument(&config)]);

    let listed = std::fs::read_dir(machine.path(".claude")).unwrap().count();
    assert_eq!((std::fs::read(&login).unwrap(), listed), (before, 1));
}

#[test]
fn an_unusable_login_is_an_account_without_data() {
    let machine = Machine::new();
    machine.write(".claude/.credentials.json", "{");

    let ended = machine.run(&["status"]);

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("anthropic/main") && ended.stdout.contains("could not parse"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_failing_account_hides_no_other() {
    let accounts = [
        answering("expired", Answer::Unauthorized),
        used("main", 12.0),
        answering("slow-down", Answer::ThrottleZero),
        answering("broken", Answer::Html),
        used("last", 34.0),
    ];
    let provider = Provider::play(Script::new(accounts));
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["status", "--json", "--config", argument(&config)]);

    let document = ended.json();
    let accounts = document["accounts"].as_array().unwrap();
    let shown: Vec<_> = accounts
        .iter()
        .map(|account| (account["windows"].as_array().unwrap().len(), account["error"].is_string()))
        .collect();
    assert_eq!(ended.code, Some(1));
    assert_eq!(shown, [(0, true), (1, false), (0, true), (0, true), (1, false)]);
    assert_eq!(provider.simulator.ledger().calls(), 5);
}

#[test]
fn accounts_with_data_end_with_0() {
    let provider = Provider::play(Script::default());
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("7-day Fable"), "{}", ended.stdout);
}

#[test]
fn json_has_its_version_and_the_fields_of_a_window() {
    let provider = Provider::play(Script::new([used("main", 62.5)]));
    let (machine, config) = provider.configure(Machine::new());

    let document = machine.run(&["status", "--json", "--config", argument(&config)]).json();

    let account = &document["accounts"][0];
    let window = &account["windows"][0];
    assert_eq!(document["version"], 2);
    assert_eq!((&account["account"], &account["state"]), (&json!("anthropic/main"), &json!("fresh")));
    assert_eq!((&window["id"], &window["used_percent"]), (&json!("five_hour"), &json!(62.5)));
    assert_eq!((&window["certainty"], &window["source"]), (&json!("exact"), &json!("poll")));
    assert_eq!((&window["scope"], &window["length_seconds"]), (&Value::Null, &json!(18_000)));
}

#[test]
fn a_429_shows_when_the_next_call_is_made() {
    let provider = Provider::play(Script::new([answering("main", Answer::ThrottleZero)]));
    let (machine, config) = provider.configure(Machine::new());

    let account = &machine.run(&["status", "--json", "--config", argument(&config)]).json()["accounts"][0];

    assert_eq!(account["hold"]["reason"], "rate_limited");
    assert_eq!(account["last_failure"]["kind"], "throttled");
}

#[test]
fn a_429_does_not_recommend_a_login() {
    let provider = Provider::play(Script::new([answering("main", Answer::ThrottleZero)]));
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert!(!ended.stdout.contains("token") && !ended.stdout.contains("log in"), "{}", ended.stdout);
}

#[test]
fn a_provider_cooldown_is_shown_on_its_accounts() {
    let accounts = [answering("main", Answer::ThrottleZero), used("spare", 1.0)];
    let provider = Provider::play(Script::new(accounts));
    let (machine, _) = provider.configure(Machine::new());
    let config = machine.write("usual.toml", provider.client_config());

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("on hold: provider cooldown after a 429"), "{}", ended.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_rejected_login_has_a_hint() {
    let provider = Provider::play(Script::new([answering("main", Answer::Unauthorized)]));
    let machine = Machine::new();
    machine.log_in("sim-token-main");
    let config = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{}\"\n", provider.url());
    let config = machine.write("config.toml", config);

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert!(ended.stdout.contains("log in again: run `claude`"), "{}", ended.stdout);
}

#[test]
fn accounts_of_one_provider_are_called_in_sequence() {
    let provider = Provider::play(Script::default());
    let (machine, config) = provider.configure(Machine::new());

    machine.run(&["status", "--config", argument(&config)]);

    let ledger = provider.simulator.ledger();
    assert_eq!((ledger.calls(), ledger.max_concurrent), (3, 1));
}

#[test]
fn the_user_agent_names_the_program() {
    let provider = Provider::play(Script::new([used("main", 1.0)]));
    let (machine, config) = provider.configure(Machine::new());

    machine.run(&["status", "--config", argument(&config)]);

    let ledger = provider.simulator.ledger();
    let agents = &ledger.account("main").unwrap().user_agents;
    assert!(agents.iter().all(|agent| agent.starts_with("quota/")) && agents.len() == 1, "{agents:?}");
}

#[test]
fn the_configured_user_agent_is_sent() {
    let provider = Provider::play(Script::new([used("main", 1.0)]));
    let machine = Machine::new().set("TOKEN", "sim-token-main");
    let config = format!(
        "[providers.anthropic]\nbase_url = \"{}\"\nuser_agent = \"mine/1\"\n\
         [[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"TOKEN\"\n",
        provider.url()
    );
    let config = machine.write("config.toml", config);

    let ended = machine.run(&["status", "--config", argument(&config)]);

    let ledger = provider.simulator.ledger();
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ledger.account("main").unwrap().user_agents, ["mine/1".to_owned()].into());
}

#[test]
fn xdg_config_home_takes_precedence() {
    let machine = Machine::new();
    machine.write(".config/quota/config.toml", "");
    let other = machine.path("xdg");
    machine.write("xdg/quota/config.toml", "broken");

    let ended = machine.set("XDG_CONFIG_HOME", argument(&other)).run(&["status"]);

    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("xdg/quota/config.toml:1:"), "{}", ended.stderr);
}

#[test]
fn a_relative_xdg_config_home_is_ignored() {
    let machine = Machine::new().set("XDG_CONFIG_HOME", "xdg");
    machine.write("xdg/quota/config.toml", "broken");

    assert_eq!(machine.run(&["status"]).code, Some(3));
}

#[test]
fn a_broken_configuration_is_one_line_with_78() {
    let machine = Machine::new();
    let config = machine.write("config.toml", "[[accounts]]\nidd = \"anthropic/main\"\n");

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""));
    assert!(
        ended.stderr.ends_with("config.toml:2:1: unknown key `idd`; did you mean `id`?\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn a_missing_configuration_ends_with_66() {
    let ended = Machine::new().run(&["status", "--config", "nowhere.toml"]);

    assert_eq!(ended.code, Some(66));
    assert_eq!(ended.stderr, "quota: could not read nowhere.toml: there is no such file\n");
}

#[test]
fn a_configuration_that_is_a_directory_ends_with_66() {
    let machine = Machine::new();
    machine.write(".config/quota/config.toml/x", "");

    assert_eq!(machine.run(&["status"]).code, Some(66));
}

#[test]
fn a_readable_token_file_is_rejected_with_a_fix() {
    let machine = Machine::new();
    let token = machine.write("token", "sim-token-main");
    let config =
        machine.write("config.toml", "[[accounts]]\nid = \"anthropic/main\"\ntoken_file = \"token\"\n");
    #[cfg(unix)]
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1));
    assert!(cfg!(not(unix)) || ended.stdout.contains("chmod"), "{} {}", token.display(), ended.stdout);
}

#[test]
fn two_hosts_that_share_a_store_cause_one_call() {
    let server = redis_harness::Server::start();
    let provider = Provider::play(Script::new([used("main", 42.0)]));

    for host in 0..2 {
        let (machine, config) = provider.configure(Machine::new());
        let by_option = ["--store", &server.url(), "status", "--config", argument(&config)];
        let ended = if host == 0 {
            machine.run(&by_option)
        } else {
            machine.set("QUOTA_STORE", &server.url()).run(&by_option[2..])
        };

        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
        assert!(ended.stdout.contains("42"), "{}", ended.stdout);
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn an_unreachable_store_leaves_processes_standalone() {
    let mut server = redis_harness::Server::start();
    let provider = Provider::play(Script::new([used("main", 42.0)]));
    let (machine, config) = provider.configure(Machine::new());
    server.kill();

    let ended = machine.run(&["--store", &server.url(), "status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("42"), "{}", ended.stdout);
}

#[test]
fn an_invalid_store_is_named_without_its_password() {
    let machine = Machine::new().set("QUOTA_STORE", "redsi://me:hunter2@host");

    let ended = machine.run(&["status"]);

    assert_eq!(ended.code, Some(78));
    assert!(
        ended
            .stderr
            .contains("QUOTA_STORE: unknown store scheme \"redsi\" (expected one of: memory:, sqlite:"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[test]
fn a_command_without_a_store_rejects_store() {
    let ended = Machine::new().run(&["--store", "memory:", "demo"]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("this command does not use a store"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn a_hanging_token_command_is_named() {
    let provider = Provider::play(Script::new([Account::new("main")]));
    let machine = Machine::new();
    let config = format!(
        "[policy]\nfetch_timeout = \"400ms\"\n[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{}\"\n\
         token_command = [\"/bin/sh\", \"-c\", \"exec sleep 3600\"]\n",
        provider.url()
    );
    let config = machine.write("config.toml", config);

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("the token command `/bin/sh` timed out after 0.3 s"), "{}", ended.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[test]
fn an_unreachable_provider_is_named_once_with_its_cause() {
    let machine = Machine::new().set("QUOTA_TOKEN", "sim-token-main");
    let account = "[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"http://127.0.0.1:9\"\ntoken_env = \"QUOTA_TOKEN\"\n";
    let config = machine.write("config.toml", account);

    let ended = machine.run(&["status", "--json", "--config", argument(&config)]);

    assert_eq!(ended.json()["accounts"][0]["error"], "could not connect to 127.0.0.1: Connection refused");
}
