//! One record per account, one pure set of rules, any store.
//!
//! This is the heart of quota, the shared cache and single gateway to LLM providers' usage endpoints. It knows no HTTP, no
//! Redis and no SQL: a [`UsageFetcher`] asks a provider, a [`QuotaStore`] shares what was learned, and in between stands the
//! [`QuotaManager`], which makes concurrent refreshes one call, keeps quiet after a 429, and gives every number with its
//! age, source and certainty. Applications add the crate `quota`, which brings fetchers and stores.
//!
//! # Reading
//!
//! ```
//! use async_trait::async_trait;
//! use quota_core::{
//!     AccountId, Credential, FetchError, MemoryStore, Percent, ProviderId, QuotaManager, UsageReport, UsageFetcher, Used,
//!     WindowId, WindowReading,
//! };
//!
//! /// Asks a provider once; when to ask is not its business.
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
//! // Fresh readings, or one refresh that all concurrent callers share.
//! let answer = main.get().await?;
//! assert_eq!(answer.used(&WindowId::five_hour()), Used::Exact(Percent::from_percent(42.0).unwrap()));
//!
//! // What is known at this moment: no lock, no I/O.
//! assert!(!main.peek().is_stale());
//! quota.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | reading, refreshing, watching | [`Account`], [`AccountUsage`], [`Event`] |
//! | how often to ask, how long to stay quiet | [`Policy`] |
//! | what a provider says | [`UsageReport`], [`Window`](model::Window), [`Used`], [`Snapshot`] |
//! | a provider of your own | [`UsageFetcher`], [`FetchError`], [`CredentialSource`], [`TokenRefresher`](provider::TokenRefresher), [`ResponseParser`](provider::ResponseParser) |
//! | a store of your own | [`QuotaStore`], `store_conformance!` (feature `testing`), `examples/own_store.rs` |
//! | a document of your own beside a record | [`store::update`], [`store::LeaseDoc`] |
//! | the rules themselves, as pure functions | [`Record`](record::Record) |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `testing` | the conformance suite, `FlakyStore`, `ScriptedStore`, `FakeProvider` and the mock of [`UsageFetcher`] |
//!
//! # Metrics and logs
//!
//! Facts are told by [`tracing`](https://docs.rs/tracing) at `debug` and `warn`, never at `info`, and never a secret; what
//! happened to accounts is also an [`Event`].
pub mod clock;
pub mod file;
pub mod manager;
pub mod model;
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
