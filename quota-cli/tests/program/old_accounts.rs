//! The `accounts.json` of earlier versions: commands that read apply it, and the first change moves it into the configuration.

use serde_json::{Value, json};

use super::support::{Machine, argument};

const CONFIG: &str = ".config/quota/config.toml";
const OLD: &str = ".local/state/quota/accounts.json";
const MOVED: &str = ".local/state/quota/accounts.json.converted";

const MINE: &str = "# Mine.\n[[accounts]]\nid = \"anthropic/a\"\ntoken_env = \"A\" # a variable\n\n[[accounts]]\n\
                    id = \"anthropic/b\"\ntoken_env = \"B\"\nkillswitch = 3\n";

/// A file of an earlier version: an order, a disabled account, limits and added accounts.
fn old_file() -> String {
    let accounts = json!([
        { "id": "anthropic/vault", "login": { "token_command": ["pass", "show", "x"] }, "base_url": "https://proxy.example.com/" },
        { "id": "anthropic/b", "disabled": true, "limits": { "killswitch": { "every_bp": 1250, "windows_bp": { "five_hour": 500 } } } },
        { "id": "anthropic/a" },
        { "id": "anthropic/dir", "login": { "claude_config_dir": "~/.claude-work" }, "limits": { "min_remaining": { "every_bp": 2000 } } },
    ]);
    json!({ "version": 2, "accounts": accounts }).to_string()
}

fn machine(config: Option<&str>, old: &str) -> Machine {
    let machine = Machine::new();
    if let Some(config) = config {
        machine.write(CONFIG, config);
    }
    machine.write(OLD, old);
    machine
}

fn read(machine: &Machine, name: &str) -> Option<String> {
    std::fs::read_to_string(machine.path(name)).ok()
}

/// The listed accounts, without where each is defined.
fn listed(machine: &Machine) -> Vec<Value> {
    let mut accounts =
        machine.run(&["accounts", "list", "--json"]).json()["accounts"].as_array().unwrap().clone();
    for account in &mut accounts {
        for key in ["origin", "line"] {
            account.as_object_mut().unwrap().remove(key);
        }
    }
    accounts
}

#[test]
fn reading_commands_apply_the_old_file_and_write_nothing() {
    let machine = machine(Some(MINE), &old_file());

    let names: Vec<_> = listed(&machine).iter().map(|one| one["account"].clone()).collect();
    for arguments in [&["statusline"][..], &["status", "--offline"], &["explain"], &["doctor"]] {
        machine.run(arguments);
    }

    assert_eq!(names, ["anthropic/vault", "anthropic/b", "anthropic/a", "anthropic/dir"]);
    assert_eq!((read(&machine, CONFIG), read(&machine, OLD)), (Some(MINE.to_owned()), Some(old_file())));
    assert_eq!(read(&machine, MOVED), None);
}

#[test]
fn the_first_change_moves_every_setting_into_the_configuration() {
    let machine = machine(Some(MINE), &old_file());
    let before = listed(&machine);

    let changed = machine.run(&["accounts", "set", "a", "--min-remaining", "none"]);

    assert_eq!(changed.code, Some(0), "{}", changed.stderr);
    assert!(
        changed.stderr.contains("accounts.json.converted") && changed.stderr.lines().count() == 1,
        "{}",
        changed.stderr
    );
    assert_eq!(listed(&machine), before);
    assert_eq!((read(&machine, OLD), read(&machine, MOVED)), (None, Some(old_file())));
    insta::assert_snapshot!(read(&machine, CONFIG).unwrap());
}

#[test]
fn the_old_file_is_moved_once() {
    let machine = machine(Some(MINE), &old_file());

    let first = machine.run(&["accounts", "enable", "b"]);
    let again = machine.run(&["accounts", "disable", "a"]);

    assert!(
        first.stderr.contains("no longer apply to other files that are used with --config"),
        "{}",
        first.stderr
    );
    assert_eq!(&*again.stderr, "");
    let disabled: Vec<_> = listed(&machine).iter().map(|one| one["disabled"] == true).collect();
    assert_eq!(disabled, [false, false, true, false]);
}

#[test]
fn an_interrupted_move_is_repeated() {
    let machine = machine(Some(MINE), &old_file());
    machine.run(&["accounts", "set", "a", "--min-remaining", "none"]);
    let moved = read(&machine, CONFIG);
    std::fs::rename(machine.path(MOVED), machine.path(OLD)).unwrap();

    machine.run(&["accounts", "set", "a", "--min-remaining", "none"]);

    assert_eq!((read(&machine, CONFIG), read(&machine, MOVED)), (moved, Some(old_file())));
}

#[test]
fn an_accounts_file_created_after_the_move_is_ignored() {
    let machine = machine(Some(MINE), &old_file());
    machine.run(&["accounts", "enable", "b"]);
    let before = listed(&machine);

    machine.write(OLD, r#"{"accounts":[{"id":"anthropic/b","disabled":true}]}"#);

    assert_eq!(listed(&machine), before);
}

#[test]
fn a_move_without_a_configuration_creates_one() {
    let machine = machine(None, r#"{"accounts":[{"id":"anthropic/x","login":{"token_env":"X"}}]}"#);

    assert_eq!(machine.run(&["accounts", "disable", "x"]).code, Some(0));

    assert!(
        read(&machine, CONFIG)
            .unwrap()
            .ends_with("[[accounts]]\nid = \"anthropic/x\"\ntoken_env = \"X\"\ndisabled = true\n")
    );
    assert_eq!(read(&machine, OLD), None);
}

#[test]
fn settings_of_the_default_account_are_moved() {
    let machine =
        machine(None, r#"{"accounts":[{"id":"anthropic/main","limits":{"killswitch":{"every_bp":500}}}]}"#);
    machine.log_in("sim-token-claude");

    assert_eq!(machine.run(&["accounts", "disable", "main"]).code, Some(0));

    let text = read(&machine, CONFIG).unwrap();
    assert!(
        text.ends_with("[[accounts]]\nid = \"anthropic/main\"\nkillswitch = 5\ndisabled = true\n"),
        "{text}"
    );
}

#[test]
fn the_given_and_the_default_configuration_get_the_settings() {
    let machine = machine(Some(MINE), &old_file());
    let other = machine.write("other.toml", "[[accounts]]\nid = \"anthropic/b\"\n");

    let changed =
        machine.run(&["accounts", "set", "b", "--min-remaining", "7", "--config", argument(&other)]);

    assert_eq!(changed.code, Some(0), "{}", changed.stderr);
    assert_eq!(
        read(&machine, "other.toml").unwrap(),
        "[[accounts]]\nid = \"anthropic/b\"\ndisabled = true\nkillswitch = { every = 12.5, five_hour = 5 }\nmin_remaining = 7\n"
    );
    let names: Vec<_> = listed(&machine).iter().map(|one| one["account"].clone()).collect();
    assert_eq!(names, ["anthropic/vault", "anthropic/b", "anthropic/a", "anthropic/dir"]);
    assert_eq!(read(&machine, OLD), None);
}

#[test]
fn a_file_that_another_program_reads_is_kept() {
    let theirs = r#"{"version":2,"accounts":[{"id":"anthropic/theirs","color":"green"},{"id":"anthropic/b"}],"note":"mine"}"#;
    let machine = machine(Some(MINE), theirs);

    let listing = machine.run(&["accounts"]);
    let changed = machine.run(&["accounts", "disable", "b"]);

    assert!(listing.stderr.contains("ignored anthropic/theirs"), "{}", listing.stderr);
    assert!(
        changed.stderr.contains("is kept, because it has settings of another program"),
        "{}",
        changed.stderr
    );
    assert_eq!(
        (read(&machine, OLD), read(&machine, MOVED)),
        (Some(theirs.to_owned()), Some(theirs.to_owned()))
    );
    assert_eq!(machine.run(&["accounts"]).stderr, "");
}

#[test]
fn an_invalid_old_file_is_78_and_unchanged() {
    for text in ["", "{\"version\": 1", "[]"] {
        let machine = machine(Some(MINE), text);
        for arguments in [
            &["accounts"][..],
            &["accounts", "disable", "a"],
            &["status"],
            &["statusline", "--json"],
            &["pick"],
            &["guard"],
        ] {
            let ended = machine.run(arguments);

            assert_eq!(
                (ended.code, ended.stderr.lines().count()),
                (Some(78), 1),
                "{arguments:?} {}",
                ended.stderr
            );
            assert!(ended.stderr.contains("accounts.json: invalid at line"), "{}", ended.stderr);
        }
        assert_eq!(
            (read(&machine, OLD).as_deref(), read(&machine, CONFIG).as_deref()),
            (Some(text), Some(MINE))
        );
    }
}

#[test]
fn an_unknown_form_of_login_hides_no_other_account() {
    let logins = [r#"{"vault":"x"}"#, "5", r#"{"token_env":5}"#];
    let accounts: Vec<_> = logins
        .iter()
        .enumerate()
        .map(|(at, login)| format!(r#"{{"id":"anthropic/odd-{at}","login":{login}}}"#))
        .chain([
            r#"{"id":"anthropic/remote","login":"claude_code","base_url":"http://example.com"}"#.to_owned()
        ])
        .collect();
    let machine = machine(Some(MINE), &format!(r#"{{"accounts":[{}]}}"#, accounts.join(",")));

    let listing = machine.run(&["accounts"]);
    machine.run(&["accounts", "disable", "b"]);

    assert_eq!((listing.code, listing.stderr.lines().count()), (Some(0), 4), "{}", listing.stderr);
    assert_eq!(listed(&machine).len(), 2);
    assert!(read(&machine, OLD).is_some(), "the old file stays, because one account could not be moved");
}

#[test]
fn concurrent_changes_move_the_file_once_and_lose_nothing() {
    let machine = machine(Some(MINE), &old_file());
    let start = |name: &str| {
        let mut command = machine.command(&["accounts", "enable", name]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let add = |at: usize| {
        let (name, variable) = (format!("own-{at}"), format!("OWN_{at}"));
        let mut command = machine.command(&["accounts", "add", &name, "--token-env", &variable]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };

    let children: Vec<_> = (0..5).map(add).chain([start("b")]).collect();
    children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));

    let accounts = listed(&machine);
    assert_eq!(accounts.len(), 9);
    assert!(accounts.iter().all(|account| account["disabled"] == false));
    assert_eq!(read(&machine, MOVED), Some(old_file()));
}
