//! The file that all processes of a user share, where nobody names another store.

use quota_sim::{Account, Script, Window};

use super::program::{Machine, Provider, argument};

const USUAL: &str = ".local/state/quota/quota.db";

fn provider() -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]))
}

#[test]
fn what_one_process_asked_the_next_one_knows() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());

    for _ in 0..2 {
        let ended = machine.run(&["status", "--config", argument(&config)]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
    assert!(machine.path(USUAL).exists());
}

#[test]
fn the_file_lies_where_the_state_of_programs_lies() {
    let provider = provider();
    let state = tempfile::tempdir().unwrap();
    // With what has a meaning in a URL.
    let folder = state.path().join("a b?#%20ü");
    let (machine, config) =
        provider.configure(Machine::new().set("XDG_STATE_HOME", folder.to_str().unwrap()));

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(folder.join("quota/quota.db").exists());
    assert!(!machine.path(USUAL).exists());
}

#[test]
fn a_file_that_cannot_be_used_is_told_in_one_line_and_left_as_it_is() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let path = machine.write(USUAL, "what somebody keeps there");
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    for command in [["status", "--config", argument(&config)], ["statusline", "--config", argument(&config)]]
    {
        let ended = machine.run(&command);

        assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""), "{command:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("damaged, or no database"), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"what somebody keeps there");
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_told_with_the_command_that_mends_it() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    machine.run(&["status", "--config", argument(&config)]);
    let path = machine.path(USUAL);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.trim_end().ends_with(&format!("run: chmod 600 {}", path.display())),
        "{}",
        ended.stderr
    );
}

#[test]
fn without_a_home_nothing_is_shared_and_it_says_so_once() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());

    let ended = super::program::Ended::of(
        machine.command(&["status", "--config", argument(&config)]).env_remove("HOME").output().unwrap(),
    );

    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr.matches("nothing is shared").count(), 1, "{}", ended.stderr);
}

#[test]
fn what_shares_nothing_touches_no_file() {
    let machine = Machine::new();

    machine.run(&["demo", "--seconds", "1", "--accounts", "1", "--consumers", "1"]);
    machine.run(&["parse", "anthropic", "nothing.json"]);

    assert!(!machine.path(".local").exists());
}
