//! The events of accounts, samples of their usage, its pace, and hooks that run for events.
//!
//! The journal of an account is a document next to its record in any [`QuotaStore`](quota_core::QuotaStore). An update
//! derives events: it compares the record with the journal's last observation, and writes the difference with one
//! compare-and-swap. So exactly one of the processes that share the store records each event, regardless of which
//! program changed the record. That process runs the hooks.
//!
//! ```
//! use quota_core::testing::FakeProvider;
//! use quota_core::{AccountId, MemoryStore, QuotaManager, QuotaStore};
//! use quota_journal::{Rules, update};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
//! let main: AccountId = "example/main".parse()?;
//! // The first update has no earlier observation, so it finds no event.
//! let quota = QuotaManager::builder(Arc::clone(&store)).fetcher(FakeProvider::answering("example", 42.0)).build()?;
//! quota.account(&main).get().await?;
//! assert!(update(store.as_ref(), &main, &Rules::default()).await?.new.is_empty());
//!
//! // The next update finds this call.
//! quota.account(&main).refresh().await?;
//! let found = update(store.as_ref(), &main, &Rules::default()).await?;
//! assert_eq!(found.new.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["refreshed"]);
//! quota.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | update the journals of several accounts and run their hooks | [`update_and_run_hooks`] |
//! | get the new events of one account, and its whole journal | [`update`], [`JournalUpdate`], [`Journal`] |
//! | read a journal without changing it, and wait for new events | [`read`], [`wait_for_events`] |
//! | read an event, and write its JSON | [`JournalEvent`], [`EventKind`], [`HookPayload`] |
//! | get the usage of a window over time, and its pace | [`History`], [`pace`] |
//! | run hooks, in this process or in another one | [`Hook`], [`run_hooks`], [`hook_runs`] with [`update_all`] |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `post` | `Action::Post`: hooks that post an event as JSON |
mod diff;
mod event;
mod follow;
mod history;
mod hooks;
mod journal;
mod observation;
pub mod pace;
mod update;

pub use event::{Direction, EventKind, JournalEvent};
pub use follow::{read, wait_for_events};
pub use history::{History, Sample};
#[cfg(feature = "post")]
pub use hooks::post::{SecretUrl, post_client};
pub use hooks::{Action, Hook, HookError, HookFailure, HookPayload, HookRun, hook_runs, run_hooks};
pub use journal::Journal;
pub use quota_core::process::SECRET_VARIABLES;
pub use update::{
    Damage, JournalDamage, JournalUpdate, Rules, Warning, remove, update, update_all, update_and_run_hooks,
};
