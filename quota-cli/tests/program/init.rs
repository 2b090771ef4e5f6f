//! `quota init` writes a valid configuration of the detected logins, and overwrites a file only on request.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::pty::Pty;
use super::support::{Machine, argument};

const SECRET: &str = "sk-ant-oat01-must-not-be-shown";
const CONFIG: &str = ".config/quota/config.toml";

fn text(machine: &Machine) -> String {
    std::fs::read_to_string(machine.path(CONFIG)).unwrap()
}

/// The other files in the folder of the configuration.
fn other_files(machine: &Machine) -> Vec<PathBuf> {
    let folder = machine.path(".config/quota").read_dir().unwrap();
    folder.map(|entry| entry.unwrap().path()).filter(|path| *path != machine.path(CONFIG)).collect()
}

#[test]
fn init_writes_the_detected_logins() {
    let machine = Machine::new().set("ANTHROPIC_AUTH_TOKEN", SECRET);
    machine.log_in(SECRET);

    let ended = machine.run(&["init"]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let shown = machine.run(&["status", "--offline", "--json"]).json();
    let accounts: Vec<_> =
        shown["accounts"].as_array().unwrap().iter().map(|account| &account["account"]).collect();
    assert_eq!(accounts, ["anthropic/main", "anthropic/token"]);
}

#[test]
fn without_a_login_the_written_file_is_a_valid_configuration() {
    let machine = Machine::new();

    machine.run(&["init"]);

    assert_eq!(machine.run(&["budget"]).code, Some(0), "{}", text(&machine));
}

#[test]
fn the_file_is_private_and_no_other_file_is_left() {
    let machine = Machine::new();

    machine.run(&["init"]);

    assert_eq!(machine.path(CONFIG).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(other_files(&machine).is_empty(), "{:?}", other_files(&machine));
}

#[test]
fn no_token_is_written_or_shown() {
    let machine = Machine::new().set("ANTHROPIC_AUTH_TOKEN", SECRET).set("CLAUDE_CODE_OAUTH_TOKEN", SECRET);

    let printed = machine.run(&["init", "--print"]);
    let written = machine.run(&["init"]);

    let all = format!("{printed:?}{written:?}{}", text(&machine));
    assert!(!all.contains("must-not-be-shown"), "{all}");
}

#[test]
fn an_existing_file_is_not_overwritten_without_force() {
    let machine = Machine::new();
    machine.write(CONFIG, "# mine\n");

    let ended = machine.run(&["init"]);

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(64), 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--force"), "{}", ended.stderr);
    assert_eq!(text(&machine), "# mine\n");
}

#[test]
fn at_a_terminal_only_yes_overwrites_the_file() {
    for (answer, code, is_written) in [("\n", 1, false), ("n\n", 1, false), ("y\n", 0, true)] {
        let machine = Machine::new();
        machine.write(CONFIG, "# mine\n");
        let mut pty = Pty::new(80, 24);
        let mut init = pty.start(machine.command(&["init"]));

        pty.until("[y/N] ");
        pty.press(answer);

        assert_eq!(init.wait().unwrap().code(), Some(code), "{answer:?}");
        assert_eq!(text(&machine).contains("[[accounts]]"), is_written, "{answer:?}");
        assert_eq!(other_files(&machine).len(), usize::from(is_written), "{answer:?}");
    }
}

#[test]
fn an_interrupt_ends_the_question() {
    let machine = Machine::new();
    machine.write(CONFIG, "# mine\n");
    let mut pty = Pty::new(80, 24);
    let mut init = pty.start(machine.command(&["init"]));
    pty.until("[y/N] ");

    kill_process(Pid::from_child(&init), Signal::INT).unwrap();

    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&init.wait().unwrap()), Some(2));
    assert_eq!(text(&machine), "# mine\n");
}

#[test]
fn force_overwrites_the_file_and_keeps_a_backup() {
    let machine = Machine::new();
    machine.write(CONFIG, "# mine\n");

    let ended = machine.run(&["init", "--force"]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(text(&machine).contains("[[accounts]]"));
    let [backup] = &other_files(&machine)[..] else { panic!("{:?}", other_files(&machine)) };
    assert_eq!(std::fs::read_to_string(backup).unwrap(), "# mine\n");
}

#[test]
fn force_overwrites_only_a_regular_file() {
    let machine = Machine::new();
    let (pipe, folder, device) = (machine.path("pipe"), machine.path("folder"), machine.path("device"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();

    let not_regular = "not a regular file";
    for (path, why) in [(&pipe, not_regular), (&folder, "it is a directory"), (&device, not_regular)] {
        let path = argument(path);
        let kind = std::fs::metadata(path).unwrap().file_type();

        let ended = machine.run(&["init", "--force", "--config", path]);

        let why = format!("quota: could not write {path}: {why}\n");
        assert_eq!((ended.code, &*ended.stderr), (Some(74), &*why));
        assert_eq!(std::fs::metadata(path).unwrap().file_type(), kind, "{path}");
    }
    assert_eq!(std::fs::read_dir(machine.path("")).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn print_writes_no_file() {
    let machine = Machine::new();

    let ended = machine.run(&["init", "--print"]);

    assert!(ended.stdout.contains("[[accounts]]"), "{ended:?}");
    assert!(!machine.path(CONFIG).exists());
}

#[test]
fn json_has_the_path_and_the_backup() {
    let machine = Machine::new();
    machine.write(CONFIG, "# mine\n");

    let report = machine.run(&["init", "--force", "--json"]).json();

    assert_eq!(
        (&report["version"], &report["path"]),
        (&2.into(), &machine.path(CONFIG).to_str().unwrap().into())
    );
    let backup = report["backup"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(backup).unwrap(), "# mine\n");
}

/// A login of Claude Code in this folder, with its own token.
fn claude(token: &str) -> String {
    serde_json::json!({ "claudeAiOauth": { "accessToken": token, "expiresAt": 4_102_444_800_000_u64 } })
        .to_string()
}

/// A login of Codex of this account.
fn codex(account: &str) -> String {
    serde_json::json!({ "tokens": { "access_token": format!("token-{account}"), "account_id": account } })
        .to_string()
}

/// Two logins of Claude Code and two of Codex.
fn several_logins() -> Machine {
    let machine = Machine::new();
    machine.write(".claude/.credentials.json", claude("made-up-1"));
    machine.write(".claude-work/.credentials.json", claude("made-up-2"));
    machine.write(".claude-empty/settings.json", "{}");
    machine.write(".codex/auth.json", codex("one"));
    machine.write(".codex-work/auth.json", codex("two"));
    machine
}

#[test]
fn every_login_beside_the_usual_ones_is_added_and_named() {
    let machine = several_logins();

    let ended = machine.run(&["init"]);

    let shown = machine.run(&["accounts", "list", "--json"]).json();
    let accounts: Vec<_> = shown["accounts"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = accounts.iter().map(|account| account["account"].as_str().unwrap()).collect();
    assert_eq!(ids, ["anthropic/main", "anthropic/work", "openai/main", "openai/work"]);
    assert_eq!(accounts[1]["login"]["name"], "~/.claude-work");
    for id in ids {
        assert!(ended.stdout.contains(&format!("  {id}: login of ")), "{}", ended.stdout);
    }
}

#[test]
fn init_prints_the_commands_for_a_second_login_of_each_provider() {
    let machine = several_logins();

    let ended = machine.run(&["init"]);

    for line in [
        "A second login of Codex:",
        "  mkdir -p ~/.codex-second && CODEX_HOME=~/.codex-second codex login",
        "  quota accounts add codex/second --login-dir ~/.codex-second",
        "  quota accounts add second --claude-config-dir ~/.claude-second",
    ] {
        assert!(ended.stdout.lines().any(|one| one == line), "{line}: {}", ended.stdout);
    }
}

#[test]
fn a_copy_of_a_login_is_named_but_not_added() {
    let machine = Machine::new();
    machine.write(".codex/auth.json", codex("one"));
    machine.write(".codex-copy/auth.json", codex("one"));

    let ended = machine.run(&["init"]);
    let imported = machine.run(&["accounts", "import", "--dry-run"]);

    assert_eq!(text(&machine).matches("[[accounts]]\nid = ").count(), 1, "{}", text(&machine));
    assert!(ended.stdout.contains("has the same login as openai/main"), "{}", ended.stdout);
    assert!(
        imported.stdout.contains("skipped openai/copy: openai/main already uses its login"),
        "{imported:?}"
    );
}

#[test]
fn a_folder_named_by_a_variable_is_written_for_other_terminals() {
    let machine = several_logins();
    let dir = machine.path(".codex-work");
    let machine = machine.set("CODEX_HOME", argument(&dir));

    machine.run(&["init"]);

    let text = text(&machine);
    assert!(text.contains("id = \"openai/main\"\nlogin_dir = \"~/.codex-work\"\n"), "{text}");
    assert!(text.contains("id = \"openai/default\"\nlogin_dir = \"~/.codex\"\n"), "{text}");
}

#[test]
fn json_has_the_accounts() {
    let report = several_logins().run(&["init", "--json"]).json();

    assert_eq!(report["accounts"].as_array().unwrap().len(), 4, "{report}");
}
