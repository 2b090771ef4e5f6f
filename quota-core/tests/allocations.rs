//! Checks that reads do not allocate. It is a separate file, because the counting allocator applies to the whole program.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use quota_core::testing::FakeProvider;
use quota_core::{Account, AccountId, MemoryStore, QuotaManager};

async fn account_just_read() -> Account {
    let quota = QuotaManager::builder(MemoryStore::new())
        .fetcher(FakeProvider::answering("example", 42.0))
        .build()
        .expect("the policy is valid");
    let account = quota.account(&"example/main".parse::<AccountId>().expect("a valid name"));
    let _ = account.get().await.expect("the provider responds");
    account
}

#[tokio::test(start_paused = true)]
async fn a_get_of_a_fresh_reading_allocates_nothing() {
    let account = account_just_read().await;

    let mut is_fresh = false;
    let counted = allocation_counter::measure(|| {
        let polled = pin!(account.get()).poll(&mut Context::from_waker(Waker::noop()));
        is_fresh = matches!(polled, Poll::Ready(Ok(usage)) if !usage.is_stale());
    });

    assert!(is_fresh);
    assert_eq!(counted.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_peek_allocates_nothing() {
    let account = account_just_read().await;

    let counted = allocation_counter::measure(|| drop(account.peek()));

    assert_eq!(counted.count_total, 0);
}
