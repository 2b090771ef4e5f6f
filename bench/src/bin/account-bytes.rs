//! Counts the bytes of an idle account: `account-bytes unread|read|stored`.
//!
//! `unread` is a handle that was never read. `read` is a handle, with a reading of two windows in the view and in the memory
//! store. `stored` is only the documents of that store. The count includes the bytes that are allocated and not freed, without
//! the overhead of the allocator.
#![expect(clippy::print_stdout, reason = "the figure is printed")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::store::StoreKey;
use quota_core::{
    AccountId, Clock, Credential, FetchError, MemoryStore, Percent, Policy, ProviderId, QuotaManager,
    QuotaStore, UsageFetcher, UsageReport, WindowId, WindowReading,
};

const ACCOUNTS: usize = 1_000_000;

/// After this time without a read, the manager no longer follows an account.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Plain;

#[async_trait]
impl UsageFetcher for Plain {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, _account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let windows = [WindowId::five_hour(), WindowId::seven_day()];
        let length = Duration::from_secs(5 * 3600);
        Ok(UsageReport::polled(windows.map(|id| WindowReading::new(id, Percent::ZERO).length(length))))
    }
}

fn main() {
    let state = std::env::args().nth(1).unwrap_or_default();
    let counted = allocation_counter::measure(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime can be built");
        let filled = runtime.block_on(fill(&state));
        std::mem::forget((runtime, filled));
    });
    println!("{:.0}", counted.bytes_current as f64 / ACCOUNTS as f64);
}

/// Creates a million accounts in this state, and waits until no task is running.
async fn fill(state: &str) -> impl Sized {
    let policy = Policy::default()
        .min_call_interval(Duration::ZERO)
        .max_concurrent_calls(16)
        .poll_interval(POLL_INTERVAL);
    let store = Arc::new(MemoryStore::new());
    let of_manager = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let quota =
        QuotaManager::builder(of_manager).fetcher(Plain).policy(policy).build().expect("the policy is valid");
    let sample = quota.account(&id(ACCOUNTS));
    drop(sample.get().await.expect("the provider responds"));
    let read = store.read(&StoreKey::account(sample.id())).await.expect("the memory store does not fail");
    let document = read.document.expect("the record was written").body;

    let mut handles = Vec::with_capacity(if state == "stored" { 0 } else { ACCOUNTS });
    for account in 0..ACCOUNTS {
        if state == "stored" {
            let key = StoreKey::account(&id(account));
            let swap = store
                .compare_and_swap(&key, None, Bytes::copy_from_slice(&document), Duration::from_secs(3600))
                .await;
            let _ = swap.expect("the memory store does not fail");
            continue;
        }
        let handle = quota.account(&id(account));
        if state == "read" {
            drop(handle.get().await.expect("the provider responds"));
        }
        handles.push(handle);
    }
    Clock::system().sleep(POLL_INTERVAL * 20).await;
    (quota, store, handles)
}

fn id(account: usize) -> AccountId {
    format!("bench/account-{account:07}").parse().expect("a valid name")
}
