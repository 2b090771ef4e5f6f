//! `quota doctor`: the problems that it reports, its hints, and the secrets that it never prints.

use std::os::unix::fs::PermissionsExt;

use quota_sim::{Account, Answer, Phase, Script, Window};
use serde_json::Value;

use super::logins::Env;
use super::support::{Ended, Machine, Provider, argument};

const SECRET: &str = "sk-ant-oat01-must-not-be-shown";

fn mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A machine with one account, Claude Code's login, and a simulated provider for it.
fn healthy() -> (Provider, Machine) {
    let provider =
        Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(1.0)])]));
    let machine = Machine::new();
    machine.log_in(SECRET);
    mode(&machine.path(".claude/.credentials.json"), 0o600);
    let config = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{}\"\n", provider.url());
    mode(&machine.write(".config/quota/config.toml", config), 0o600);
    (provider, machine)
}

/// The problems of an area, each with its hint.
fn findings(ended: &Ended, area: &str) -> Vec<(String, String)> {
    let json = ended.json();
    let checks = json["checks"].as_array().unwrap().iter().filter(|check| check["area"] == area);
    let of = |check: &Value| {
        let text = |field: &str| check[field].as_str().map(str::to_owned);
        Some((text("message")?, text("hint")?))
    };
    checks.filter_map(of).collect()
}

#[test]
fn a_healthy_machine_has_no_problems_and_no_call_is_made() {
    let (provider, machine) = healthy();

    let ended = machine.run(&["doctor"]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("\nNo problems found.\n"), "{}", ended.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[test]
fn every_area_is_checked() {
    let (_provider, machine) = healthy();

    let json = machine.run(&["doctor", "--json"]).json();

    let mut areas: Vec<_> = json["checks"].as_array().unwrap().iter().map(|check| &check["area"]).collect();
    areas.dedup();
    assert_eq!(areas, ["config", "store", "clock", "login", "refresh", "provider", "clock"]);
    assert_eq!(json["version"], 2);
}

#[test]
fn an_invalid_configuration_is_reported_with_its_line() {
    let machine = Machine::new();
    machine.write(".config/quota/config.toml", "[[accounts]]\nidd = \"anthropic/main\"\n");

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    let found = findings(&ended, "config");
    assert!(found[0].0.contains("config.toml:2:"), "{found:?}");
}

#[test]
fn disabled_accounts_are_a_warning_if_there_is_no_other() {
    let machine = Machine::new();
    machine.write(".config/quota/config.toml", "[[accounts]]\nid = \"anthropic/main\"\ndisabled = true\n");

    let ended = machine.run(&["doctor", "--json"]);

    let expected = (
        "all accounts are disabled".to_owned(),
        "enable one with: quota accounts enable anthropic/main".to_owned(),
    );
    assert_eq!((ended.code, findings(&ended, "config")), (Some(1), vec![expected]));
}

#[test]
fn a_configuration_writable_by_others_is_a_problem() {
    let (_provider, machine) = healthy();
    mode(&machine.path(".config/quota/config.toml"), 0o666);

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    assert!(findings(&ended, "config")[0].1.starts_with("run: chmod go-w '"), "{}", ended.stdout);
}

#[test]
fn a_login_readable_by_others_is_a_problem() {
    let (_provider, machine) = healthy();
    mode(&machine.path(".claude/.credentials.json"), 0o644);

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    assert!(findings(&ended, "login")[0].1.starts_with("run: chmod 600 '"), "{}", ended.stdout);
}

#[test]
fn of_two_stored_logins_the_used_one_is_marked() {
    let (_provider, machine) = healthy();
    let older = r#"{ "claudeAiOauth": { "accessToken": "sk-ant-oat01-older", "expiresAt": 4000000000000 } }"#;
    mode(&machine.write(".config/claude/.credentials.json", older), 0o600);

    let ended = machine.run(&["doctor"]);

    let lines = |what: &str| ended.stdout.lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines("using "), lines("not used because it is older:")), (1, 1), "{}", ended.stdout);
    assert_eq!(ended.code, Some(0));
}

#[test]
fn a_store_accessible_to_others_is_a_problem() {
    let (_provider, machine) = healthy();
    machine.run(&["doctor"]);
    mode(&machine.path(".local/state/quota/quota.db"), 0o644);

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    assert!(findings(&ended, "store")[0].1.contains("chmod 600"), "{}", ended.stdout);
}

#[test]
fn an_unreachable_provider_is_a_problem() {
    let (provider, machine) = healthy();
    drop(provider);

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    assert_eq!(findings(&ended, "provider")[0].0, "could not connect");
}

#[test]
fn the_host_of_a_disabled_account_is_not_checked() {
    let (_provider, machine) = healthy();
    let path = machine.path(".config/quota/config.toml");
    let disabled = "[[accounts]]\nid = \"anthropic/off\"\nbase_url = \"http://127.0.0.1:1\"\ntoken_env = \"X\"\ndisabled = true\n";
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + disabled).unwrap();

    let ended = machine.run(&["doctor"]);

    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

#[test]
fn a_missing_login_is_a_problem() {
    let (_provider, machine) = healthy();
    std::fs::remove_file(machine.path(".claude/.credentials.json")).unwrap();

    let ended = machine.run(&["doctor", "--json"]);

    assert_eq!(ended.code, Some(1));
    let found = findings(&ended, "login");
    assert_eq!(found.len(), 1, "a missing login is one problem, although there are two locations: {found:?}");
    assert!(
        found[0].0.contains(".claude/.credentials.json") && found[0].0.contains(".config/claude"),
        "{found:?}"
    );
    assert_eq!(found[0].1, "log in: run `claude`, then /login");
}

#[test]
fn an_unset_token_variable_is_a_problem() {
    let machine = Machine::new();
    let account = "[[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"QUOTA_UNSET\"\n";
    machine.write(".config/quota/config.toml", account);

    let found = findings(&machine.run(&["doctor", "--json"]), "login");

    let [(message, hint)] = &found[..] else { panic!("{found:?}") };
    assert!(message.contains("QUOTA_UNSET"), "{message}");
    assert_eq!(hint, "put a token into its environment variable (token_env)");
}

#[test]
fn a_readable_and_expired_login_is_two_problems() {
    let (_provider, machine) = healthy();
    let ended = r#"{ "claudeAiOauth": { "accessToken": "sk-ant-oat01-ended", "expiresAt": 1700000000000 } }"#;
    mode(&machine.write(".claude/.credentials.json", ended), 0o644);

    let found = findings(&machine.run(&["doctor", "--json"]), "login");

    let [(_, rights), (message, login)] = &found[..] else { panic!("{found:?}") };
    assert!(rights.starts_with("run: chmod 600 '"), "{found:?}");
    assert!(message.contains("expired") && login.contains("run `claude`"), "{found:?}");
}

#[test]
fn a_directory_at_the_path_of_a_login_is_a_problem() {
    let (_provider, machine) = healthy();
    let path = machine.path(".claude/.credentials.json");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();

    let found = findings(&machine.run(&["doctor", "--json"]), "login");

    let message = format!("could not read {}: it is a directory", path.display());
    assert_eq!(found, [(message, "move it away".to_owned())]);
}

#[test]
fn an_unreadable_login_is_a_problem_a_missing_copy_is_not() {
    let (_provider, machine) = healthy();
    mode(&machine.write(".claude/.credentials.json", "{"), 0o600);

    let found = findings(&machine.run(&["doctor", "--json"]), "login");

    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.contains(".claude/.credentials.json"), "{found:?}");
}

/// The levels and reasons of the refresh checks after the provider gave this answer.
fn refreshes_after(answer: Answer) -> (Ended, Vec<(String, Value)>) {
    let provider = Provider::play(Script::new([Account::new("main").answers([Phase::new(answer)])]));
    let (machine, config) = provider.configure(Machine::new());
    mode(&config, 0o600);
    machine.run(&["status", "--config", argument(&config)]);
    let calls = provider.simulator.ledger().calls();
    let ended = machine.run(&["doctor", "--json", "--config", argument(&config)]);
    assert_eq!(provider.simulator.ledger().calls(), calls, "no call is made");
    let json = ended.json();
    let checks = json["checks"].as_array().unwrap().iter().filter(|check| check["area"] == "refresh");
    let found = checks.map(|check| (check["level"].as_str().unwrap().to_owned(), check["reason"].clone()));
    let found = found.collect();
    (ended, found)
}

#[test]
fn a_login_that_the_provider_rejects_fails() {
    let (ended, found) = refreshes_after(Answer::Unauthorized);

    assert_eq!(ended.code, Some(1));
    assert_eq!(found, [("fail".to_owned(), "unauthorized".into())], "{}", ended.stdout);
}

#[test]
fn a_login_that_the_provider_forbids_fails() {
    let (ended, found) = refreshes_after(Answer::Forbidden);

    assert_eq!(ended.code, Some(1));
    assert_eq!(found, [("fail".to_owned(), "forbidden".into())], "{}", ended.stdout);
}

#[test]
fn a_hold_is_a_warning_with_its_end_and_the_clear_command() {
    let (ended, found) = refreshes_after(Answer::ThrottleNoHeader);

    assert_eq!(ended.code, Some(1));
    let kinds: Vec<_> =
        found.iter().map(|(level, reason)| (level.as_str(), reason.as_str().unwrap())).collect();
    assert_eq!(kinds, [("warn", "throttled"), ("warn", "rate_limited")], "{}", ended.stdout);
    let (message, advice) = &findings(&ended, "refresh")[1];
    assert!(message.starts_with("backing off, next call in "), "{message}");
    assert!(advice.contains("quota accounts clear-hold anthropic/main --config /"), "{advice}");
}

#[test]
fn a_used_up_budget_is_a_warning() {
    let (provider, machine) = healthy();
    let config = machine.path(".config/quota/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("[policy]\nbudget = {{ per_hour = 1, reserve = 0 }}\n{text}")).unwrap();
    machine.log_in("sim-token-main");
    machine.run(&["status"]);

    let ended = machine.run(&["doctor"]);

    assert_eq!((ended.code, provider.simulator.ledger().calls()), (Some(1), 1), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("warn  refresh   anthropic/main: hourly call budget used up (1 call)"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.ends_with("\n1 warning.\n"), "{}", ended.stdout);
}

#[test]
fn an_invalid_old_accounts_file_is_a_problem() {
    let (_provider, machine) = healthy();
    let path = machine.write(".local/state/quota/accounts.json", "{");

    let ended = machine.run(&["doctor", "--json"]);

    let (message, _) = &findings(&ended, "config")[0];
    assert!(message.contains("accounts.json: invalid at line 1"), "{message}");
    std::fs::rename(&path, machine.path("away.json")).unwrap();
    assert_eq!(machine.run(&["doctor"]).code, Some(0));
}

#[test]
fn no_output_contains_a_secret() {
    let (_provider, machine) = healthy();
    let config = machine.write(
        "many.toml",
        "[[accounts]]\nid = \"anthropic/main\"\n[[accounts]]\nid = \"anthropic/env\"\ntoken_env = \"TOKEN\"\n\
         [[accounts]]\nid = \"anthropic/file\"\ntoken_file = \"token\"\n[providers.anthropic]\nbase_url = \"http://127.0.0.1:1\"\n",
    );
    mode(&machine.write("token", SECRET), 0o644);
    let machine =
        machine.set("TOKEN", SECRET).set("QUOTA_STORE", &format!("redis://me:{SECRET}@127.0.0.1:1"));
    let damaged = format!("{{ \"claudeAiOauth\": {{ \"accessToken\": \"{SECRET}");

    for login in [None, Some(damaged)] {
        if let Some(login) = login {
            machine.write(".claude/.credentials.json", login);
        }
        for more in [&[][..], &["--json"][..]] {
            let ended = machine.run(&[&["doctor", "--config", argument(&config)], more].concat());

            assert_eq!(ended.code, Some(1), "{}", ended.stdout);
            assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("must-not-be-shown"), "{ended:?}");
        }
    }
}

/// A machine with the login of `home` for the account `main`, and with the account `again` in `dir`.
fn with_second(dir: &str) -> Env {
    let accounts = [("main", String::new()), ("again", format!("claude_config_dir = \"{dir}\""))];
    let accounts = accounts.each_ref().map(|(name, login)| (*name, login.as_str()));
    let env = Env::new(Machine::new(), [10.0, 10.0], &accounts);
    env.log_in(".claude", "home");
    mode(&env.machine.path(".claude/.credentials.json"), 0o600);
    env
}

#[test]
fn one_login_under_two_names_is_named_however_it_got_there() {
    let link =
        |env: &Env| std::os::unix::fs::symlink(env.machine.path(".claude"), env.machine.path("second"));
    let copy = |env: &Env, files: &[(&str, &str)]| {
        for (from, to) in files {
            let contents = std::fs::read(env.machine.path(from)).unwrap();
            mode(&env.machine.write(to, contents), 0o600);
        }
    };
    let login_file = (".claude/.credentials.json", "second/.credentials.json");
    let state_file = (".claude.json", "second/.claude.json");
    type Arrange<'a> = &'a dyn Fn(&Env);
    let cases: [(&str, &str, Arrange<'_>, &str); 5] = [
        ("the default directory", "~/.claude", &|_| (), "same login as anthropic/main: "),
        ("a trailing slash", "~/.claude/", &|_| (), "same login as anthropic/main: "),
        ("a link", "~/second", &|env| link(env).unwrap(), "same login as anthropic/main: "),
        (
            "copied files",
            "~/second",
            &|env| copy(env, &[login_file, state_file]),
            "same login as anthropic/main: ",
        ),
        ("a copied login", "~/second", &|env| copy(env, &[login_file]), "same token as anthropic/main, "),
    ];
    for (case, dir, arrange, expected) in cases {
        let env = with_second(dir);
        arrange(&env);

        let ended = env.run(&["doctor", "--json"]);

        let found = findings(&ended, "login");
        assert_eq!((ended.code, found.len()), (Some(1), 1), "{case}: {}", ended.stdout);
        assert!(found[0].0.starts_with(expected) && found[0].0.contains("fallback"), "{case}: {found:?}");
        assert!(found[0].1.contains("quota accounts remove anthropic/again"), "{case}: {found:?}");
        assert_eq!(env.calls(), 0, "{case}");
    }
}

#[test]
fn two_logins_under_two_names_are_not_a_problem() {
    let env = with_second("~/second");
    env.log_in("second", "work");
    mode(&env.machine.path("second/.credentials.json"), 0o600);

    let ended = env.run(&["doctor", "--json"]);

    assert_eq!(findings(&ended, "login"), [], "{}", ended.stdout);
}

#[test]
fn a_disabled_second_name_is_not_a_problem() {
    let env = with_second("~/.claude");
    let disabled = env.run(&["accounts", "disable", "again"]);

    let ended = env.run(&["doctor", "--json"]);

    assert_eq!((disabled.code, findings(&ended, "login")), (Some(0), vec![]), "{}", ended.stdout);
}
