//! The core of quota: one record per login, pure rules that change it, and any store that shares it.
//!
//! quota is the shared cache and single gateway to LLM providers' usage endpoints. This crate contains no HTTP, Redis or SQL
//! code. A [`UsageFetcher`] calls a provider, a [`QuotaStore`] shares the results, and the [`QuotaManager`]
//! connects the two. The manager merges concurrent refreshes into one call and backs off after a 429. Each reading has an age, a
//! source and a certainty. Applications depend on the crate `quota`, which provides fetchers and stores.
//!
//! # Reading
//!
//! ```
//! use async_trait::async_trait;
//! use quota_core::{
//!     AccountId, Credential, FetchError, MemoryStore, Percent, ProviderId, QuotaManager, UsageFetcher, UsageReport, Used,
//!     WindowId, WindowReading,
//! };
//!
//! /// Sends one request to a provider. The manager decides when.
//! #[derive(Debug)]
//! struct Example;
//!
//! #[async_trait]
//! impl UsageFetcher for Example {
//!     fn provider(&self) -> ProviderId {
//!         ProviderId::new("example").expect("a valid name")
//!     }
//!     async fn fetch(&self, _account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
//!         let used = Percent::from_fraction(0.42).ok_or_else(|| FetchError::malformed("no number"))?;
//!         Ok(UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let quota = QuotaManager::builder(MemoryStore::new()).fetcher(Example).build()?;
//! let main = quota.account(&"example/main".parse::<AccountId>()?);
//!
//! // Fresh readings from the cache, or from one refresh that all concurrent callers share.
//! let usage = main.get().await?;
//! assert_eq!(usage.used(&WindowId::five_hour()), Used::Exact(Percent::from_percent(42.0).unwrap()));
//!
//! // The cached readings, without a lock or I/O.
//! assert!(!main.peek().is_stale());
//! quota.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//!
//! The crate root exports the types that most programs need. The modules contain the rest.
//!
//! | task | types |
//! |---|---|
//! | reading, refreshing, watching | [`Account`], [`AccountUsage`], [`Freshness`], [`Event`]; the rest in [`manager`] |
//! | the settings: freshness, backoff, budget | [`Policy`]; its parts in [`policy`] |
//! | accounts, windows and readings as data | [`AccountId`], [`WindowId`], [`Used`], [`Snapshot`]; the rest in [`model`] |
//! | writing a provider | [`UsageFetcher`], [`UsageReport`], [`WindowReading`], [`FetchError`] |
//! | supplying credentials | [`CredentialSource`], [`Credential`]; renewing tokens: [`TokenRefresher`](provider::TokenRefresher) |
//! | readings from ordinary responses | [`ResponseParser`](provider::ResponseParser), [`Account::observe`] |
//! | writing a store | [`QuotaStore`] and the types of [`store`]; `store_conformance!` (feature `testing`); `examples/own_store.rs` |
//! | storing your own document | [`store::update()`], [`store::LeaseDoc`] |
//! | the rules, as pure functions | [`record::Record`] |
//! | virtual time in tests | [`Clock`] |
//! | small files and child processes | [`file`](mod@file), `process` (feature) |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `testing` | the conformance suite, `FlakyStore`, `ScriptedStore`, `FakeProvider` and the mock of [`UsageFetcher`] |
//! | `process` | child processes, each in its own process group |
//!
//! # Logs
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing) at `debug` and `warn`, never at `info`. Logs contain no secrets.
//! A program that must react to a change subscribes to [`Event`]s instead of reading the log.

pub mod clock;
pub mod file;
pub mod manager;
pub mod model;
pub mod outage;
pub mod policy;
#[cfg(feature = "process")]
pub mod process;
pub mod provider;
mod random;
pub mod record;
pub mod secret;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use clock::Clock;
pub use manager::{Account, AccountUsage, Event, Freshness, QuotaError, QuotaManager};
pub use model::{AccountId, Percent, ProviderId, Snapshot, UsageReport, Used, WindowId, WindowReading};
pub use policy::Policy;
pub use provider::{Credential, CredentialError, CredentialSource, FetchError, UsageFetcher};
pub use secret::Secret;
pub use store::{MemoryStore, QuotaStore};
