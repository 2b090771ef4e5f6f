//! Stores in a state that nobody wants: without their file, not to be written, or touched by a clock that was wrong.

use std::path::PathBuf;
use std::process::Command;

use quota_sim::{Account, Script, Window};

use super::program::{Ended, Machine, Provider, argument};

/// A machine with the usual store, and a provider that says 42 %.
struct World {
    provider: Provider,
    machine: Machine,
    config: String,
}

impl World {
    fn new(freshness: &str) -> Self {
        let windows = [Window::five_hour().used(42.0)];
        let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
        let (machine, config) = provider.configure(Machine::new());
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replacen("[policy]\n", &format!("[policy]\nfreshness = \"{freshness}\"\n"), 1);
        std::fs::write(&config, text).unwrap();
        let config = argument(&config).to_owned();
        Self { provider, machine, config }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command(arguments);
        command.args(["--config", &self.config]);
        command
    }

    fn file(&self) -> PathBuf {
        self.machine.path(".local/state/quota/quota.db")
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

#[test]
fn a_log_without_its_file_is_told_with_the_command_that_ends_it() {
    let world = World::new("5m");
    assert_eq!(world.run(&["status"]).code, Some(0));
    std::fs::remove_file(world.file()).unwrap();

    let told = [world.run(&["status"]), world.run(&["statusline"]), world.run(&["events"])];

    for ended in &told {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert_eq!((world.calls(), world.file().exists()), (1, false));
    let command = told[0].stderr.rsplit("run: ").next().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert_eq!(world.run(&["status"]).code, Some(0));
    assert_eq!(world.calls(), 2);
}
