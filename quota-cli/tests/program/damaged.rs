//! Documents that cannot be decoded, in a store that works: named, replaced only on request, and no reason not to share the rest.

use quota::AccountId;
use quota::record::Record;
use quota::store::{CasOutcome, StoreKey};
use quota_sim::{Account, Script, Window};
use redis_harness::Server;
use serde_json::json;

use super::program::{Ended, Machine, Provider, argument};

/// Two accounts, of which `main` has a damaged document.
struct World {
    provider: Provider,
    machine: Machine,
    config: String,
    store: String,
    _server: Option<Server>,
}

const DAMAGED: &str = "{\"format\":3,\"sna";

impl World {
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

    /// Puts this in the place of a document.
    fn lay(&self, key: &StoreKey, body: &'static str) {
        wait(async {
            let store = quota::open_store(&self.store).expect("the URL names a store");
            let version = store.read(key).await.expect("the store answers").version();
            let keep = std::time::Duration::from_secs(3600);
            let swap =
                store.compare_and_swap(key, version, body.into(), keep).await.expect("the store takes it");
            assert!(matches!(swap, CasOutcome::Applied(_)));
        });
    }

    fn stored(&self, key: &StoreKey) -> String {
        let read = wait(async {
            let store = quota::open_store(&self.store).expect("the URL names a store");
            store.read(key).await.expect("the store answers")
        });
        String::from_utf8(read.document.expect("there is one").body.to_vec()).expect("it is text")
    }

    /// The calls about the account with the damaged record.
    fn calls_about_main(&self) -> u64 {
        self.provider.simulator.ledger().accounts.get("main").map_or(0, |account| account.calls)
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime").block_on(work)
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
fn a_damaged_record_is_named_and_left_and_the_other_account_is_shared() {
    for world in [World::on_sqlite(), World::on_redis()] {
        world.lay(&record(), DAMAGED);

        let status = world.run(&["status"]);
        let line = world.run(&["statusline", "--account", "anthropic/main"]);

        assert_eq!((status.code, status.stderr.lines().count()), (Some(1), 1), "{}", status.stderr);
        assert!(status.stderr.starts_with("quota: a stored record is damaged, "), "{}", status.stderr);
        assert_eq!((line.stdout.as_str(), world.calls()), ("record damaged\n", 1));
        assert_eq!(world.stored(&record()), DAMAGED);
        let shown = world.run(&["status", "--json", "--offline"]).json();
        assert_eq!(shown["accounts"][0]["reason"], "record_damaged", "{shown}");
        assert_eq!(shown["accounts"][1]["state"], "fresh", "{shown}");
    }
}

#[test]
fn only_a_refresh_calls_the_provider_without_a_usable_record() {
    let world = World::on_sqlite();
    world.lay(&record(), DAMAGED);

    let status = world.run(&["status", "--account", "main"]);
    let guard = world.run(&["guard", "--account", "main"]);
    assert_eq!((status.code, guard.code, world.calls_about_main()), (Some(1), Some(69), 0));
    assert!(status.stdout.contains("only --refresh"), "{}", status.stdout);

    let refreshed = world.run(&["status", "--refresh", "--account", "main"]);
    assert_eq!((refreshed.code, world.calls_about_main()), (Some(0), 1), "{}", refreshed.stdout);
}

#[test]
fn a_statusline_starts_no_refresher_that_could_store_nothing() {
    let world = World::on_sqlite();
    world.lay(&record(), DAMAGED);

    world.run(&["statusline", "--account", "anthropic/main"]);

    let claim = StoreKey::account_extension(&main(), "refresher");
    let read = wait(async { quota::open_store(&world.store).unwrap().read(&claim).await.unwrap() });
    assert_eq!(read.document, None);
}

#[test]
fn doctor_names_the_command_that_replaces_a_damaged_record() {
    for world in [World::on_sqlite(), World::on_redis()] {
        world.lay(&record(), DAMAGED);

        let doctor = world.run(&["doctor"]);

        assert_eq!(doctor.code, Some(1));
        let advice = "quota accounts clear-hold anthropic/main";
        assert!(doctor.stdout.contains("its record is damaged"), "{}", doctor.stdout);
        assert!(doctor.stdout.contains(advice), "{}", doctor.stdout);
        let cleared = world.run(&["accounts", "clear-hold", "anthropic/main"]);
        assert_eq!(
            (cleared.code, &*cleared.stdout, &*cleared.stderr),
            (Some(0), "replaced the damaged record of anthropic/main\n", "")
        );
        assert!(Record::decode(world.stored(&record()).as_bytes()).is_ok());
        for calls in [2, 2] {
            assert_eq!((world.run(&["status"]).code, world.calls()), (Some(0), calls));
        }
    }
}

#[test]
fn a_record_of_a_newer_format_is_named_and_not_replaced() {
    const NEWER: &str = "{\"format\":999,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let world = World::on_sqlite();
    world.lay(&record(), NEWER);

    let doctor = world.run(&["doctor"]);
    let cleared = world.run(&["accounts", "clear-hold", "anthropic/main"]);

    assert!(doctor.stdout.contains("written by a newer version of quota"), "{}", doctor.stdout);
    assert_eq!((cleared.code, &*cleared.stdout), (Some(78), ""));
    assert!(cleared.stderr.contains("newer"), "{}", cleared.stderr);
    assert_eq!(world.stored(&record()), NEWER);
}

#[test]
fn commands_that_read_the_journal_go_on_with_the_other_accounts() {
    let world = World::on_redis();
    assert_eq!(world.run(&["status"]).code, Some(0));
    world.lay(&record(), DAMAGED);

    for (command, code) in [("events", 0), ("budget", 1), ("pace", 1)] {
        let ended = world.run(&[command]);

        assert_eq!(ended.code, Some(code), "{command}: {}", ended.stderr);
        assert!(command == "events" || ended.stdout.contains("anthropic/spare"), "{}", ended.stdout);
        let advice = format!("quota accounts clear-hold anthropic/main --config {}", world.config);
        let line = format!("quota: the record of anthropic/main is damaged; replace it: {advice}\n");
        assert_eq!(ended.stderr, line, "{command}");
    }
}

#[test]
fn a_damaged_journal_is_named_once_and_a_new_one_begins() {
    let world = World::on_redis();
    assert_eq!(world.run(&["status"]).code, Some(0));

    for command in ["events", "budget", "pace", "status"] {
        world.lay(&journal(), DAMAGED);

        let (first, second) = (world.run(&[command]), world.run(&[command]));

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
fn a_journal_of_a_newer_format_is_left() {
    const NEWER: &str = "{\"format\":999,\"events\":\"otherwise\"}";
    let world = World::on_redis();
    assert_eq!(world.run(&["status"]).code, Some(0));
    world.lay(&journal(), NEWER);

    for command in ["events", "budget", "pace", "status"] {
        let ended = world.run(&[command]);

        let is_named = ended.stderr.contains("the journal of anthropic/main was written by a newer quota");
        assert_eq!(is_named, command != "status", "{command}: {}", ended.stderr);
        assert_eq!(world.stored(&journal()), NEWER, "{command}");
    }
}

#[test]
fn an_account_with_a_damaged_record_is_left_out_of_the_budget() {
    let world = World::on_sqlite();
    assert_eq!(world.run(&["status"]).code, Some(0));
    world.lay(&record(), DAMAGED);

    let budget = world.run(&["budget", "--json"]).json();

    let accounts: Vec<_> =
        budget["accounts"].as_array().unwrap().iter().map(|account| &account["account"]).collect();
    assert_eq!(accounts, [&json!("anthropic/spare")]);
}
