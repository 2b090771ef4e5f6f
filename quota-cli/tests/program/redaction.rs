//! Errors that repeat user input mask tokens and replace control characters. They suggest no internal command.

use quota_sim::{Account, Script, Window};

use super::support::{Machine, Provider};

const TOKEN: &str = "sk-ant-oat01-SECRET-SECRET";

/// A logged-in account, so that commands do not fail before they read their arguments.
fn logged_in() -> (Provider, Machine) {
    let account = Account::new("main").windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([account]));
    let (machine, config) = provider.configure(Machine::new());
    let usual = machine.path(".config/quota");
    std::fs::create_dir_all(&usual).unwrap();
    std::fs::rename(config, usual.join("config.toml")).unwrap();
    (provider, machine)
}

#[test]
fn no_error_repeats_a_token() {
    let (_provider, machine) = logged_in();
    for (line, code) in [
        ("--TOKEN", 64),
        ("--TOKEN=x status", 64),
        ("TOKEN", 64),
        ("help TOKEN", 64),
        ("accounts TOKEN", 64),
        ("status TOKEN", 64),
        ("status --json=TOKEN", 64),
        ("status --max-age TOKEN", 64),
        ("status --account TOKEN", 64),
        ("statusline --preset TOKEN", 64),
        ("statusline --format {TOKEN}", 64),
        ("statusline --format {TOKEN.use}", 64),
        ("guard --min-remaining TOKEN", 64),
        ("guard --unknown=TOKEN", 64),
        ("guard --window TOKEN", 69),
        ("guard --model TOKEN", 0),
        ("pick --model TOKEN --session TOKEN", 0),
        ("explain --model TOKEN", 0),
        ("run TOKEN", 64),
        ("run --TOKEN -- true", 64),
        ("run -- TOKEN", 127),
        ("pace --window TOKEN", 64),
        ("pace --svg /dev/null/TOKEN", 74),
        ("events -n TOKEN", 64),
        ("completions TOKEN", 64),
        ("parse TOKEN x", 64),
        ("parse anthropic TOKEN", 66),
        ("sim --port TOKEN", 64),
        ("explain --model TOKEN --json", 0),
        ("pick --model TOKEN --session TOKEN --json", 0),
        ("guard --window TOKEN --json", 69),
        ("guard --model TOKEN --json", 0),
        ("init --config /dev/null/TOKEN", 74),
        ("accounts add --TOKEN", 64),
        ("accounts set x --killswitch TOKEN", 64),
        ("accounts import TOKEN", 66),
        ("--config TOKEN status", 66),
        ("--config /TOKEN/x status", 66),
        ("--store TOKEN status", 78),
        ("--store TOKEN://x status", 78),
        ("--store sqlite:TOKEN status", 78),
        ("--store sqlite:///dev/null/TOKEN status", 78),
        ("--store redis://TOKEN status", 0),
    ] {
        let line = line.replace("TOKEN", TOKEN);

        let ended = machine.run(&line.split(' ').collect::<Vec<_>>());

        let output = ended.stdout + &ended.stderr;
        assert_eq!(ended.code, Some(code), "{line}: {output}");
        assert!(!output.contains("SECRET"), "{line}: {output}");
    }
}

#[test]
fn init_masks_a_token_given_as_a_path() {
    let (_provider, machine) = logged_in();
    for options in [&["--force"][..], &["--force", "--json"]] {
        let line = [&["init", "--config", TOKEN][..], options].concat();

        let ended = machine.run(&line);

        assert_eq!(ended.code, Some(0), "{line:?}: {}", ended.stderr);
        let output = ended.stdout + &ended.stderr;
        assert!(output.contains("***") && !output.contains("SECRET"), "{line:?}: {output}");
    }
}

#[test]
fn no_error_repeats_terminal_control_characters() {
    let (_provider, machine) = logged_in();
    for line in
        ["\u{1b}[2Jx", "--\u{1b}[2Jx", "guard --unknown \u{1b}[2Jx", "statusline --format {\u{1b}[2Jx}"]
    {
        let ended = machine.run(&line.split(' ').collect::<Vec<_>>());

        assert_eq!(ended.code, Some(64), "{line:?}");
        assert!(ended.stderr.contains("?[2Jx") && !ended.stderr.contains('\u{1b}'), "{:?}", ended.stderr);
    }
}

#[test]
fn internal_commands_are_not_suggested() {
    let machine = Machine::new();
    for word in ["refresh", "refresh-detach"] {
        let ended = machine.run(&[word]);

        assert_eq!(ended.code, Some(64));
        assert!(!ended.stderr.contains("detached"), "{}", ended.stderr);
    }
    let other = machine.run(&["stats"]);
    assert!(other.stderr.contains("'statusline', 'status'"), "{}", other.stderr);
}
