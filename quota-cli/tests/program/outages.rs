//! Commands while the shared store cannot be used: real processes, real servers, and the provider's ledger.
//! No test waits for the next attempt: it makes the attempt due in the file.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Script, Window};
use redis_harness::{Cluster, Proxy, Server, wait_until};

use super::support::{Ended, Machine, Provider, argument};

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Refused,
    Frozen,
    ReadOnly,
    /// A proxy that forwards every command and drops every response.
    BadProxy,
    /// A server whose responses arrive after the timeout of a command.
    Late,
    /// A server whose responses arrive an hour late, so that a wait for one never ends in a test.
    HourLate,
}

const COMMANDS: [&[&str]; 3] = [&["status"], &["guard"], &["pick"]];

/// A machine whose store is a Redis behind a proxy.
struct Env {
    provider: Provider,
    machine: Machine,
    config: String,
    server: Server,
    proxy: Proxy,
}

impl Env {
    fn new(policy: &str) -> Self {
        Self::of(["main"], policy)
    }

    fn of<const N: usize>(accounts: [&str; N], policy: &str) -> Self {
        let server = Server::start();
        let proxy = Proxy::new(server.port());
        let accounts = accounts.map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
        let provider = Provider::play(Script::new(accounts));
        let (machine, config) = provider.configure(Machine::new().set("QUOTA_STORE", &proxy.url()));
        let text =
            std::fs::read_to_string(&config).unwrap().replace("[policy]\n", &format!("[policy]\n{policy}\n"));
        std::fs::write(&config, text).unwrap();
        let config = argument(&config).to_owned();
        Self { provider, machine, config, server, proxy }
    }

    fn with(fault: Fault) -> Self {
        let mut env = Self::new("");
        env.begin(fault);
        env
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => self.server.kill(),
            Fault::Frozen => self.server.suspend(),
            // The master does not exist, so the server keeps its data and rejects writes.
            Fault::ReadOnly => self.server.command(&["REPLICAOF", "127.0.0.1", "1"]),
            Fault::BadProxy => self.proxy.drop_responses(usize::MAX),
            Fault::Late => self.proxy.delay_responses(Duration::from_millis(400)),
            Fault::HourLate => self.proxy.delay_responses(Duration::from_secs(3600)),
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => self.server.restart(),
            Fault::Frozen => self.server.resume(),
            Fault::ReadOnly => self.server.command(&["REPLICAOF", "NO", "ONE"]),
            Fault::BadProxy => self.proxy.drop_responses(0),
            Fault::Late | Fault::HourLate => self.proxy.restore(),
        }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.machine.command(&[arguments, &["--config", &self.config]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.start(arguments).wait_with_output().unwrap())
    }

    /// Runs this many processes at once. Each must succeed.
    fn run_at_once(&self, count: usize, arguments: &[&str]) {
        let children: Vec<_> = (0..count).map(|_| self.start(arguments)).collect();
        for child in children {
            let ended = Ended::of(child.wait_with_output().unwrap());
            assert_eq!(ended.code, Some(0), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        }
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.machine.outage_files()
    }

    /// Makes the next attempt to use the store due. With `unclaimed`, the lease of a killed process has expired.
    fn make_due(&self, unclaimed: bool) {
        self.machine.change_outage(|outage| {
            outage["retry_at_ms"] = 0.into();
            if unclaimed {
                outage["attempt"] = serde_json::json!({ "format": 1 });
            }
        });
    }

    fn is_claimed(&self) -> bool {
        self.machine.outage()["attempt"]["holder"].is_string()
    }

    /// The record in the shared store.
    fn shared_record(&self) -> Option<Record> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = StoreKey::account(&"anthropic/main".parse().unwrap());
        let read =
            runtime.block_on(async { quota::open_store(&self.server.url()).unwrap().read(&key).await });
        read.unwrap().document.map(|document| Record::decode(&document.body).unwrap())
    }
}

/// Twice sixteen processes of each command. The second ones find the file.
fn one_call_in_an_outage(fault: Fault) {
    for command in COMMANDS {
        let env = Env::with(fault);

        env.run_at_once(16, command);
        env.run_at_once(16, command);

        assert_eq!(env.calls(), 1, "{command:?}");
    }
}

#[test]
fn commands_share_one_call_while_connections_are_refused() {
    one_call_in_an_outage(Fault::Refused);
}

#[test]
fn commands_share_one_call_while_the_store_is_frozen() {
    one_call_in_an_outage(Fault::Frozen);
}

#[test]
fn commands_share_one_call_while_the_store_is_read_only() {
    one_call_in_an_outage(Fault::ReadOnly);
}

#[test]
fn commands_share_one_call_behind_a_bad_proxy() {
    one_call_in_an_outage(Fault::BadProxy);
}

#[test]
fn commands_share_one_call_while_responses_are_late() {
    one_call_in_an_outage(Fault::Late);
}

#[test]
fn no_command_waits_for_a_response_that_is_an_hour_late() {
    one_call_in_an_outage(Fault::HourLate);
}

#[test]
fn commands_share_one_call_on_a_store_that_is_slow_within_its_timeout() {
    for command in COMMANDS {
        let env = Env::new("store_timeout = \"60s\"");
        let url = format!("{}/?connect_ms=60000&response_ms=60000", env.proxy.url());
        let env = Env { machine: env.machine.set("QUOTA_STORE", &url), ..env };
        env.proxy.delay_responses(Duration::from_millis(300));

        env.run_at_once(16, command);

        assert_eq!((env.calls(), env.files().len()), (1, 0), "{command:?}");
    }
}

#[test]
fn commands_that_fail_closed_begin_no_outage() {
    let mut env = Env::new("on_store_unavailable = \"fail_closed\"");
    env.begin(Fault::Refused);

    for command in COMMANDS {
        env.run(command);
    }

    assert_eq!((env.calls(), env.files().len()), (0, 0));
}

#[test]
fn a_hold_armed_in_an_outage_binds_the_next_commands() {
    for fault in [Fault::Refused, Fault::Frozen, Fault::ReadOnly, Fault::BadProxy, Fault::Late] {
        let env = Env::with(fault);
        env.provider.simulator.set("main", Change::answer(Answer::ThrottleNoHeader)).unwrap();

        for command in COMMANDS.iter().cycle().take(10) {
            env.run(command);
        }
        env.run(&["status", "--refresh"]);

        let ledger = env.provider.simulator.ledger();
        assert_eq!((ledger.calls(), ledger.calls_during_hold()), (1, 0), "{fault:?}");
    }
}

#[test]
fn the_first_command_after_the_outage_merges_and_removes_the_file() {
    for fault in [Fault::Refused, Fault::Frozen, Fault::ReadOnly, Fault::BadProxy, Fault::Late] {
        let mut env = Env::with(fault);
        env.run(&["status"]);
        assert_eq!((env.calls(), env.files().len()), (1, 1), "{fault:?}");
        env.end(fault);
        env.make_due(false);

        let ended = env.run(&["status"]);

        assert_eq!((ended.code, ended.stderr.as_str(), env.files().len()), (Some(0), "", 0), "{fault:?}");
        assert_eq!(env.shared_record().unwrap().calls().len(), 1, "{fault:?}");
        let (host, config) = env.provider.configure(Machine::new().set("QUOTA_STORE", &env.server.url()));
        let elsewhere = host.run(&["status", "--config", argument(&config)]);
        assert!(elsewhere.stdout.contains("42 %"), "{}", elsewhere.stdout);
        assert_eq!(env.calls(), 1, "{fault:?}");
    }
}

#[test]
fn a_known_reading_stays_fresh_when_the_store_becomes_read_only() {
    let mut env = Env::of(["main", "other"], "");
    env.run(&["status"]);
    env.begin(Fault::ReadOnly);
    // The write of this refresh begins the outage. The file gets a copy of the other record.
    env.run(&["status", "--account", "other", "--max-age", "0s"]);
    assert_eq!(env.files().len(), 1);

    env.run_at_once(8, &["status"]);

    let ledger = env.provider.simulator.ledger();
    assert_eq!((ledger.accounts["main"].calls, ledger.accounts["other"].calls), (1, 2));
}

#[test]
fn readings_of_other_hosts_reach_a_machine_that_may_not_write() {
    let env = Env::of(["main", "other"], "");
    let () = env.server.command(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-set"]);
    let url = env.server.url().replace("redis://", "redis://reader:secret@");
    let (reader, config) = env.provider.configure(Machine::new().set("QUOTA_STORE", &url));
    let read = |arguments: &[&str]| reader.run(&[arguments, &["--config", argument(&config)]].concat());
    env.run(&["status"]);
    // The write of this refresh begins the outage.
    read(&["status", "--account", "other", "--max-age", "0s"]);
    assert_eq!(reader.outage_files().len(), 1);
    assert!(read(&["status", "--account", "main"]).stdout.contains("42 %"));
    env.provider.simulator.set("main", Change::used(Window::five_hour(), 55.0)).unwrap();
    env.run(&["status", "--account", "main", "--max-age", "0s"]);

    let shown = read(&["status", "--account", "main"]).stdout;

    assert!(shown.contains("55 %"), "{shown}");
    let ledger = env.provider.simulator.ledger();
    assert_eq!((ledger.accounts["main"].calls, ledger.accounts["other"].calls), (2, 2));
}

#[test]
fn a_dead_shard_keeps_only_its_accounts_from_the_store() {
    let mut cluster = Cluster::start();
    for node in cluster.nodes() {
        let () = node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let node_of = |key: &str| cluster.owner_of(cluster.slot_of(&format!("{{{key}}}")));
    // A node without the documents that all accounts share: the cooldown, and that of the check of the store.
    let dead_node = (0..3).find(|node| ["anthropic", "*"].iter().all(|key| node_of(key) != *node)).unwrap();
    let on_node = |node: usize| {
        let is_on = |name: &String| node_of(&format!("anthropic/{name}")) == node;
        (0..).map(|number| format!("account-{number}")).find(is_on).unwrap()
    };
    let [dead, healthy] = [dead_node, (dead_node + 1) % 3].map(on_node);
    let account = |name: &String| Account::new(name).windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([&dead, &healthy].map(account)));
    let machine = || provider.configure(Machine::new().set("QUOTA_STORE", &cluster.url()));
    let [(machine, config), (host, host_config)] = [machine(), machine()];
    // On a busy machine, a timeout of the other host would begin an outage of its own.
    let patient = std::fs::read_to_string(&host_config)
        .unwrap()
        .replace("[policy]\n", "[policy]\nstore_timeout = \"10s\"\n");
    std::fs::write(&host_config, patient).unwrap();
    let run = || machine.run(&["status", "--config", argument(&config)]);
    let calls = |name: &String| provider.simulator.ledger().accounts[name.as_str()].calls;
    cluster.nodes_mut()[dead_node].kill();
    run();
    assert_eq!(machine.outage_files().len(), 1);
    machine.change_outage(|outage| outage["retry_at_ms"] = 0.into());

    let ended = run();

    assert!(ended.stdout.matches("42 %").count() == 2, "{}", ended.stdout);
    assert!(ended.stderr.contains("without a part of the shared store since"), "{}", ended.stderr);
    let of_healthy = machine.run(&["status", "--account", &healthy, "--config", argument(&config)]);
    assert_eq!(of_healthy.stderr, "");
    let elsewhere = host.run(&["status", "--account", &healthy, "--config", argument(&host_config)]);
    assert_eq!((calls(&healthy), calls(&dead)), (1, 1), "{}{}", elsewhere.stdout, elsewhere.stderr);

    cluster.nodes_mut()[dead_node].restart();
    wait_until("the cluster is ok", || {
        cluster
            .nodes()
            .iter()
            .all(|node| node.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    machine.change_outage(|outage| outage["retry_at_ms"] = 0.into());
    run();
    assert!(machine.outage_files().is_empty());
    host.run(&["status", "--account", &dead, "--config", argument(&host_config)]);
    assert_eq!((calls(&healthy), calls(&dead)), (1, 1));
}

#[test]
fn an_attempt_of_a_killed_process_is_repeated_after_its_lease() {
    // A long timeout, so that the process is killed during its attempt.
    let mut env = Env::new("");
    env.begin(Fault::Refused);
    env.run(&["status"]);
    env.end(Fault::Refused);
    let config = std::fs::read_to_string(&env.config).unwrap();
    std::fs::write(&env.config, config.replace("[policy]\n", "[policy]\nstore_timeout = \"60s\"\n")).unwrap();
    env.begin(Fault::Frozen);
    env.make_due(false);
    let mut killed = env.start(&["status"]);
    while !env.is_claimed() {
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    let other = env.run(&["status"]);
    assert!(other.stdout.contains("42 %"), "{}", other.stdout);
    assert_eq!((env.calls(), env.files().len()), (1, 1));

    env.end(Fault::Frozen);
    env.make_due(true);
    assert_eq!(env.run(&["status"]).stderr, "");
    assert_eq!((env.calls(), env.files().len()), (1, 0));
    assert_eq!(env.shared_record().unwrap().calls().len(), 1);
}

#[test]
fn a_process_killed_between_merge_and_removal_loses_nothing() {
    let mut env = Env::with(Fault::Refused);
    env.run(&["status"]);
    env.end(Fault::Refused);
    env.make_due(false);
    // The removal needs the exclusive lock.
    let folder = File::open(env.machine.path(".local/state/quota")).unwrap();
    folder.lock_shared().unwrap();
    let mut killed = env.start(&["status"]);
    while env.shared_record().is_none() {
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    folder.unlock().unwrap();
    let merged = env.shared_record();
    assert_eq!(env.files().len(), 1);
    env.make_due(true);

    assert_eq!(env.run(&["status"]).stderr, "");

    assert_eq!((env.calls(), env.files().len()), (1, 0));
    assert_eq!(env.shared_record(), merged);
}

#[test]
fn status_doctor_and_events_report_the_outage() {
    let env = Env::with(Fault::Refused);

    let status = env.run(&["status"]);
    let again = env.run(&["status"]);
    let events = env.run(&["events"]);
    let doctor = env.run(&["doctor"]);

    for ended in [&status, &again, &events] {
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.starts_with("quota: running without the shared store since "),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("; next attempt in "), "{}", ended.stderr);
    }
    assert_eq!((status.code, events.code), (Some(0), Some(69)));
    assert!(doctor.stdout.contains("running without the shared store since "), "{}", doctor.stdout);
    assert!(doctor.stdout.contains("next attempt in "), "{}", doctor.stdout);
    assert!(doctor.stdout.contains("cannot be read"), "{}", doctor.stdout);
}

#[test]
fn a_password_in_the_url_is_neither_in_the_file_nor_in_its_name() {
    let env = Env::with(Fault::Refused);
    let url = env.proxy.url().replace("redis://", "redis://me:hunter2@");
    let machine = Machine::new().set("QUOTA_STORE", &url);
    let (machine, config) = env.provider.configure(machine);

    machine.run(&["status", "--config", argument(&config)]);

    let state = machine.path(".local/state/quota");
    assert_eq!(machine.outage_files().len(), 1);
    for entry in std::fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o077, 0, "{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{}", path.display());
    }
}

#[test]
fn a_statusline_in_an_outage_starts_one_refresher() {
    let env = Env::with(Fault::Refused);
    let line = || env.run(&["statusline", "--format", "{five_hour.used}"]);

    let shown = loop {
        let ended = line();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        if ended.stdout.contains('%') {
            break ended.stdout;
        }
    };

    assert_eq!((shown.as_str(), env.calls()), ("42%\n", 1));
}

/// Twice sixteen statuslines, and lines until one has numbers. All of them start one refresher.
fn one_call_by_statuslines(fault: Fault) {
    let env = Env::with(fault);
    let line = ["statusline", "--format", "{five_hour.used}"];

    env.run_at_once(16, &line);
    while !env.run(&line).stdout.contains('%') {}
    env.run_at_once(16, &line);

    assert_eq!((env.run(&line).stdout.as_str(), env.calls()), ("42%\n", 1), "{fault:?}");
}

#[test]
fn statuslines_at_once_share_one_call_while_connections_are_refused() {
    one_call_by_statuslines(Fault::Refused);
}

#[test]
fn statuslines_at_once_share_one_call_while_the_store_is_frozen() {
    one_call_by_statuslines(Fault::Frozen);
}

#[test]
fn statuslines_at_once_share_one_call_while_the_store_is_read_only() {
    one_call_by_statuslines(Fault::ReadOnly);
}

#[test]
fn statuslines_at_once_share_one_call_behind_a_bad_proxy() {
    one_call_by_statuslines(Fault::BadProxy);
}

#[test]
fn no_statusline_waits_for_a_response_that_is_an_hour_late() {
    one_call_by_statuslines(Fault::HourLate);
}

/// A machine whose default store file cannot be written.
fn machine_with_unusable_state() -> (Provider, Machine, String) {
    let main = Account::new("main").windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([main]));
    let (machine, config) = provider.configure(Machine::new());
    let state = machine.path(".local/state/quota");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    (provider, machine, argument(&config).to_owned())
}

#[test]
fn without_a_usable_state_folder_the_file_is_in_a_private_temporary_folder() {
    let (provider, machine, config) = machine_with_unusable_state();

    for command in [&["pick"][..], &["run", "--config", &config, "--", "true"], &["status"], &["guard"]] {
        let arguments =
            if command[0] == "run" { command.to_vec() } else { [command, &["--config", &config]].concat() };
        let ended = machine.run(&arguments);
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
    let folder = std::fs::read_dir(machine.temp()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert!(std::fs::read_dir(&folder).unwrap().count() >= 1);
}

#[test]
fn the_runtime_folder_precedes_the_temporary_one() {
    let (provider, machine, config) = machine_with_unusable_state();
    let runtime = machine.path("runtime");
    std::fs::create_dir(&runtime).unwrap();
    std::fs::set_permissions(&runtime, Permissions::from_mode(0o700)).unwrap();
    let machine = machine.set("XDG_RUNTIME_DIR", argument(&runtime));

    for _ in 0..2 {
        assert_eq!(machine.run(&["pick", "--config", &config]).code, Some(0));
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
    assert!(std::fs::read_dir(runtime.join("quota")).unwrap().count() >= 1);
}

#[test]
fn without_any_folder_only_a_forced_refresh_calls() {
    let (provider, machine, config) = machine_with_unusable_state();
    // A link in place of the private folder, as another user could plant it.
    let temp = machine.temp();
    let own = std::fs::metadata(temp).unwrap().uid();
    std::os::unix::fs::symlink(machine.path("."), temp.join(format!("quota-{own}"))).unwrap();

    for command in ["status", "guard", "pick"] {
        let ended = machine.run(&[command, "--config", &config]);
        assert!(ended.stderr.contains("only --refresh calls the provider"), "{command}: {}", ended.stderr);
    }
    assert_eq!(provider.simulator.ledger().calls(), 0);

    let refreshed = machine.run(&["status", "--refresh", "--config", &config]);
    assert!(refreshed.stdout.contains("42 %"), "{}", refreshed.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}
