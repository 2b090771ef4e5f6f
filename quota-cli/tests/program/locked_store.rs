//! A store file that another process locks for longer than a command waits.

use std::process::Stdio;

use quota::AccountId;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

#[test]
fn a_call_made_while_the_store_is_locked_is_counted() {
    let account = Account::new("main").windows([Window::five_hour().used(42.0)]);
    let provider = Provider::play(Script::new([account]));
    let (machine, config) = provider.configure(Machine::new());
    let path = machine.path("quota.db");
    let url = format!("sqlite://{}", path.display());
    // A short timeout keeps the test fast.
    let machine = machine.set("QUOTA_STORE", &format!("{url}?busy_ms=200"));
    assert_eq!(machine.run(&["status", "--config", argument(&config)]).code, Some(0));
    let lock = rusqlite::Connection::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut command = machine.command(&["status", "--max-age", "0s", "--config", argument(&config)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while provider.simulator.ledger().calls() == 1 {
        assert!(child.try_wait().unwrap().is_none(), "the command ended without a call");
        std::thread::yield_now();
    }
    lock.execute_batch("ROLLBACK").unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("another process holds the lock"), "{}", ended.stderr);
    // The file for outages has the call until a command reaches the store.
    assert_eq!((attempts(&url), machine.outage_files().len()), (1, 1));
    machine.change_outage(|outage| outage["retry_at_ms"] = 0.into());
    // The file belongs to the store whatever its timeouts.
    let merged = machine.run(&["--store", &url, "status", "--config", argument(&config)]);
    assert_eq!((merged.code, merged.stderr.as_str()), (Some(0), ""));
    assert_eq!((attempts(&url), machine.outage_files().len()), (2, 0));
}

fn attempts(url: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let account: AccountId = "anthropic/main".parse().unwrap();
    let found = runtime.block_on(async {
        quota::open_store(url).unwrap().read(&StoreKey::account(&account)).await.unwrap()
    });
    Record::decode(&found.document.unwrap().body).unwrap().calls().len()
}
