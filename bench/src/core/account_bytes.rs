//! The memory of an idle account, with a million of them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quota_core::{
    AccountId, FetchError, MemoryStore, Percent, Policy, ProviderId, QuotaManager, Usage, UsageFetcher, WindowId,
    WindowReading,
};

use crate::row::Row;

const ACCOUNTS: usize = 1_000_000;
const MOST: f64 = 1024.0;

/// What an account that is idle may have behind it, and what that is called in the table.
const STATES: [(&str, &str); 2] = [("known", "account.bytes.known"), ("read", "account.bytes")];

pub(crate) fn rows() -> Vec<Row> {
    STATES.iter().map(|(state, name)| row(state, name)).collect()
}

/// Measured in a process of its own, so that what others have allocated and freed does not count.
fn row(state: &str, name: &str) -> Row {
    let program = std::env::current_exe().expect("this program knows where it is");
    let output = Command::new(program).args(["--measure", "account.bytes", state]).output().expect("it can be started");
    let bytes: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(f64::NAN);
    Row::alone(name, (bytes, "bytes"), "≤ 1 KiB", bytes <= MOST)
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

/// Bytes per account: handles that are kept and not used. `known` accounts were never read; `read` ones have a reading of
/// two windows in the view and in the memory store, and are followed.
pub(crate) fn measure(state: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
    runtime.block_on(async {
        let policy = Policy::default().gap(Duration::ZERO).parallel(16);
        let policy = policy.recheck(Duration::from_millis(20));
        let quota =
            QuotaManager::builder_on(Arc::new(MemoryStore::new())).fetcher(Plain).policy(policy).build().expect("it is sound");
        let mut handles = Vec::with_capacity(ACCOUNTS);
        let before = resident_bytes();
        for account in 0..ACCOUNTS {
            let id: AccountId = format!("bench/account-{account:07}").parse().expect("a valid name");
            let handle = quota.account(&id);
            if state == "read" {
                drop(handle.get().await.expect("the provider answers"));
            }
            handles.push(handle);
        }
        let after = resident_bytes();
        (after - before) / ACCOUNTS as f64
    })
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or(f64::NAN) * 1024.0
}
