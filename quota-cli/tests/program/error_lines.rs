//! An error is one line: what failed, why, and what to do. It has no OS error number and no long chain of causes.

use super::support::Machine;

/// The error line of a command that must end with `code`.
fn line_of(machine: &Machine, arguments: &[&str], code: i32) -> String {
    let ended = machine.run(arguments);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    ended.stderr.trim_end().to_owned()
}

#[test]
fn no_error_contains_an_os_error_number() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path(".local/state/quota/accounts.json")).unwrap();
    for (arguments, code, why) in [
        (&["accounts", "list"][..], 78, "accounts.json: it is a directory"),
        (
            &["init", "--config", "/dev/null/x"],
            74,
            "could not write /dev/null/x: another file already exists at its path or at the path of its folder",
        ),
        (
            &["sim", "--script", "/dev/null/x"],
            66,
            "could not read /dev/null/x: a part of its path is not a directory",
        ),
    ] {
        let line = line_of(&machine, arguments, code);

        assert!(line.contains(why) && !line.contains("os error"), "{line}");
    }
}

#[test]
fn an_unreachable_provider_has_no_os_error_number() {
    let machine = Machine::new().set("QUOTA_MAIN", "made-up");
    let config = "[[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"QUOTA_MAIN\"\nbase_url = \"http://127.0.0.1:1\"\n";
    machine.write(".config/quota/config.toml", config);

    let shown = machine.run(&["status"]).stdout;

    assert!(shown.contains("could not connect to 127.0.0.1: "), "{shown}");
    assert!(!shown.contains("os error"), "{shown}");
}

#[test]
fn an_empty_account_name_is_a_usage_error() {
    let machine = Machine::new();
    machine.log_in("made-up");
    for arguments in [
        &["status", "--account", ""][..],
        &["statusline", "--account", ""],
        &["guard", "--account", ""],
        &["events", "--account", ""],
        &["accounts", "disable", ""],
        &["accounts", "clear-hold", ""],
    ] {
        let line = line_of(&machine, arguments, 64);

        let message =
            "quota: the account name is empty; is an environment variable unset? (known: anthropic/main)";
        assert_eq!(line, message, "{arguments:?}");
    }
}

#[test]
fn an_empty_window_or_model_name_is_a_usage_error() {
    let machine = Machine::new();
    machine.log_in("made-up");
    for arguments in [
        &["guard", "--window", ""][..],
        &["guard", "--model", ""],
        &["pick", "--model", ""],
        &["pick", "--session", ""],
        &["pace", "--window", ""],
    ] {
        let ended = machine.run(arguments);

        assert_eq!(ended.code, Some(64), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: a value is required for "), "{}", ended.stderr);
    }
}

#[test]
fn the_missing_login_error_has_at_most_three_parts() {
    let line = line_of(&Machine::new(), &["guard"], 69);

    let (message, _) =
        line.strip_prefix("quota: ").unwrap().split_once("; run `claude` and log in; ").unwrap();
    assert_eq!(message.matches(": ").count(), 2, "{line}");
}
