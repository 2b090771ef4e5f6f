//! Several live logins on one machine: terminals with their own `CLAUDE_CONFIG_DIR`, one login under two names, and changes of the login.

use std::io::Write as _;
use std::process::Stdio;

use quota_sim::{Account, Script, Window};
use serde_json::json;

use super::support::{Ended, Machine, Provider, argument};

const POLICY: &str = "[policy]\ngap = \"1ms\"\nquiet = { span = \"1ms\", scope = \"account\" }\n";

/// A machine, and a provider with the logins `home` and `work`, of which this much is used.
pub(super) struct Env {
    pub(super) provider: Provider,
    pub(super) machine: Machine,
    config: String,
}

impl Env {
    /// The configuration has the accounts with these names. The text beside a name states its login.
    pub(super) fn new(machine: Machine, used: [f64; 2], accounts: &[(&str, &str)]) -> Self {
        let logins = [("home", used[0]), ("work", used[1])];
        let logins = logins.map(|(name, used)| Account::new(name).windows([Window::five_hour().used(used)]));
        let provider = Provider::play(Script::new(logins));
        let account = |(name, login): &(&str, &str)| {
            format!("[[accounts]]\nid = \"anthropic/{name}\"\nbase_url = \"{}\"\n{login}\n", provider.url())
        };
        let accounts: String = accounts.iter().map(account).collect();
        let config = machine.write("config.toml", format!("{POLICY}{accounts}"));
        Self { provider, config: argument(&config).to_owned(), machine }
    }

    /// Writes a login of Claude Code in a directory. The state file of the default directory is beside it.
    pub(super) fn log_in(&self, dir: &str, name: &str) {
        let login = json!({ "claudeAiOauth": {
            "accessToken": self.provider.token_of(name), "refreshToken": "sk-ant-ort01-made-up",
            "expiresAt": 4_102_444_800_000_u64,
        } });
        let account = json!({ "accountUuid": format!("account-{name}"), "organizationUuid": "org" });
        let state = if dir == ".claude" { ".claude.json".to_owned() } else { format!("{dir}/.claude.json") };
        self.machine.write(&format!("{dir}/.credentials.json"), login.to_string());
        self.machine.write(&state, json!({ "oauthAccount": account }).to_string());
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ended {
        self.machine.run(&[arguments, &["--config", &self.config]].concat())
    }

    /// Runs the program in a terminal with this `CLAUDE_CONFIG_DIR`, and passes the input to it.
    fn run_in(&self, dir: &str, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.machine.command(&[arguments, &["--config", &self.config]].concat());
        command.env("CLAUDE_CONFIG_DIR", self.machine.path(dir));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The write fails if the program ended without reading its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ended::of(child.wait_with_output().unwrap())
    }

    pub(super) fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }

    /// The use of the first account's window, as `quota status` shows it.
    fn used(&self, arguments: &[&str]) -> Option<f64> {
        used(&self.run(&[&["status", "--json"], arguments].concat()))
    }
}

fn used(ended: &Ended) -> Option<f64> {
    ended.json()["accounts"][0]["windows"][0]["used_percent"].as_f64()
}

#[test]
fn two_terminals_with_one_account_name_never_show_each_others_numbers() {
    let env = Env::new(Machine::new(), [95.0, 10.0], &[("main", "")]);
    env.log_in("at-home", "home");
    env.log_in("at-work", "work");
    let line =
        |dir, input: &str| env.run_in(dir, &["statusline", "--format", "{five_hour.used}"], input).stdout;
    let guard = |dir| env.run_in(dir, &["guard", "--min-remaining", "20"], "").code;

    let refresh = |dir| used(&env.run_in(dir, &["status", "--refresh", "--json"], ""));

    assert_eq!(refresh("at-home"), Some(95.0));
    let session = r#"{"rate_limits":{"five_hour":{"used_percentage":5}}}"#;
    assert_eq!(line("at-work", session), "5%\n");
    assert_eq!(refresh("at-work"), Some(10.0));

    assert_eq!((guard("at-home"), guard("at-work")), (Some(1), Some(0)));
    assert_eq!((line("at-home", ""), line("at-work", "")), ("95%\n".into(), "10%\n".into()));
    assert_eq!(env.calls(), 2, "one for each login");
}

#[test]
fn pick_does_not_go_from_an_exhausted_login_to_itself() {
    let accounts = [
        ("main", ""),
        ("again", "claude_config_dir = \"~/.claude\""),
        ("work", "claude_config_dir = \"~/work\""),
    ];
    let env = Env::new(Machine::new(), [100.0, 10.0], &accounts);
    env.log_in(".claude", "home");
    env.log_in("work", "work");

    let picked = env.run(&["pick"]);

    assert_eq!((picked.stdout.as_str(), picked.code), ("anthropic/work\n", Some(0)), "{}", picked.stderr);
    let again = env.run(&["explain", "--json"]).json()["accounts"][1].take();
    assert_eq!((&again["reason"], &again["same_login_as"]), (&json!("same_login"), &json!("anthropic/main")));
    assert!(env.run(&["explain"]).stdout.contains("same login as anthropic/main"));
    assert_eq!(env.calls(), 2, "one for each login");
}

#[test]
fn accounts_of_one_login_with_different_requests_share_no_record() {
    let accounts = [
        ("main", ""),
        ("team-a", "claude_config_dir = \"~/.claude/\"\nheaders = { x-team = \"a\" }"),
        ("team-b", "claude_config_dir = \"~/.claude/\"\nquery = { team = \"b\" }"),
        ("team-a-again", "claude_config_dir = \"~/.claude/\"\nheaders = { X-Team = \"a\" }"),
    ];
    let env = Env::new(Machine::new(), [40.0, 10.0], &accounts);
    env.log_in(".claude", "home");

    let shown = env.run(&["status"]);

    assert_eq!((shown.code, env.calls()), (Some(0), 3), "{}", shown.stderr);
    let again = env.run(&["explain", "--json"]).json();
    let same = [1, 2, 3].map(|at| again["accounts"][at]["same_login_as"].clone());
    assert_eq!(same, [json!(null), json!(null), json!("anthropic/team-a")]);
}

#[test]
fn pick_has_no_fallback_if_both_accounts_hold_one_login() {
    let accounts = [("main", ""), ("again", "claude_config_dir = \"~/.claude/\"")];
    let env = Env::new(Machine::new(), [100.0, 10.0], &accounts);
    env.log_in(".claude", "home");

    let picked = env.run(&["pick"]);

    assert_eq!((picked.stdout.as_str(), picked.code), ("", Some(1)));
    assert!(picked.stderr.contains("next available: anthropic/main"), "{}", picked.stderr);
    assert_eq!(env.calls(), 1);
}

#[test]
fn a_change_of_the_login_shows_the_other_logins_numbers_at_once() {
    let env = Env::new(Machine::new(), [95.0, 10.0], &[("main", "")]);
    let guard = || env.run(&["guard", "--min-remaining", "20"]).code;
    env.log_in(".claude", "home");
    assert_eq!(guard(), Some(1));

    env.log_in(".claude", "work");
    assert_eq!(env.used(&["--offline"]), None);
    assert_eq!(guard(), Some(0));

    env.log_in(".claude", "home");
    assert_eq!(env.used(&["--offline"]), Some(95.0));
    assert_eq!((guard(), env.calls()), (Some(1), 2));
}

/// The first command of each login during the outage has no memory of it and makes one call. After the outage both records are in the
/// store.
#[cfg(target_os = "linux")]
#[test]
fn logins_that_change_during_an_outage_do_not_mix() {
    let mut server = redis_harness::Server::start();
    let env = Env::new(Machine::new().set("QUOTA_STORE", &server.url()), [95.0, 10.0], &[("main", "")]);
    env.log_in(".claude", "home");
    assert_eq!(env.used(&[]), Some(95.0));
    server.kill();

    env.log_in(".claude", "work");
    assert_eq!((env.used(&[]), env.used(&[])), (Some(10.0), Some(10.0)));
    env.log_in(".claude", "home");
    assert_eq!((env.used(&[]), env.used(&[])), (Some(95.0), Some(95.0)));
    env.log_in(".claude", "work");
    assert_eq!((env.used(&[]), env.calls()), (Some(10.0), 3));

    server.restart();
    env.machine.change_outage(|outage| outage["retry_at_ms"] = 0.into());
    assert_eq!(env.used(&[]), Some(10.0));
    assert_eq!(env.machine.outage_files(), [] as [std::path::PathBuf; 0], "it was merged");
    env.log_in(".claude", "home");
    assert_eq!((env.used(&[]), env.calls()), (Some(95.0), 3));
}

#[test]
fn no_command_shows_the_former_login_as_fresh_after_a_switch() {
    let env = Env::new(Machine::new(), [95.0, 10.0], &[("main", "")]);
    let line = || env.run(&["statusline", "--format", "{five_hour.used}"]).stdout;
    let guard = || env.run(&["guard", "--min-remaining", "20"]).code;
    env.log_in(".claude", "work");
    assert_eq!((env.used(&[]), line(), guard()), (Some(10.0), "10%\n".to_owned(), Some(0)));

    env.log_in(".claude", "home");

    assert!(!line().contains('%'), "the line starts a refresher, and does not wait for it");
    assert_eq!((guard(), env.used(&[]), line()), (Some(1), Some(95.0), "95%\n".to_owned()));
    assert_eq!(env.calls(), 2, "one for each login");
}

#[test]
fn a_full_account_fails_the_guard_right_after_a_switch_to_it() {
    let env = Env::new(Machine::new(), [100.0, 10.0], &[("main", "")]);
    let guard = || env.run(&["guard", "--min-remaining", "20"]).code;
    env.log_in(".claude", "work");
    assert_eq!(guard(), Some(0));

    env.log_in(".claude", "home");

    assert_eq!((guard(), env.calls()), (Some(1), 2));
}

/// The line of a session that reports usage of its own, right after the switch.
#[test]
fn a_session_after_a_switch_is_a_reading_of_the_new_login() {
    let env = Env::new(Machine::new(), [95.0, 10.0], &[("main", "")]);
    env.log_in(".claude", "home");
    assert_eq!(env.used(&[]), Some(95.0));
    let session = r#"{"rate_limits":{"five_hour":{"used_percentage":5}}}"#;

    env.log_in(".claude", "work");
    let line = env.run_in(".claude", &["statusline", "--format", "{five_hour.used}"], session).stdout;

    assert_eq!(line, "5%\n");
    env.log_in(".claude", "home");
    assert_eq!(env.used(&["--offline"]), Some(95.0));
}

#[cfg(target_os = "linux")]
#[test]
fn two_hosts_with_two_logins_under_one_name_never_mix() {
    let server = redis_harness::Server::start();
    let host = || Env::new(Machine::new().set("QUOTA_STORE", &server.url()), [95.0, 10.0], &[("main", "")]);
    let (home, work) = (host(), host());
    home.log_in(".claude", "home");
    work.log_in(".claude", "work");
    let line = |host: &Env| host.run(&["statusline", "--format", "{five_hour.used}"]).stdout;
    let guard = |host: &Env| host.run(&["guard", "--min-remaining", "20"]).code;

    assert_eq!((home.used(&[]), work.used(&["--offline"])), (Some(95.0), None));
    assert_eq!((work.used(&[]), home.used(&["--offline"])), (Some(10.0), Some(95.0)));

    assert_eq!((line(&home), line(&work)), ("95%\n".to_owned(), "10%\n".to_owned()));
    assert_eq!((guard(&home), guard(&work)), (Some(1), Some(0)));
    assert_eq!((home.calls(), work.calls()), (1, 1));
}

/// The test changes the memory, because no other observation shows whether a process has parsed the state file.
#[test]
fn a_process_parses_the_state_file_only_after_a_change() {
    let env = Env::new(Machine::new(), [95.0, 10.0], &[("main", "")]);
    env.log_in(".claude", "home");
    let state = json!({
        "oauthAccount": { "accountUuid": "account-home", "organizationUuid": "org" },
        "projects": "x".repeat(256 * 1024),
    });
    let state_file = env.machine.write(".claude.json", state.to_string());
    assert_eq!(env.used(&[]), Some(95.0));
    let memory = env.machine.path(".local/state/quota/login-ids.json");
    // The login id is remembered once the last change of the state file is two seconds old.
    while !memory.exists() {
        env.run(&["status", "--offline"]);
    }
    let mut known: serde_json::Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
    known["files"][0]["login_id"] = "the login of another account".into();
    std::fs::write(&memory, known.to_string()).unwrap();

    assert_eq!(env.used(&["--offline"]), None, "the state file was parsed although it is unchanged");
    std::fs::write(&state_file, state.to_string()).unwrap();
    assert_eq!(env.used(&["--offline"]), Some(95.0), "the state file was not parsed although it has changed");
    assert_eq!(env.calls(), 1);
}

/// A copy without the state file states no login, so quota has a record for each name. `quota doctor` names the copy.
#[test]
fn pick_finds_a_copied_token_exhausted_by_a_call_of_its_own() {
    let accounts = [("main", ""), ("again", "claude_config_dir = \"~/copy\"")];
    let env = Env::new(Machine::new(), [100.0, 10.0], &accounts);
    env.log_in(".claude", "home");
    let login = std::fs::read(env.machine.path(".claude/.credentials.json")).unwrap();
    env.machine.write("copy/.credentials.json", login);

    let (picked, again) = (env.run(&["pick"]), env.run(&["pick"]));

    for picked in [&picked, &again] {
        assert_eq!((picked.stdout.as_str(), picked.code), ("", Some(1)), "{}", picked.stderr);
    }
    assert_eq!(env.calls(), 2, "one for each record");
}
