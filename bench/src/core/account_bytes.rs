//! The memory of an idle account, with a million of them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{
    AccountId, FetchError, MemoryStore, Percent, Policy, ProviderId, QuotaManager, QuotaStore, StoreKey,
    Usage, UsageFetcher, WindowId, WindowReading,
};

use crate::row::Row;

const ACCOUNTS: usize = 1_000_000;
const MOST: f64 = 1024.0;

pub(crate) fn rows() -> Vec<Row> {
    let (known, stored, read) = (in_own_process("known"), in_own_process("stored"), in_own_process("read"));
    let own = read - stored;
    vec![
        Row::alone("account.bytes", (own, "bytes"), "≤ 1 KiB", own <= MOST),
        Row::alone("account.bytes.never_read", (known, "bytes"), "≤ 1 KiB", known <= MOST),
        // With another store this is elsewhere: on a disk, in a server.
        Row::alone("account.bytes.memory_store", (stored, "bytes"), "reported", true),
    ]
}

/// Measured in a process of its own, so that what others have allocated and freed does not count.
fn in_own_process(state: &str) -> f64 {
    let program = std::env::current_exe().expect("this program knows where it is");
    let output = Command::new(program)
        .args(["--measure", "account.bytes", state])
        .output()
        .expect("it can be started");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(f64::NAN)
}

#[derive(Debug)]
struct Plain;

#[async_trait]
impl UsageFetcher for Plain {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, _account: &AccountId) -> Result<Usage, FetchError> {
        let windows = [WindowId::five_hour(), WindowId::seven_day()];
        let length = Duration::from_secs(5 * 3600);
        Ok(Usage::polled(windows.map(|id| WindowReading::new(id, Percent::ZERO).length(length))))
    }
}

/// Bytes per account that is not in use. `known`: a handle, never read. `read`: a handle, and a reading of two windows in
/// the view and in the memory store. `stored`: the documents of that store alone.
pub(crate) fn measure(state: &str) -> f64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
    runtime.block_on(async {
        // An account is followed for as long as it is looked at; here that is over soon.
        let policy = Policy::default().gap(Duration::ZERO).parallel(16).recheck(Duration::from_millis(20));
        let store = Arc::new(MemoryStore::new());
        let of_manager = Arc::clone(&store) as Arc<dyn QuotaStore>;
        let quota =
            QuotaManager::builder_on(of_manager).fetcher(Plain).policy(policy).build().expect("it is sound");
        let sample = quota.account(&id(ACCOUNTS));
        drop(sample.get().await.expect("the provider answers"));
        let read = store.read(&StoreKey::account(sample.id())).await.expect("memory does not fail");
        let document = read.document.expect("it was written").body;

        let mut handles = Vec::with_capacity(ACCOUNTS);
        let before = resident_bytes();
        for account in 0..ACCOUNTS {
            if state == "stored" {
                let body = Bytes::from(document.to_vec().into_boxed_slice());
                let key = StoreKey::account(&id(account));
                let swap = store.swap(&key, None, body, Duration::from_secs(3600)).await;
                let _ = swap.expect("memory does not fail");
                continue;
            }
            let handle = quota.account(&id(account));
            if state == "read" {
                drop(handle.get().await.expect("the provider answers"));
            }
            handles.push(handle);
        }
        (resident_bytes() - before) / ACCOUNTS as f64
    })
}

fn id(account: usize) -> AccountId {
    format!("bench/account-{account:07}").parse().expect("a valid name")
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or(f64::NAN) * 1024.0
}
