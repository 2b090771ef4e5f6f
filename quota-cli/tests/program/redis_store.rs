//! Every command on a store that is reached over the network.

use quota_sim::{Account, Script, Window};
use redis_harness::Server;

use super::program::{Ended, Machine, Provider, argument};

fn provider() -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]))
}

#[test]
fn every_command_that_uses_a_store_works_on_redis() {
    let server = Server::start();
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let url = server.url();
    let run = |arguments: &[&str]| {
        let (before, after) = (["--store", &url], ["--config", argument(&config)]);
        machine.run(&[&before, arguments, &after].concat())
    };
    assert_eq!(run(&["status"]).code, Some(0));

    for (arguments, code, told) in [
        (&["status", "--offline"][..], 0, "42 %"),
        (&["statusline", "--format", "{five_hour.used} {state}"], 0, "42% fresh"),
        (&["guard", "--json"], 0, r#""go":true"#),
        (&["events", "--json"], 0, ""),
        (&["budget"], 0, "anthropic/main"),
        (&["pace"], 1, "42 % used"),
    ] {
        let ended = run(arguments);

        assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""), "{arguments:?}: {}", ended.stdout);
        assert!(ended.stdout.contains(told), "{arguments:?}: {}", ended.stdout);
    }
    let doctor = run(&["doctor", "--json"]).json();
    let found = doctor["checks"].as_array().unwrap().iter().find(|check| check["area"] == "store").unwrap();
    assert_eq!(found["told"], "can be read and written", "{doctor}");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_statusline_on_a_cold_redis_has_somebody_ask() {
    let server = Server::start();
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new().set("QUOTA_STORE", &server.url()));
    let line = || {
        let arguments = ["statusline", "--format", "{five_hour.used} {stale}", "--config", argument(&config)];
        Ended::of(machine.command(&arguments).output().unwrap())
    };

    let first = line();
    let shown = loop {
        let ended = line();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        if ended.stdout.contains('%') {
            break ended.stdout;
        }
    };

    assert_eq!((first.stdout.as_str(), first.stderr.as_str()), ("? no number yet\n", ""));
    assert_eq!(shown, "42% \n");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}
