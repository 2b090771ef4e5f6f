//! Documents that cannot be decoded, in a store that works. Commands report them, replace a record only on request, and still use
//! the other documents.

use std::process::{Child, Stdio};

use quota::AccountId;
use quota::record::Record;
use quota::store::{CasOutcome, StoreKey};
use quota_sim::{Account, Script, Window};
use redis_harness::Server;
use serde_json::json;

use super::support::{Ended, Machine, Provider, argument};

/// Two accounts. The tests damage a document of `main`.
struct Env {
    provider: Provider,
    machine: Machine,
    config: String,
    store: String,
    _server: Option<Server>,
}

const DAMAGED: &str = "{\"format\":3,\"sna";

impl Env {
    fn on_sqlite() -> Self {
        let machine = Machine::new();
        let store = format!("sqlite://{}", machine.path("quota.db").display());
        Self::new(machine, store, None)
    }

    fn on_redis() -> Self {
        let server = Server::start();
        Self::new(Machine::new(), server.url(), Some(server))
    }

    fn new(machine: Machine, store: String, server: Option<Server>) -> Self {
        let account = |name| Account::new(name).windows([Window::five_hour().used(42.0)]);
        let provider = Provider::play(Script::new([account("main"), account("spare")]));
        let (machine, config) = provider.configure(machine);
        let config = argument(&config).to_owned();
        Self { provider, machine: machine.set("QUOTA_STORE", &store), config, store, _server: server }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.machine.run(&[arguments, &["--config", &self.config]].concat())
    }

    /// Runs this many processes at once.
    fn run_at_once(&self, count: usize, arguments: &[&str]) -> Vec<Ended> {
        let start = |_| {
            let mut command = self.machine.command(&[arguments, &["--config", &self.config]].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program exists")
        };
        let children: Vec<_> = (0..count).map(start).collect();
        let output = |child: Child| Ended::of(child.wait_with_output().expect("the process ends"));
        children.into_iter().map(output).collect()
    }

    /// Replaces a document with `body`.
    fn write_document(&self, key: &StoreKey, body: &'static str) {
        wait(async {
            let store = quota::open_store(&self.store).expect("the URL is valid");
            let version = store.read(key).await.expect("the store answers").version();
            let ttl = std::time::Duration::from_secs(3600);
            let swap = store
                .compare_and_swap(key, version, body.into(), ttl)
                .await
                .expect("the store accepts the write");
            assert!(matches!(swap, CasOutcome::Applied(_)));
        });
    }

    fn stored(&self, key: &StoreKey) -> String {
        let read = wait(async {
            let store = quota::open_store(&self.store).expect("the URL is valid");
            store.read(key).await.expect("the store answers")
        });
        String::from_utf8(read.document.expect("the document exists").body.to_vec()).expect("it is text")
    }

    /// The number of calls for the account with the damaged record.
    fn calls_about_main(&self) -> u64 {
        self.provider.simulator.ledger().accounts.get("main").map_or(0, |account| account.calls)
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(work)
}

fn main() -> AccountId {
    "anthropic/main".parse().expect("a name")
}

fn record() -> StoreKey {
    StoreKey::account(&main())
}

fn journal() -> StoreKey {
    StoreKey::account_extension(&main(), "journal")
}

#[test]
fn a_damaged_record_is_reported_and_other_accounts_still_work() {
    for env in [Env::on_sqlite(), Env::on_redis()] {
        env.write_document(&record(), DAMAGED);

        let status = env.run(&["status"]);
        let line = env.run(&["statusline", "--account", "anthropic/main"]);

        assert_eq!((status.code, status.stderr.lines().count()), (Some(1), 1), "{}", status.stderr);
        assert!(status.stderr.starts_with("quota: a stored record is damaged, "), "{}", status.stderr);
        assert_eq!((line.stdout.as_str(), env.calls()), ("record damaged\n", 1));
        assert_eq!(env.stored(&record()), DAMAGED);
        let shown = env.run(&["status", "--json", "--offline"]).json();
        assert_eq!(shown["accounts"][0]["reason"], "record_damaged", "{shown}");
        assert_eq!(shown["accounts"][1]["state"], "fresh", "{shown}");
    }
}

#[test]
fn only_a_refresh_calls_the_provider_without_a_usable_record() {
    let env = Env::on_sqlite();
    env.write_document(&record(), DAMAGED);

    let status = env.run(&["status", "--account", "main"]);
    let guard = env.run(&["guard", "--account", "main"]);
    assert_eq!((status.code, guard.code, env.calls_about_main()), (Some(1), Some(69), 0));
    assert!(status.stdout.contains("use --refresh to call"), "{}", status.stdout);

    let refreshed = env.run(&["status", "--refresh", "--account", "main"]);
    assert_eq!((refreshed.code, env.calls_about_main()), (Some(0), 1), "{}", refreshed.stdout);
}

#[test]
fn commands_at_once_call_only_for_the_accounts_without_damage() {
    for env in [Env::on_sqlite(), Env::on_redis()] {
        for (command, code) in [("status", 1), ("guard", 69), ("pick", 0)] {
            env.write_document(&record(), DAMAGED);

            for ended in env.run_at_once(16, &[command]) {
                assert_eq!(ended.code, Some(code), "{command}: {}{}", ended.stdout, ended.stderr);
                assert!(command != "pick" || ended.stdout == "anthropic/spare\n", "{}", ended.stdout);
            }

            assert_eq!((env.calls_about_main(), env.calls()), (0, 1), "{command}");
            assert_eq!(env.stored(&record()), DAMAGED, "{command}");
        }
    }
}

#[test]
fn a_statusline_starts_no_refresher_for_a_damaged_record() {
    let env = Env::on_sqlite();
    env.write_document(&record(), DAMAGED);

    env.run(&["statusline", "--account", "anthropic/main"]);

    let claim = StoreKey::account_extension(&main(), "refresher");
    let read = wait(async { quota::open_store(&env.store).unwrap().read(&claim).await.unwrap() });
    assert_eq!(read.document, None);
}

#[test]
fn doctor_names_the_command_that_replaces_a_damaged_record() {
    for env in [Env::on_sqlite(), Env::on_redis()] {
        env.write_document(&record(), DAMAGED);

        let doctor = env.run(&["doctor"]);

        assert_eq!(doctor.code, Some(1));
        let advice = "quota accounts clear-hold anthropic/main";
        assert!(doctor.stdout.contains("its record is damaged"), "{}", doctor.stdout);
        assert!(doctor.stdout.contains(advice), "{}", doctor.stdout);
        let cleared = env.run(&["accounts", "clear-hold", "anthropic/main"]);
        assert_eq!(
            (cleared.code, &*cleared.stdout, &*cleared.stderr),
            (Some(0), "replaced the damaged record of anthropic/main\n", "")
        );
        assert!(Record::decode(env.stored(&record()).as_bytes()).is_ok());
        for calls in [2, 2] {
            assert_eq!((env.run(&["status"]).code, env.calls()), (Some(0), calls));
        }
    }
}

#[test]
fn a_record_in_a_newer_format_is_reported_and_not_replaced() {
    const NEWER: &str = "{\"format\":999,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let env = Env::on_sqlite();
    env.write_document(&record(), NEWER);

    let doctor = env.run(&["doctor"]);
    let cleared = env.run(&["accounts", "clear-hold", "anthropic/main"]);

    assert!(doctor.stdout.contains("a newer version of quota wrote its record"), "{}", doctor.stdout);
    assert_eq!((cleared.code, &*cleared.stdout), (Some(78), ""));
    assert!(cleared.stderr.contains("newer"), "{}", cleared.stderr);
    assert_eq!(env.stored(&record()), NEWER);
}

#[test]
fn journal_commands_show_the_accounts_without_damage() {
    let env = Env::on_redis();
    assert_eq!(env.run(&["status"]).code, Some(0));
    env.write_document(&record(), DAMAGED);

    for (command, code) in [("events", 0), ("budget", 1), ("pace", 1)] {
        let ended = env.run(&[command]);

        assert_eq!(ended.code, Some(code), "{command}: {}", ended.stderr);
        assert!(command == "events" || ended.stdout.contains("anthropic/spare"), "{}", ended.stdout);
        let advice = format!("quota accounts clear-hold anthropic/main --config {}", env.config);
        let line = format!("quota: the record of anthropic/main is damaged; replace it with: {advice}\n");
        assert_eq!(ended.stderr, line, "{command}");
    }
}

#[test]
fn a_damaged_journal_is_reported_once_and_replaced() {
    let env = Env::on_redis();
    assert_eq!(env.run(&["status"]).code, Some(0));

    for command in ["events", "budget", "pace", "status"] {
        env.write_document(&journal(), DAMAGED);

        let (first, second) = (env.run(&[command]), env.run(&[command]));

        assert_ne!(first.code, Some(69), "{command}");
        assert_eq!(
            first.stderr,
            "quota: replaced the journal of anthropic/main, which was damaged or of an older version; its past events are lost\n",
            "{command}"
        );
        assert!(!second.stderr.contains("damaged"), "{command}: {}", second.stderr);
    }
}

#[test]
fn a_journal_in_a_newer_format_is_unchanged() {
    const NEWER: &str = "{\"format\":999,\"events\":\"otherwise\"}";
    let env = Env::on_redis();
    assert_eq!(env.run(&["status"]).code, Some(0));
    env.write_document(&journal(), NEWER);

    for command in ["events", "budget", "pace", "status"] {
        let ended = env.run(&[command]);

        let is_named = ended.stderr.contains("the journal of anthropic/main was written by a newer quota");
        assert_eq!(is_named, command != "status", "{command}: {}", ended.stderr);
        assert_eq!(env.stored(&journal()), NEWER, "{command}");
    }
}

#[test]
fn the_budget_omits_an_account_with_a_damaged_record() {
    let env = Env::on_sqlite();
    assert_eq!(env.run(&["status"]).code, Some(0));
    env.write_document(&record(), DAMAGED);

    let budget = env.run(&["budget", "--json"]).json();

    let accounts: Vec<_> =
        budget["accounts"].as_array().unwrap().iter().map(|account| &account["account"]).collect();
    assert_eq!(accounts, [&json!("anthropic/spare")]);
}
