//! What happened to quota's accounts: events, samples of use and their pace, and hooks that run for events.
//!
//! The journal of an account is one document beside its record in any [`QuotaStore`](quota_core::QuotaStore). Events are derived: a
//! look compares the record with what the journal saw last and writes the difference by one compare-and-swap. So each event is
//! found once, by one of all processes that share the store, whichever program changed the record. That process runs the hooks.
//!
//! ```
//! use quota_core::testing::FakeProvider;
//! use quota_core::{AccountId, MemoryStore, QuotaManager, QuotaStore};
//! use quota_journal::{Rules, look};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
//! let main: AccountId = "example/main".parse()?;
//! // The first look has nothing to compare the account with, so it finds no event.
//! let quota = QuotaManager::builder_on(Arc::clone(&store)).fetcher(FakeProvider::answering("example", 42.0)).build()?;
//! quota.account(&main).get().await?;
//! assert!(look(store.as_ref(), &main, &Rules::default()).await?.new.is_empty());
//!
//! // A call that the next look finds.
//! quota.account(&main).refresh().await?;
//! let found = look(store.as_ref(), &main, &Rules::default()).await?;
//! assert_eq!(found.new.iter().map(|event| event.what.kind()).collect::<Vec<_>>(), ["refreshed"]);
//! quota.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | for | see |
//! |---|---|
//! | keeping the journals of several accounts, with their hooks | [`keep`] |
//! | one account: what is new, and all that its journal holds | [`look`], [`Looked`], [`Book`] |
//! | an event, and its JSON | [`Happening`], [`What`], [`Note`] |
//! | what was used when, and how fast | [`History`], [`pace`] |
//! | hooks | [`Hook`], [`run_hooks`] |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `post` | `Action::Post`: hooks that post an event as JSON |
mod book;
mod derive;
mod happening;
mod history;
mod hooks;
mod journal;
mod moment;
pub mod pace;
mod sight;
mod span;

pub use book::Book;
pub use happening::{Direction, Happening, What};
pub use history::{History, Sample};
#[cfg(feature = "post")]
pub use hooks::post::{Address, post_client};
pub use hooks::{Action, Hook, HookError, HookFailure, Note, run_hooks};
pub use journal::{Damage, Looked, Rules, Warning, forget, keep, look};
