//! Removing an account deletes its usage, and no other process restores it. Its hold and call budget stay.

use std::process::{Child, Stdio};

use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Ledger, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

const DATABASE: &str = ".local/state/quota/quota.db";

/// A machine with the account `spare`, which was added by `quota accounts add`.
fn setup(account: Account) -> (Provider, Machine) {
    let provider = Provider::play(Script::new([account]));
    let machine = Machine::new().set("SPARE", &provider.token());
    add(&provider, &machine);
    (provider, machine)
}

fn add(provider: &Provider, machine: &Machine) {
    let url = provider.url();
    let ended = machine.run(&["accounts", "add", "spare", "--token-env", "SPARE", "--base-url", &url]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

fn remove(machine: &Machine) -> Ended {
    machine.run(&["accounts", "remove", "spare"])
}

/// A document of the account in the shared store.
fn stored(machine: &Machine, key: &StoreKey) -> Option<String> {
    let url = format!("sqlite://{}", argument(&machine.path(DATABASE)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = runtime.block_on(async { quota::open_store(&url).unwrap().read(key).await }).unwrap();
    read.document.map(|document| String::from_utf8(document.body.to_vec()).unwrap())
}

fn record(machine: &Machine) -> Record {
    let key = StoreKey::account(&"anthropic/spare".parse().unwrap());
    Record::decode(stored(machine, &key).unwrap().as_bytes()).unwrap()
}

fn journal(machine: &Machine) -> Option<String> {
    stored(machine, &StoreKey::account_extension(&"anthropic/spare".parse().unwrap(), "journal"))
}

fn spare() -> Account {
    Account::new("spare").windows([Window::five_hour().used(42.0)])
}

#[test]
fn removing_an_account_deletes_its_usage_from_disk() {
    let (_provider, machine) = setup(spare());
    assert_eq!(machine.run(&["pick"]).code, Some(0));
    assert_eq!(record(&machine).snapshot().windows().len(), 1);
    assert!(journal(&machine).is_some_and(|journal| journal.contains("five_hour")));

    let removed = remove(&machine);

    assert_eq!((removed.code, &*removed.stderr), (Some(0), ""));
    assert_eq!(removed.stdout.lines().next(), Some("removed anthropic/spare"));
    assert!(record(&machine).snapshot().is_empty());
    assert!(journal(&machine).is_none_or(|journal| !journal.contains("five_hour")));
    let state = std::fs::read_to_string(machine.path(".local/state/quota/accounts.state.json"));
    assert!(state.is_ok_and(|state| !state.contains("spare")));
}

#[test]
fn a_refresh_during_a_removal_stores_nothing() {
    let (provider, machine) = setup(spare().latency(std::time::Duration::from_secs(2)));
    let refreshing = start(&machine, &["status"]);
    wait_until(&provider, |ledger| ledger.account("spare").is_some_and(|spare| spare.in_flight == 1));

    let removed = remove(&machine);
    let refreshed = Ended::of(refreshing.wait_with_output().unwrap());

    assert_eq!((removed.code, &*removed.stderr), (Some(0), ""));
    assert!(refreshed.stdout.contains("was removed while it was refreshed"), "{}", refreshed.stdout);
    assert!(record(&machine).snapshot().is_empty());
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn removing_and_adding_lifts_no_hold_and_resets_no_budget() {
    let (provider, machine) = setup(spare());
    provider.simulator.set("spare", Change::answer(Answer::ThrottleNoHeader)).unwrap();
    machine.run(&["status"]);

    assert_eq!(remove(&machine).code, Some(0));
    add(&provider, &machine);
    let status = machine.run(&["status", "--refresh", "--json"]).json();

    assert_eq!(status["accounts"][0]["hold"]["reason"], "rate_limited", "{status}");
    assert_eq!((provider.simulator.ledger().calls(), record(&machine).calls().len()), (1, 1));
}

#[test]
fn disabling_and_enabling_lifts_no_hold_and_resets_no_budget() {
    let (provider, machine) = setup(spare());
    provider.simulator.set("spare", Change::answer(Answer::ThrottleNoHeader)).unwrap();
    machine.run(&["status"]);

    assert_eq!(machine.run(&["accounts", "disable", "spare"]).code, Some(0));
    assert_eq!(machine.run(&["accounts", "enable", "spare"]).code, Some(0));
    let status = machine.run(&["status", "--refresh", "--json"]).json();

    assert_eq!(status["accounts"][0]["hold"]["reason"], "rate_limited", "{status}");
    assert_eq!((provider.simulator.ledger().calls(), record(&machine).calls().len()), (1, 1));
}

#[test]
fn without_the_store_the_removal_reports_what_remains() {
    let (_provider, machine) = setup(spare());

    let removed = machine.run(&["--store", "redis://127.0.0.1:1", "accounts", "remove", "spare"]);

    assert_eq!((removed.code, removed.stdout.lines().next()), (Some(1), Some("removed anthropic/spare")));
    assert!(
        removed.stderr.contains("could not remove the usage of anthropic/spare from the store"),
        "{}",
        removed.stderr
    );
    let listed = machine.run(&["accounts", "list", "--json"]).stdout;
    assert!(!listed.contains("spare"), "{listed}");
}

#[test]
fn an_account_given_twice_is_used_once() {
    let (_provider, machine) = setup(spare());
    let run = |command: &str, names: &[&str]| machine.run(&[&["accounts", command], names].concat());
    assert_eq!(run("add", &["other", "--token-env", "OTHER"]).code, Some(0));

    for (command, expected) in [
        ("disable", "disabled anthropic/spare\n"),
        ("enable", "enabled anthropic/spare\n"),
        ("order", "1 anthropic/spare\n2 anthropic/other\n"),
        ("remove", "removed anthropic/spare\n"),
    ] {
        let ended = run(command, &["spare", "anthropic/spare,spare"]);

        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), expected, ""), "{command}");
    }
}

fn start(machine: &Machine, arguments: &[&str]) -> Child {
    machine.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_until(provider: &Provider, condition: impl FnMut(&Ledger) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(provider.simulator.until(condition));
}
