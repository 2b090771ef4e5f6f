//! Many concurrent callers, in one process or in several, make only one call to the provider.

use std::sync::Arc;
use std::time::Duration;

use quota_sim::{Change, Window};
use tokio::task::JoinSet;

use crate::fixture::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_a_cold_account_make_one_call() {
    let simulator = provider([account("main").latency(Duration::from_millis(50))]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    let mut readers = JoinSet::new();
    for _ in 0..1000 {
        let main = main.clone();
        readers.spawn(async move { five_hours(&main.get().await.unwrap()) });
    }

    let read = within_deadline("all readers", readers.join_all()).await;

    let ledger = simulator.stop().await;
    assert_eq!((ledger.calls(), ledger.max_concurrent), (1, 1));
    assert!(read.iter().all(|used| *used == read[0] && used.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_on_one_store_make_one_call() {
    let simulator = provider([account("main").latency(Duration::from_millis(50))]).await;
    let store = memory();
    let processes: Vec<_> = (0..8).map(|_| process(&simulator, &store, tokens(["main"]), policy())).collect();
    let mut readers = JoinSet::new();
    for quota in &processes {
        for _ in 0..100 {
            let main = quota.account(&id("main"));
            readers.spawn(async move { five_hours(&main.get().await.unwrap()) });
        }
    }

    let read = within_deadline("all readers", readers.join_all()).await;

    let ledger = simulator.stop().await;
    assert_eq!(ledger.calls(), 1);
    assert!(read.iter().all(|used| *used == read[0] && used.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contending_processes_never_call_concurrently_and_always_agree() {
    const ROUNDS: u64 = 20;
    let simulator = provider([account("main").budget(None)]).await;
    let store = memory();
    let policy = policy().budget(quota::policy::Budget::new(1000, 0));
    let processes: Vec<_> =
        (0..8).map(|_| process(&simulator, &store, tokens(["main"]), policy.clone())).collect();

    for round in 0..ROUNDS {
        simulator.set("main", Change::used(Window::five_hour(), round as f64)).unwrap();
        let mut refreshes = JoinSet::new();
        for quota in &processes {
            let main = quota.account(&id("main"));
            refreshes.spawn(async move { five_hours(&main.refresh().await.unwrap().usage) });
        }

        let read = within_deadline("the round", refreshes.join_all()).await;

        assert!(read.iter().all(|used| *used == Some(round as f64)), "round {round}: {read:?}");
    }

    let ledger = simulator.stop().await;
    assert_eq!(ledger.max_concurrent, 1);
    assert!((ROUNDS..=ROUNDS * 8).contains(&ledger.calls()), "{}", ledger.calls());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_loop_stays_within_the_budget_and_is_never_throttled() {
    let simulator = provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));

    for _ in 0..200 {
        drop(main.refresh().await);
    }

    let ledger = simulator.stop().await;
    let main = ledger.account("main").unwrap();
    assert_eq!(main.answered(429), 0);
    assert!(main.calls <= 28, "{}", main.calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_of_one_provider_are_not_called_concurrently() {
    let names = ["a", "b", "c", "d", "e"];
    let simulator = provider(names.map(|name| account(name).latency(Duration::from_millis(20)))).await;
    let policy = policy().max_concurrent_calls(1).min_call_interval(Duration::from_millis(50));
    let quota = Arc::new(single_process(&simulator, tokens(names), policy));
    let mut readers = JoinSet::new();
    for name in names {
        let account = quota.account(&id(name));
        readers.spawn(async move { account.get().await.is_ok() });
    }

    let served = within_deadline("all accounts", readers.join_all()).await;

    let ledger = simulator.stop().await;
    assert!(served.into_iter().all(|served| served));
    assert_eq!(ledger.max_concurrent, 1);
    let arrivals = ledger.arrivals();
    let gaps = arrivals.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis());
    assert!(gaps.clone().all(|gap| gap >= 40), "{:?}", gaps.collect::<Vec<_>>());
}
