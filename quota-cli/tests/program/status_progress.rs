//! `quota status` on a terminal: each account is shown when its result arrives.

use quota_sim::{Account, Answer, Phase, Script, Window};
use rustix::process::{Pid, Signal, kill_process};

use super::pty::Pty;
use super::support::{Machine, Provider, argument};

const NAMES: [&str; 5] = ["main", "second", "third", "fourth", "fifth"];

/// Five accounts. Calls for the first one hang.
fn provider() -> Provider {
    Provider::play(Script::new(NAMES.map(|name| {
        let account = Account::new(name).windows([Window::five_hour().used(42.0)]);
        if name == "main" { account.answers([Phase::new(Answer::Hang)]) } else { account }
    })))
}

/// A machine with a fetch timeout that is longer than the test.
fn setup(provider: &Provider) -> (Machine, String) {
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[policy]\n", "[policy]\nfetch_timeout = \"10m\"\n", 1);
    std::fs::write(&config, text).unwrap();
    (machine, argument(&config).to_owned())
}

#[test]
fn accounts_with_a_result_are_shown_while_another_hangs() {
    let provider = provider();
    let (machine, config) = setup(&provider);
    let mut pty = Pty::new(80, 40);
    let mut status = pty.start(machine.command(&["status", "--config", &config]));

    let shown = pty.until("4 of 5 accounts");

    assert!(status.try_wait().unwrap().is_none(), "it still waits for the first account");
    for name in &NAMES[1..] {
        assert!(shown.contains(&format!("anthropic/{name}")), "{name}: {shown:?}");
    }
    kill_process(Pid::from_child(&status), Signal::INT).unwrap();
    assert_eq!(status.wait().unwrap().code(), Some(130));
}

#[test]
fn the_final_output_is_in_configuration_order() {
    let provider = provider();
    let (machine, config) = setup(&provider);
    let mut pty = Pty::new(80, 40);
    let mut status = pty.start(machine.command(&["status", "--config", &config]));
    pty.until("4 of 5 accounts");

    provider.simulator.set("main", quota_sim::Change::answer(Answer::Ok)).unwrap();

    assert_eq!(status.wait().unwrap().code(), Some(0));
    let rest = pty.rest();
    let (_, last) = rest.rsplit_once("\u{1b}[J").expect("the progress output is cleared");
    let places: Vec<_> = NAMES.iter().map(|name| last.find(&format!("anthropic/{name}"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{last:?}");
}
