//! `quota run`: the environment of the command, its exit codes, and when it does not start.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use quota_sim::{Account, Answer, Phase, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

fn setup(accounts: &[(&str, f64)]) -> (Provider, Machine, String) {
    let accounts = accounts.iter().map(|(name, percent)| {
        let window = Window::five_hour().used(*percent).resets_in(Duration::from_secs(2 * 3600));
        Account::new(*name).windows([window])
    });
    let provider = Provider::play(Script::new(accounts));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    (provider, machine, config)
}

fn run(machine: &Machine, config: &str, command: &[&str]) -> Ended {
    machine.run(&[&["run", "--config", config, "--"], command].concat())
}

#[test]
fn the_command_runs_with_the_available_account() {
    let (_provider, machine, config) = setup(&[("main", 100.0), ("work", 1.0)]);
    let machine = machine.set("ANTHROPIC_API_KEY", "sk-ant-api03-made-up");
    let script = "echo \"$QUOTA_ACCOUNT $CLAUDE_CODE_OAUTH_TOKEN ${ANTHROPIC_API_KEY-none} ${QUOTA_SIM_MAIN-none} $1\"";

    let ended = run(&machine, &config, &["/bin/sh", "-c", script, "sh", "--an argument"]);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout, "anthropic/work sim-token-work none none --an argument\n");
}

#[test]
fn the_exit_code_and_signals_are_those_of_the_command() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);

    assert_eq!(run(&machine, &config, &["/bin/sh", "-c", "exit 7"]).code, Some(7));
    let arguments = ["run", "--config", &config, "--", "/bin/sh", "-c", "kill -TERM $$"];
    let status = machine.command(&arguments).status().unwrap();
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn the_command_replaces_the_process() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);
    let arguments = ["run", "--config", &config, "--", "/bin/sh", "-c", "echo $$"];

    let child = machine.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let number = child.id();
    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.stdout.trim_end(), number.to_string());
}

#[test]
fn a_missing_command_is_127_and_one_not_executable_126() {
    let (_provider, machine, config) = setup(&[("main", 1.0)]);
    let text = machine.write("text", "hello");

    let missing = run(&machine, &config, &["no-such-command"]);
    let text = run(&machine, &config, &[argument(&text)]);

    assert_eq!((missing.code, missing.stderr.lines().count()), (Some(127), 1), "{}", missing.stderr);
    assert_eq!((text.code, text.stderr.lines().count()), (Some(126), 1), "{}", text.stderr);
}

#[test]
fn without_an_available_account_the_command_does_not_run() {
    let (_provider, machine, config) = setup(&[("main", 100.0), ("work", 100.0)]);
    let witness = machine.path("witness");

    let ended = run(&machine, &config, &["/usr/bin/touch", argument(&witness)]);

    assert_eq!((ended.code, &*ended.stdout, ended.stderr.lines().count()), (Some(1), "", 1));
    assert!(
        ended.stderr.contains("no account available") && ended.stderr.contains("in 2 h"),
        "{}",
        ended.stderr
    );
    assert!(!witness.exists());
}

#[test]
fn unknown_usage_prevents_the_run_unless_allowed() {
    let silent = Account::new("main").answers([Phase::new(Answer::Forbidden)]);
    let provider = Provider::play(Script::new([silent]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config);

    let denied = run(&machine, config, &["/bin/echo", "ran"]);
    let allowed = machine.run(&["run", "--unknown", "allow", "--config", config, "--", "/bin/echo", "ran"]);

    assert_eq!((denied.code, &*denied.stdout), (Some(69), ""));
    assert_eq!((allowed.code, &*allowed.stdout), (Some(0), "ran\n"));
}

#[test]
fn a_missing_command_argument_is_a_usage_error() {
    let (provider, machine, config) = setup(&[("main", 1.0)]);

    for wrong in [&["run", "--config", &config][..], &["run", "--config", &config, "--"], &["run", "ls"]] {
        assert_eq!(machine.run(wrong).code, Some(64), "{wrong:?}");
    }
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[test]
fn the_command_gets_the_claude_config_dir_of_its_account() {
    let provider = Provider::play(Script::new([Account::new("main").with_token("sim-token-claude")]));
    let machine = Machine::new().set("CLAUDE_CODE_OAUTH_TOKEN", "sim-token-other");
    machine.log_in("sim-token-claude");
    std::fs::rename(machine.path(".claude"), machine.path(".claude-work")).unwrap();
    let url = provider.url();
    let added = ["accounts", "add", "work", "--claude-config-dir", "~/.claude-work", "--base-url", &url];
    assert_eq!(machine.run(&added).code, Some(0));

    let script = "echo \"$QUOTA_ACCOUNT $CLAUDE_CONFIG_DIR ${CLAUDE_CODE_OAUTH_TOKEN-none}\"";
    let ended = machine.run(&["run", "--", "/bin/sh", "-c", script]);

    let directory = machine.path(".claude-work");
    assert_eq!(ended.stdout, format!("anthropic/work {} none\n", directory.display()), "{}", ended.stderr);
}

#[test]
fn the_token_is_only_in_the_environment_of_the_command() {
    const TOKEN: &str = "sim-token-whisper";
    for answer in [Answer::Ok, Answer::Unauthorized, Answer::ThrottleZero, Answer::Html] {
        let account = Account::new("main").with_token(TOKEN).answers([Phase::new(answer)]);
        let provider = Provider::play(Script::new([account]));
        let machine = Machine::new().set("TOKEN", TOKEN);
        machine.log_in(TOKEN);
        let file = machine.write("token", TOKEN);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let command = machine.write("print", format!("#!/bin/sh\necho {TOKEN}\n"));
        std::fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let sources: [&[&str]; 4] = [
            &[],
            &["--token-env", "TOKEN"],
            &["--token-file", argument(&file)],
            &["--token-command", argument(&command)],
        ];
        for source in sources {
            let url = provider.url();
            let add = [&["accounts", "add", "main", "--base-url", &url], source].concat();
            let cmdline: &[&str] = &["run", "--unknown", "allow", "--", "/bin/cat", "/proc/self/cmdline"];
            let commands: [&[&str]; 7] = [
                &add,
                &["accounts", "list"],
                &["accounts", "list", "--json"],
                &["pick", "--json", "--session", "s"],
                &["explain"],
                &["explain", "--json"],
                cmdline,
            ];
            for arguments in commands {
                let ended = machine.run(arguments);
                let output = format!("{}{}", ended.stdout, ended.stderr);
                assert!(!output.contains("whisper") && !output.contains("ort01"), "{arguments:?}: {output}");
            }
            let state = machine.path(".local/state/quota");
            for entry in std::fs::read_dir(&state).unwrap() {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let is_there = bytes.windows(7).any(|seven| seven == b"whisper");
                assert!(!is_there, "{} {source:?}", path.display());
            }
            std::fs::remove_dir_all(state).unwrap();
        }
    }
}

#[test]
fn the_command_inherits_no_other_login_host_or_store() {
    let (provider, machine, config) = setup(&[("main", 1.0)]);
    let machine = ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"]
        .into_iter()
        .fold(machine, |machine, name| machine.set(name, "made-up"))
        .set("ANTHROPIC_BASE_URL", "https://elsewhere.example");
    let store = format!("sqlite://{}", machine.path("store/quota.db").display());
    let machine = machine.set("QUOTA_STORE", &store);

    let ended = run(&machine, &config, &["/usr/bin/env"]);

    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    for removed in ["made-up", "elsewhere.example", "QUOTA_STORE"] {
        assert!(!ended.stdout.contains(removed), "{}", ended.stdout);
    }
    let url = provider.url();
    let line = format!("ANTHROPIC_BASE_URL={}\n", url.trim_end_matches('/'));
    assert!(ended.stdout.contains(&line), "{}", ended.stdout);
}
