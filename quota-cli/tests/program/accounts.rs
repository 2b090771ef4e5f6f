//! `quota accounts`: the list of accounts, and the commands that change it in the configuration.
//! `old_accounts` tests the files of earlier versions.

use std::process::{Child, Stdio};

use quota_sim::{Account, Script, Window};
use serde_json::{Value, json};

use super::support::{Machine, Provider, argument};

const CONFIG: &str = ".config/quota/config.toml";

/// A machine with these accounts in its configuration. Each has its own token variable.
fn configured(names: &[&str]) -> Machine {
    let machine = Machine::new();
    let accounts: Vec<_> = names
        .iter()
        .map(|name| format!("[[accounts]]\nid = \"anthropic/{name}\"\ntoken_env = \"TOKEN_{name}\"\n"))
        .collect();
    machine.write(CONFIG, accounts.concat());
    machine
}

/// The names of all accounts in order. A disabled account has a leading `-`.
fn listed(machine: &Machine) -> Vec<String> {
    let document = machine.run(&["accounts", "list", "--json"]).json();
    let name = |account: &Value| {
        let id = account["account"].as_str().unwrap().trim_start_matches("anthropic/").to_owned();
        if account["disabled"] == true { format!("-{id}") } else { id }
    };
    document["accounts"].as_array().unwrap().iter().map(name).collect()
}

/// Runs `quota accounts` with these arguments. Returns the exit code, and standard output followed by standard error.
fn run(machine: &Machine, arguments: &[&str]) -> (i32, String) {
    let ended = machine.run(&[&["accounts"], arguments].concat());
    let text = format!("{}{}", ended.stdout, ended.stderr);
    (ended.code.unwrap(), text.trim_end().to_owned())
}

#[test]
fn configured_and_added_accounts_are_in_one_list() {
    let machine = configured(&["main", "work"]);

    let added = machine.run(&["accounts", "add", "spare", "--token-env", "SPARE"]);

    assert_eq!((added.code, &*added.stdout), (Some(0), "added anthropic/spare: variable SPARE\n"));
    assert_eq!(listed(&machine), ["main", "work", "spare"]);
    let status = machine.run(&["status", "--offline", "--json"]).json();
    let names: Vec<_> = status["accounts"].as_array().unwrap().iter().map(|one| &one["account"]).collect();
    assert_eq!(names, ["anthropic/main", "anthropic/work", "anthropic/spare"]);
}

#[test]
fn an_added_account_is_refreshed_like_a_configured_one() {
    let provider =
        Provider::play(Script::new([Account::new("spare").windows([Window::five_hour().used(42.0)])]));
    let machine = configured(&["main"]).set("SPARE", "sim-token-spare");
    let (url, name) = (provider.url(), "spare");
    machine.run(&["accounts", "add", name, "--token-env", "SPARE", "--base-url", &url, "--first"]);

    let status = machine.run(&["statusline", "--format", "{account}"]);
    let guard = machine.run(&["guard", "--account", name]);

    assert_eq!(status.stdout, "anthropic/spare\n");
    assert_eq!((guard.code, guard.stderr.as_str()), (Some(0), ""));
}

#[test]
fn adding_an_account_keeps_the_login_of_claude_code() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    machine.run(&["accounts", "add", "work", "--token-env", "WORK"]);

    assert_eq!(listed(&machine), ["main", "work"]);
}

#[test]
fn without_a_login_the_added_account_is_the_only_one() {
    let machine = Machine::new();

    machine.run(&["accounts", "add", "work", "--token-env", "WORK"]);

    assert_eq!(listed(&machine), ["work"]);
}

fn config(machine: &Machine) -> String {
    std::fs::read_to_string(machine.path(CONFIG)).unwrap()
}

#[test]
fn order_and_disabled_accounts_are_written_into_the_configuration() {
    let machine = configured(&["a", "b", "c"]);

    assert_eq!(run(&machine, &["disable", "b"]), (0, "disabled anthropic/b".into()));
    assert_eq!(listed(&machine), ["a", "-b", "c"], "disabling does not change the order");
    run(&machine, &["order", "c", "b"]);
    assert_eq!(listed(&machine), ["c", "-b", "a"]);
    run(&machine, &["enable", "b"]);

    assert_eq!(listed(&machine), ["c", "b", "a"]);
    assert_eq!(config(&machine), config(&configured(&["c", "b", "a"])));
}

#[test]
fn comments_and_formatting_of_the_configuration_stay() {
    let machine = Machine::new();
    let mine = "# Mine.\n\n# the main one\n[[accounts]]\nid = 'anthropic/a'   # first\n\n[policy]\ngap = \"2s\"  # slow\n";
    machine.write(CONFIG, mine);

    run(&machine, &["add", "b", "--token-env", "B", "--first"]);
    run(&machine, &["disable", "a"]);

    assert_eq!(
        config(&machine),
        "# Mine.\n\n[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n\n# the main one\n[[accounts]]\nid = 'anthropic/a'   # first\n\
         disabled = true\n\n[policy]\ngap = \"2s\"  # slow\n"
    );
}

#[test]
fn a_command_that_changes_nothing_writes_nothing() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    for arguments in [&["enable", "main"][..], &["order", "main"], &["set", "main", "--killswitch", "none"]] {
        assert_eq!(run(&machine, arguments).0, 0, "{arguments:?}");
    }

    assert!(!machine.path(CONFIG).exists());
}

#[test]
fn no_temporary_file_is_left_beside_the_configuration() {
    let machine = configured(&["main"]);

    run(&machine, &["disable", "main"]);
    run(&machine, &["disable", "nowhere"]);

    let entries = std::fs::read_dir(machine.path(".config/quota")).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["config.toml"]);
}

#[test]
fn a_disabled_account_is_shown_but_not_refreshed() {
    let provider = Provider::play(Script::new([Account::new("main"), Account::new("work")]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config);
    run(&machine, &["disable", "main", "--config", config]);

    let status = machine.run(&["status", "--refresh", "--config", config]);
    let guard = machine.run(&["guard", "--config", config]);
    let named = machine.run(&["guard", "--account", "main", "--config", config]);

    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.contains("disabled"), "{}", status.stdout);
    assert_eq!(guard.code, Some(0), "guard uses the first enabled account: {}", guard.stderr);
    assert_eq!(named.code, Some(3));
    let advice = format!("quota accounts enable anthropic/main --config {config}");
    assert!(named.stderr.contains(&advice), "{}", named.stderr);
    assert_eq!(provider.simulator.ledger().accounts.get("main").map_or(0, |account| account.calls), 0);
}

#[test]
fn disabling_the_only_account_prints_a_warning() {
    let machine = configured(&["main"]);

    let (code, message) = run(&machine, &["disable", "main"]);
    let guard = machine.run(&["guard"]);

    assert_eq!((code, message.lines().count()), (0, 2));
    assert_eq!(guard.code, Some(3));
    assert!(guard.stderr.contains("quota accounts enable"), "{}", guard.stderr);
}

#[test]
fn only_the_file_given_with_config_is_changed() {
    let machine = configured(&["main"]);
    let before = config(&machine);
    let other = machine.write(
        "other.toml",
        "[[accounts]]\nid = \"anthropic/x\"\n[[accounts]]\nid = \"anthropic/main\"\ntoken_env = \"M\"\n",
    );
    let other = argument(&other);

    for arguments in [
        &["disable", "main"][..],
        &["order", "main"],
        &["add", "spare", "--token-env", "SPARE"],
        &["set", "x", "--killswitch", "5"],
    ] {
        assert_eq!(run(&machine, &[arguments, &["--config", other]].concat()).0, 0, "{arguments:?}");
    }

    let written = std::fs::read_to_string(other).unwrap();
    let document = machine.run(&["accounts", "list", "--json", "--config", other]).json();
    let names: Vec<_> = document["accounts"].as_array().unwrap().iter().map(|one| &one["account"]).collect();
    assert_eq!(names, ["anthropic/main", "anthropic/x", "anthropic/spare"], "{written}");
    assert_eq!(document["file"], *other);
    assert!(written.contains("disabled = true") && written.contains("killswitch = 5"), "{written}");
    assert_eq!(config(&machine), before);
}

#[test]
fn standard_input_as_the_configuration_is_rejected() {
    let machine = configured(&["main"]);

    let (code, message) = run(&machine, &["disable", "main", "--config", "-"]);
    let missing = run(&machine, &["add", "x", "--token-env", "X", "--config", "nowhere.toml"]);

    assert_eq!((code, &*message), (64, "quota: standard input cannot be changed; name a file with --config"));
    assert_eq!(missing.0, 66, "{}", missing.1);
    assert!(!machine.path("nowhere.toml").exists());
}

#[cfg(unix)]
#[test]
fn a_read_only_configuration_is_unchanged_and_the_error_has_the_edit() {
    use std::os::unix::fs::PermissionsExt as _;

    let machine = configured(&["main"]);
    let before = config(&machine);
    std::fs::set_permissions(machine.path(CONFIG), std::fs::Permissions::from_mode(0o444)).unwrap();

    let (code, message) = run(&machine, &["add", "spare", "--token-env", "SPARE"]);

    assert_eq!((code, message.lines().count()), (74, 1), "{message}");
    assert!(
        message.ends_with(
            "it is read-only; edit it by hand: add [[accounts]] with id = \"anthropic/spare\", token_env = \"SPARE\""
        ),
        "{message}"
    );
    assert_eq!(config(&machine), before);
}

#[test]
fn without_a_lock_nothing_is_written_and_the_error_has_the_edit() {
    let machine = configured(&["a", "b"]);
    let before = config(&machine);
    std::fs::create_dir(machine.path(".config/quota/config.toml.lock")).unwrap();

    let (code, message) = run(&machine, &["order", "b"]);
    let unchanged = run(&machine, &["order", "a"]);

    assert_eq!((code, message.lines().count()), (74, 1), "{message}");
    assert!(
        message.ends_with("; edit it by hand: put the accounts in this order: anthropic/b, anthropic/a"),
        "{message}"
    );
    assert_eq!(unchanged.0, 0, "the order is unchanged, so no lock is needed: {}", unchanged.1);
    assert_eq!(config(&machine), before);
}

#[cfg(unix)]
#[test]
fn a_change_through_a_symlink_is_written_to_its_target() {
    let machine = Machine::new();
    let target = machine.write("dotfiles/quota.toml", "[[accounts]]\nid = \"anthropic/main\"\n");
    std::fs::create_dir_all(machine.path(".config/quota")).unwrap();
    std::os::unix::fs::symlink("../../dotfiles/quota.toml", machine.path(CONFIG)).unwrap();

    assert_eq!(run(&machine, &["disable", "main"]).0, 0);

    assert!(std::fs::symlink_metadata(machine.path(CONFIG)).unwrap().is_symlink());
    assert!(std::fs::read_to_string(target).unwrap().ends_with("disabled = true\n"));
    assert_eq!(std::fs::read_dir(machine.path("dotfiles")).unwrap().count(), 1);
}

#[test]
fn accounts_that_cannot_be_edited_are_reported_with_their_line() {
    let machine = Machine::new();
    let text = "accounts = [\n  { id = \"anthropic/a\" }, # main\n]\n";
    machine.write(CONFIG, text);

    let (code, message) = run(&machine, &["disable", "a"]);

    assert_eq!((code, message.lines().count()), (78, 1), "{message}");
    assert!(
        message.contains("config.toml:1: ")
            && message.ends_with("by hand: set disabled = true for anthropic/a"),
        "{message}"
    );
    assert_eq!(config(&machine), text);
}

#[test]
fn an_account_that_a_hook_names_is_not_removed() {
    let machine = configured(&["a", "b"]);
    let before = format!(
        "{}[[hooks]]\non = [\"reset\"]\naccounts = [\"anthropic/b\"]\nrun = [\"true\"]\n",
        config(&machine)
    );
    machine.write(CONFIG, &before);

    let (code, message) = run(&machine, &["remove", "b"]);

    assert_eq!((code, message.lines().count()), (78, 1), "{message}");
    assert!(
        message.ends_with("config.toml:9: a hook names anthropic/b; remove it from the hook first"),
        "{message}"
    );
    assert_eq!(config(&machine), before);
}

#[test]
fn a_configured_account_can_be_removed() {
    let machine = configured(&["main", "work"]);
    run(&machine, &["add", "spare", "--token-env", "SPARE"]);

    assert_eq!(run(&machine, &["remove", "spare"]), (0, "removed anthropic/spare".into()));
    assert_eq!(run(&machine, &["remove", "main"]), (0, "removed anthropic/main".into()));

    assert_eq!(config(&machine), config(&configured(&["work"])));
    let last = run(&machine, &["remove", "work"]);
    assert!(last.1.contains("no account is left; add one with: quota accounts add"), "{}", last.1);
}

#[test]
fn the_default_account_cannot_be_removed() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    let (code, message) = run(&machine, &["remove", "main"]);

    assert_eq!((code, message.lines().count()), (64, 1), "{message}");
    assert!(message.contains("quota accounts disable anthropic/main"), "{message}");
}

#[test]
fn an_invalid_change_is_one_line_and_changes_nothing() {
    let machine = configured(&["main", "work"]);
    run(&machine, &["disable", "work"]);
    let before = config(&machine);

    for (arguments, message) in [
        (&["disable", "mian"][..], "did you mean anthropic/main?"),
        (&["order", "work", "stranger"], "unknown account stranger"),
        (&["remove", "missing"], "unknown account missing"),
        (&["add", "main", "--token-env", "X"], "config.toml:2)"),
        (&["add", "other", "--token-env", "TOKEN_work"], "anthropic/work already uses this login"),
        (&["add", "antropic/x"], "did you mean anthropic/x?"),
        (&["add", "a b", "--token-env", "X"], "an account's name has"),
        (&["add", "x", "--token-env", "sk-ant-oat01-made-up"], "the name of an environment variable"),
        (&["add", "x", "--token-env", "X", "--base-url", "http://example.com"], "https://"),
    ] {
        let (code, text) = run(&machine, arguments);

        assert_eq!((code, text.lines().count()), (64, 1), "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
        assert!(!text.contains("oat01"), "{text}");
    }
    for wrong in [
        &["add"][..],
        &["add", "x", "--token-evn", "X"],
        &["add", "x", "--token-env", "A", "--token-file", "b"],
        &["list", "x"],
        &["swap"],
        &["remove"],
    ] {
        assert_eq!(run(&machine, wrong).0, 64, "{wrong:?}");
    }
    assert_eq!(config(&machine), before);
}

#[test]
fn a_name_is_added_once() {
    let machine = configured(&["main"]);

    assert_eq!(run(&machine, &["add", "spare", "--token-env", "SPARE"]).0, 0);
    let (code, message) = run(&machine, &["add", "spare", "--token-env", "OTHER"]);

    assert_eq!(code, 64);
    assert!(message.contains("anthropic/spare already exists ("), "{message}");
}

#[test]
fn claude_codes_login_is_added_once_and_only_as_itself() {
    let machine = Machine::new();
    machine.log_in("sim-token-claude");

    let other = run(&machine, &["add", "main", "--token-env", "OTHER"]);
    let twin = run(&machine, &["add", "twin"]);
    let itself = run(&machine, &["add", "main"]);

    assert_eq!(other.0, 64);
    assert!(other.1.contains("anthropic/main already exists (login of Claude Code)"), "{}", other.1);
    assert_eq!(twin.0, 64);
    assert!(twin.1.contains("anthropic/main already uses this login"), "{}", twin.1);
    assert_eq!(itself, (0, "added anthropic/main: login of Claude Code".into()));
    assert_eq!(listed(&machine), ["main"]);
}

#[test]
fn main_is_a_free_name_if_claude_code_is_not_logged_in() {
    let machine = Machine::new();

    let (code, message) = run(&machine, &["add", "main", "--token-env", "OTHER"]);

    assert_eq!(code, 0, "{message}");
    let document = machine.run(&["accounts", "list", "--json"]).json();
    assert_eq!(document["accounts"][0]["login"], json!({ "kind": "token_env", "name": "OTHER" }));
}

#[test]
fn concurrent_adds_lose_no_account_and_add_a_name_once() {
    let machine = configured(&["main"]);
    let start = |name: String, variable: String| {
        let arguments = ["accounts", "add", &name, "--token-env", &variable];
        machine.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };

    let distinct: Vec<_> = (0..6).map(|at| start(format!("own-{at}"), format!("OWN_{at}"))).collect();
    let same: Vec<_> = (0..6).map(|at| start("one".to_owned(), format!("ONE_{at}"))).collect();
    let codes = |all: Vec<Child>| -> Vec<_> {
        let mut codes: Vec<_> = all.into_iter().map(|mut one| one.wait().unwrap().code()).collect();
        codes.sort_unstable();
        codes
    };

    assert_eq!(codes(distinct), [Some(0); 6]);
    assert_eq!(codes(same), [Some(0), Some(64), Some(64), Some(64), Some(64), Some(64)]);
    let mut names = listed(&machine);
    names.sort_unstable();
    assert_eq!(names, ["main", "one", "own-0", "own-1", "own-2", "own-3", "own-4", "own-5"]);
}

#[test]
fn the_limits_of_an_added_account_apply() {
    let window = Window::five_hour().used(85.0);
    let provider = Provider::play(Script::new([
        Account::new("a").windows([window.clone()]),
        Account::new("b").windows([window]),
    ]));
    let machine = Machine::new().set("A", "sim-token-a").set("B", "sim-token-b");
    let url = provider.url();
    machine.write(".config/quota/config.toml", "[policy]\ngap = \"1ms\"\n");
    for (name, limits) in [("a", &["--killswitch", "20"][..]), ("b", &["--min-remaining", "50"])] {
        let variable = name.to_uppercase();
        let add = ["add", name, "--token-env", &variable, "--base-url", &url];
        assert_eq!(run(&machine, &[&add, limits].concat()).0, 0, "{name}");
    }

    let explained = machine.run(&["explain", "--json"]).json();
    let listing = machine.run(&["accounts"]).stdout;
    let listing = listing.split_whitespace().collect::<Vec<_>>().join(" ");

    let rules: Vec<_> = explained["accounts"].as_array().unwrap().iter().map(|one| &one["reason"]).collect();
    assert_eq!(rules, ["below_killswitch", "below_minimum"]);
    assert_eq!(explained["account"], "anthropic/b");
    assert!(listing.contains("killswitch 20 %") && listing.contains("minimum 50 %"), "{listing}");
}

#[test]
fn the_logins_of_this_machine_are_imported_once() {
    let machine = Machine::new().set("QUOTA_MAIN", "sim-token-variable");
    machine.log_in("sim-token-claude");

    let dry = run(&machine, &["import", "--dry-run"]);
    assert!(!machine.path(CONFIG).exists(), "a dry run writes nothing");
    let first = run(&machine, &["import"]);
    let second = run(&machine, &["import"]);

    let dry_run_output = "would add anthropic/main: login of Claude Code\nwould add anthropic/quota-main: variable QUOTA_MAIN\n\n\
         A second login of Claude Code:\n  \
         mkdir -p ~/.claude-work && CLAUDE_CONFIG_DIR=~/.claude-work claude   # then /login\n  \
         quota accounts add work --claude-config-dir ~/.claude-work";
    assert_eq!(dry, (0, dry_run_output.to_owned()));
    assert_eq!(first, (0, dry_run_output.replace("would add", "added")));
    assert_eq!(listed(&machine), ["main", "quota-main"]);
    assert_eq!((second.0, second.1.matches("already exists, unchanged").count()), (0, 2), "{}", second.1);
}

#[test]
fn an_import_adds_accounts_and_changes_no_existing_one() {
    let machine = configured(&["main"]);
    let other = r#"{"version":1,"accounts":[
        {"id":"anthropic/main","login":{"token_env":"ELSE"}},
        {"id":"anthropic/spare","login":{"token_env":"SPARE"},"disabled":true},
        {"id":"anthropic/twin","login":{"token_env":"SPARE"}},
        {"id":"anthropic/nowhere"}]}"#;
    let other = machine.write("other.json", other);

    let (code, message) = run(&machine, &["import", argument(&other)]);

    assert_eq!(code, 1, "{message}");
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(lines[0], "anthropic/main already exists, unchanged");
    assert_eq!(lines[1], "added anthropic/spare: variable SPARE");
    assert_eq!(lines[2], "skipped anthropic/twin: anthropic/spare already uses its login");
    assert!(lines[3].starts_with("skipped anthropic/nowhere"), "{message}");
    assert_eq!(listed(&machine), ["main", "-spare"]);
}

#[test]
fn importing_a_host_or_program_needs_a_flag_and_shows_it() {
    let machine = configured(&["main"]);
    let other = r#"{"version":1,"accounts":[
        {"id":"anthropic/plain","login":{"token_env":"PLAIN"},"unheard_of":1},
        {"id":"anthropic/host","login":{"token_env":"HOST"},"base_url":"https://evil.example/"},
        {"id":"anthropic/program","login":{"token_command":["/tmp/evil","a b"]}},
        {"id":"anthropic/both","login":{"token_command":["/tmp/both"]},"base_url":"https://evil.example/"}]}"#;
    let other = argument(&machine.write("other.json", other)).to_owned();

    let (code, message) = run(&machine, &["import", &other]);

    assert_eq!(code, 1, "{message}");
    assert_eq!(listed(&machine), ["main", "plain"]);
    assert!(
        message.contains("skipped anthropic/host: it sends its token to https://evil.example/;"),
        "{message}"
    );
    assert!(message.contains("runs the program \"/tmp/evil\" \"a b\"; if you trust the file"), "{message}");
    assert!(message.contains("--allow-base-url --allow-token-command"), "{message}");

    let (code, message) = run(&machine, &["import", &other, "--allow-base-url"]);
    assert_eq!(
        (code, listed(&machine)),
        (1, ["main", "plain", "host"].map(String::from).to_vec()),
        "{message}"
    );
    assert_eq!(message.lines().next(), Some("anthropic/host sends its token to https://evil.example/"));

    let (code, message) = run(&machine, &["import", &other, "--allow-base-url", "--allow-token-command"]);
    assert_eq!(code, 0, "{message}");
    assert_eq!(listed(&machine), ["main", "plain", "host", "program", "both"]);
    assert!(!config(&machine).contains("unheard_of"));
}

/// A machine whose D-Bus has no keyring.
fn without_keyring() -> Machine {
    Machine::new().set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
}

#[test]
fn an_item_of_the_keyring_is_added_with_its_service_and_user() {
    let machine = without_keyring();

    let added = machine.run(&["accounts", "add", "laptop", "--keyring", "quota", "--keyring-user", "me"]);

    assert_eq!((added.code, &*added.stdout), (Some(0), "added anthropic/laptop: keyring item quota of me\n"));
    assert!(
        config(&machine).contains("keyring = { service = \"quota\", user = \"me\" }"),
        "{}",
        config(&machine)
    );
    let login = &machine.run(&["accounts", "list", "--json"]).json()["accounts"][0]["login"];
    assert_eq!(*login, json!({ "kind": "keyring", "name": "quota" }));
}

#[test]
fn two_accounts_may_have_items_of_one_service() {
    let machine = without_keyring();

    let first = machine.run(&["accounts", "add", "laptop", "--keyring", "quota"]);
    let second = machine.run(&["accounts", "add", "spare", "--keyring", "quota"]);
    let same =
        machine.run(&["accounts", "add", "x", "--keyring", "quota", "--keyring-user", "anthropic/spare"]);

    assert_eq!((first.code, second.code, same.code), (Some(0), Some(0), Some(64)), "{}", second.stderr);
    assert!(same.stderr.contains("anthropic/spare already uses this login"), "{}", same.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_running_keyring_the_account_says_so() {
    let machine = without_keyring();
    machine.write(CONFIG, "[[accounts]]\nid = \"anthropic/laptop\"\nkeyring = { service = \"quota\" }\n");

    let status = machine.run(&["status"]);
    let doctor = machine.run(&["doctor"]);

    for output in [&status.stdout, &doctor.stdout] {
        assert!(output.contains("no keyring is running"), "{output}");
    }
}

#[test]
fn adding_a_token_says_what_it_cannot_do() {
    for (name, token, what) in [
        ("setup", "sk-ant-oat01-made-up", "may not read usage"),
        ("key", "sk-ant-api03-made-up", "API key"),
        ("codex/key", "sk-proj-made-up", "API key"),
    ] {
        let machine = Machine::new().set("QUOTA_NEW", token);

        let added = machine.run(&["accounts", "add", name, "--token-env", "QUOTA_NEW"]);

        assert_eq!(added.code, Some(0), "{name}: {}", added.stderr);
        assert!(added.stderr.contains(what) && !added.stderr.contains("made-up"), "{name}: {}", added.stderr);
    }
}

#[test]
fn a_token_as_an_argument_is_rejected_and_not_repeated() {
    const TOKEN: &str = "sk-ant-oat01-made-up";
    let machine = configured(&["main"]);
    let dotted = format!("echo {TOKEN}");
    let in_url = format!("https://example.com/{TOKEN}");
    for arguments in [
        &["add", TOKEN][..],
        &["add", "x", "--token-command", TOKEN],
        &["add", "x", "--token-command", "sh", "-c", &dotted],
        &["add", "x", "--token-env", TOKEN],
        &["add", "x", "--token-file", TOKEN],
        &["add", "x", "--claude-config-dir", TOKEN],
        &["add", "x", "--keyring", TOKEN],
        &["add", "x", "--keyring", "quota", "--keyring-user", TOKEN],
        &["add", "x", "--token-env", "X", "--base-url", &in_url],
        &["disable", TOKEN],
        &["disable", "main", "--config", TOKEN],
        &["import", TOKEN],
    ] {
        let (code, message) = run(&machine, arguments);

        assert!([64, 66].contains(&code), "{arguments:?} {code}");
        assert_eq!(
            (message.lines().count(), message.contains("made-up")),
            (1, false),
            "{arguments:?} {message}"
        );
    }
    assert_eq!(listed(&machine), ["main"]);
}

#[test]
fn a_token_in_the_configuration_is_rejected_and_not_repeated() {
    for place in [
        "token_command = [\"sk-ant-oat01-made-up\"]",
        "token_command = [\"sh\", \"-c\", \"echo sk-ant-oat01-made-up\"]",
        "token_env = \"sk-ant-oat01-made-up\"",
        "token_file = \"sk-ant-oat01-made-up\"",
        "keyring = { service = \"sk-ant-oat01-made-up\" }",
        "base_url = \"https://example.com/sk-ant-oat01-made-up\"",
    ] {
        let machine = Machine::new();
        machine.write(".config/quota/config.toml", format!("[[accounts]]\nid = \"anthropic/x\"\n{place}\n"));

        let ended = machine.run(&["accounts"]);

        assert_eq!(ended.code, Some(78), "{place}");
        assert!(ended.stderr.contains("do not put a token "), "{}", ended.stderr);
        assert!(!ended.stderr.contains("made-up"), "{}", ended.stderr);
    }
}

#[cfg(unix)]
#[test]
fn files_writable_by_others_are_rejected_with_a_chmod() {
    use std::os::unix::fs::PermissionsExt as _;

    let machine = configured(&["main"]);
    let old = ".local/state/quota/accounts.json";
    machine.write(old, "{}");
    for name in [CONFIG, old, ".config/quota", ".local/state/quota"] {
        let path = machine.path(name);
        let usual = std::fs::metadata(&path).unwrap().permissions();
        for mode in [0o020, 0o002] {
            let open = std::fs::Permissions::from_mode(usual.mode() | mode);
            std::fs::set_permissions(&path, open).unwrap();

            let (code, message) = run(&machine, &["list"]);

            let advice = format!("run: chmod go-w '{}'", path.display());
            assert_eq!((code, message.lines().count()), (78, 1), "{message}");
            assert!(message.ends_with(&advice), "{message}");
        }
        std::fs::set_permissions(&path, usual).unwrap();
    }
    assert_eq!(run(&machine, &["list"]).0, 0);
}

#[test]
fn an_invalid_accounts_file_is_not_imported() {
    let machine = configured(&["main"]);
    let wrong = machine.write("wrong.json", "{\"accounts\": \"sk-ant-oat01-made-up\"}");
    let empty = machine.write("empty.json", "{}");

    let (code, message) = run(&machine, &["import", argument(&wrong)]);

    assert_eq!((code, message.lines().count(), message.contains("oat01")), (65, 1, false), "{message}");
    assert_eq!(run(&machine, &["import", argument(&empty)]).0, 3);
    assert_eq!(run(&machine, &["import", "nowhere.json"]).0, 66);
}

#[cfg(unix)]
#[test]
fn a_new_configuration_is_private_an_old_one_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode =
        |machine: &Machine| std::fs::metadata(machine.path(CONFIG)).unwrap().permissions().mode() & 0o777;
    let (new, old) = (Machine::new(), configured(&["main"]));
    std::fs::set_permissions(old.path(CONFIG), std::fs::Permissions::from_mode(0o640)).unwrap();

    for machine in [&new, &old] {
        assert_eq!(run(machine, &["add", "spare", "--token-env", "SPARE"]).0, 0);
    }

    assert_eq!((mode(&new), mode(&old)), (0o600, 0o640));
}

#[test]
fn a_hook_may_name_an_added_account() {
    let machine = configured(&["main"]);
    run(&machine, &["add", "spare", "--token-env", "SPARE"]);
    let config = config(&machine);
    let hook = "[[hooks]]\non = [\"reset\"]\naccounts = [\"anthropic/spare\"]\nrun = [\"true\"]\n";
    machine.write(CONFIG, format!("{config}{hook}"));

    assert_eq!(listed(&machine), ["main", "spare"]);
}

#[test]
fn a_configuration_without_accounts_can_get_them_by_command() {
    let machine = Machine::new();
    machine.write(".config/quota/config.toml", "[policy]\nfreshness = \"2m\"\n");

    let none = machine.run(&["status"]);
    let added = run(&machine, &["add", "work", "--token-env", "WORK"]);

    assert_eq!((none.code, added.0), (Some(78), 0));
    assert!(
        none.stderr.contains("no account is configured") && none.stderr.contains("quota accounts add"),
        "{}",
        none.stderr
    );
    assert_eq!(listed(&machine), ["work"]);
}
