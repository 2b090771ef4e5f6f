//! Commands use a store that several hosts share, and show the readings of other hosts.

use quota_sim::{Account, Script, Window};
use redis_harness::{Cluster, Server};

use super::support::{Ended, Machine, Provider, argument};

#[test]
fn every_command_uses_readings_of_another_host_from_redis() {
    let server = Server::start();
    let main = Account::new("main").windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([main]));
    let (first, config) = provider.configure(Machine::new());
    let refreshed = first.run(&["--store", &server.url(), "status", "--config", argument(&config)]);
    assert_eq!(refreshed.code, Some(0), "{}", refreshed.stderr);
    let url = server.url();
    let (second, config) = provider.configure(Machine::new());

    for (command, code, shown) in [
        (&["status"][..], 0, "42"),
        (&["status", "--offline", "--json"], 0, "42"),
        (&["statusline"], 0, "42"),
        (&["guard", "--json"], 0, "58"),
        // One reading is not enough for a trend.
        (&["pace"], 1, "42"),
        (&["budget"], 0, "1"),
        // The first reading of an account is not an event. `journal` tests the events of other processes.
        (&["events"], 0, ""),
        (&["doctor"], 0, "store"),
        (&["accounts", "list"], 0, "anthropic/main"),
        (&["pick"], 0, "anthropic/main"),
        (&["explain"], 0, "42"),
    ] {
        let arguments = [&["--store", &*url], command, &["--config", argument(&config)]].concat();

        let ended = second.run(&arguments);

        assert_eq!(ended.code, Some(code), "{command:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains(shown), "{command:?}: {}", ended.stdout);
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_command_without_the_store_warns_once() {
    let accounts = ["main", "work"].map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
    let provider = Provider::play(Script::new(accounts));

    for command in ["status", "guard", "pick", "explain"] {
        let (machine, config) = provider.configure(Machine::new());
        // No server listens on this port.
        let ended = machine.run(&["--store", "redis://127.0.0.1:1", command, "--config", argument(&config)]);

        let warnings: Vec<_> = ended.stderr.lines().collect();
        assert_eq!((ended.code, warnings.len()), (Some(0), 1), "{command}: {warnings:?}");
        assert!(warnings[0].contains("running without the shared store since "), "{command}: {warnings:?}");
    }
}

#[test]
fn a_cluster_node_given_as_a_server_url_gets_the_right_url() {
    let cluster = Cluster::start();
    let provider =
        Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]));

    for node in cluster.nodes() {
        let (machine, config) = provider.configure(Machine::new().set("QUOTA_STORE", &node.url()));

        let ended = ["status", "pick"].map(|command| machine.run(&[command, "--config", argument(&config)]));

        // One node holds the slot of this account, so that node alone would work for it.
        let has_account = cluster.nodes()[cluster.owner_of(cluster.slot_of(KEY))].port() == node.port();
        for ended in ended.iter().filter(|_| !has_account) {
            let url = node.url().replace("redis://", "redis+cluster://");
            // `pick` makes no call without a record, and repeats the reason.
            assert!(ended.stderr.contains(&url), "{}", ended.stderr);
        }
    }
}

const KEY: &str = "quota:1:{anthropic/main}";

#[test]
fn a_replica_is_a_read_only_store() {
    let master = Server::start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();
    let provider =
        Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]));
    let (machine, config) = provider.configure(Machine::new().set("QUOTA_STORE", &replica.url()));

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("read-only replica"), "{}", ended.stderr);
}

#[test]
fn a_statusline_on_a_cold_redis_starts_a_refresher() {
    let server = Server::start();
    let main = Account::new("main").windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([main]));
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

    assert_eq!((first.stdout.as_str(), first.stderr.as_str()), ("? no data\n", ""));
    assert_eq!(shown, "42% \n");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}
