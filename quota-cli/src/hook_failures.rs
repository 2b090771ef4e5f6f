//! Failures of hooks on this machine. The process that runs hooks has no terminal, so it saves its failures in a file. The next
//! command reports each one once, and removes it from the file.

use jiff::Timestamp;
use quota::Clock;
use quota::file::{FileError, JsonContent, JsonFile};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::format::{ago, between};

/// Older failures are dropped. Otherwise a hook that fails for each event could fill the disk.
const MAX_FAILURES: usize = 20;

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HookFailureReport {
    pub(crate) at: Timestamp,
    /// The hook, its event and the cause. It contains no command output and no URL.
    pub(crate) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    failures: Vec<HookFailureReport>,
}

impl Default for Content {
    fn default() -> Self {
        Self { version: Self::VERSION, failures: Vec::new() }
    }
}

impl JsonContent for Content {
    const VERSION: u32 = 1;

    fn version(&self) -> u32 {
        self.version
    }
}

/// The file with the failures. `None` without a home directory; the failures are then lost.
fn file() -> Option<JsonFile> {
    let folder = config::directory("XDG_STATE_HOME", &[".local", "state"])?.join("quota");
    Some(JsonFile::at(folder.join("hook-failures.json"), Clock::system()))
}

impl HookFailureReport {
    /// The failure with its age.
    pub(crate) fn describe(&self, now: Timestamp) -> String {
        format!("{}, {}", self.text, ago(between(self.at, now)))
    }
}

/// Saves a failure. Returns it if the file cannot be changed, or without a home directory.
pub(crate) async fn save(text: String) -> Option<HookFailureReport> {
    let report = HookFailureReport { at: Clock::system().now(), text };
    let Some(file) = file() else { return Some(report) };
    let new = report.clone();
    let saved = file.update(|content: &mut Content| {
        content.failures.push(new);
        let surplus = content.failures.len().saturating_sub(MAX_FAILURES);
        content.failures.drain(..surplus);
    });
    saved.await.err().map(|_| report)
}

/// The failures that no command has reported, oldest first. They stay in the file. An unusable file counts as empty.
pub(crate) async fn unreported() -> Vec<HookFailureReport> {
    let Some(file) = file() else { return Vec::new() };
    file.load::<Content>().await.unwrap_or_default().failures
}

/// Removes failures that this command has reported. If that fails, the next command reports them again.
pub(crate) async fn remove(reported: Vec<HookFailureReport>) {
    let Some(file) = file().filter(|_| !reported.is_empty()) else { return };
    let removed = file.update(move |content: &mut Content| {
        content.failures.retain(|failure| !reported.contains(failure));
    });
    let _ = removed.await;
}

/// Takes the failures that no command has reported, oldest first.
///
/// # Errors
///
/// [`FileError`] if the file cannot be read or changed.
pub(crate) async fn take() -> Result<Vec<HookFailureReport>, FileError> {
    let Some(file) = file() else { return Ok(Vec::new()) };
    // Fast path: without failures, no lock is needed.
    if file.load_blocking::<Content>()?.failures.is_empty() {
        return Ok(Vec::new());
    }
    file.update(|content: &mut Content| std::mem::take(&mut content.failures)).await
}
