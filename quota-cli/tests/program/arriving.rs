//! `quota status` on a terminal: each account is shown when its result arrives.

use quota_sim::{Account, Answer, Phase, Script, Window};
use rustix::process::{Pid, Signal, kill_process};

use super::program::{Machine, Provider, argument};
use super::pty::Pty;

const NAMES: [&str; 5] = ["main", "second", "third", "fourth", "fifth"];

/// Accounts of which the first does not answer.
fn provider() -> Provider {
    Provider::play(Script::new(NAMES.map(|name| {
        let account = Account::new(name).windows([Window::five_hour().used(42.0)]);
        if name == "main" { account.answers([Phase::new(Answer::Hang)]) } else { account }
    })))
}

/// Where no call ends by itself for as long as a test waits.
fn world(provider: &Provider) -> (Machine, String) {
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[policy]\n", "[policy]\nfetch_timeout = \"10m\"\n", 1);
    std::fs::write(&config, text).unwrap();
    (machine, argument(&config).to_owned())
}

#[test]
fn a_hanging_account_does_not_hide_the_others() {
    let provider = provider();
    let (machine, config) = world(&provider);
    let mut pty = Pty::new(80, 40);
    let mut status = pty.start(machine.command(&["status", "--config", &config]));

    let shown = pty.until("4 of 5 accounts");

    assert!(status.try_wait().unwrap().is_none(), "it still waits for the first");
    for name in &NAMES[1..] {
        assert!(shown.contains(&format!("anthropic/{name}")), "{name}: {shown:?}");
    }
    kill_process(Pid::from_child(&status), Signal::INT).unwrap();
    assert_eq!(status.wait().unwrap().code(), Some(130));
}

#[test]
fn the_final_order_is_that_of_the_configuration() {
    let provider = provider();
    let (machine, config) = world(&provider);
    let mut pty = Pty::new(80, 40);
    let mut status = pty.start(machine.command(&["status", "--config", &config]));
    pty.until("4 of 5 accounts");

    provider.simulator.set("main", quota_sim::Change::answer(Answer::Ok)).unwrap();

    assert_eq!(status.wait().unwrap().code(), Some(0));
    let rest = pty.rest();
    let (_, last) = rest.rsplit_once("\u{1b}[J").expect("what was there is written over");
    let places: Vec<_> = NAMES.iter().map(|name| last.find(&format!("anthropic/{name}"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{last:?}");
}
