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
//! | what a provider says | [`UsageReport`], [`Window`], [`Used`], [`Snapshot`] |
//! | a provider of your own | [`UsageFetcher`], [`FetchError`], [`CredentialSource`], [`TokenRefresher`], [`ResponseParser`] |
//! | a store of your own | [`QuotaStore`], `store_conformance!` (feature `testing`), `examples/own_store.rs` |
//! | a document of your own beside a record | [`store::update`], [`store::LeaseDoc`] |
//! | the rules themselves, as pure functions | [`Record`] |
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
mod account;
mod bounds;
mod clock;
mod cooldown;
mod credential;
mod credits;
mod extra_fields;
mod fetch;
pub mod file;
mod hold;
mod lease;
mod login;
mod manager;
mod peak;
mod percent;
mod plausibility;
mod policy;
#[cfg(feature = "process")]
pub mod process;
mod random;
mod record;
mod refresher;
mod request_id;
mod scope;
mod secret;
mod snapshot;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod traffic;
mod usage;
mod window;
mod word;

pub use account::{AccountId, InvalidId, ProviderId};
pub use clock::{Clock, Instant};
pub use cooldown::{ProviderCooldown, provider_cooldown};
pub use credential::{Credential, CredentialError, CredentialSource};
pub use credits::{Credits, Money};
pub use fetch::{FetchError, UsageFetcher};
pub use hold::{Hold, HoldReason, LastFailure, LastFailureKind};
pub use lease::{CallRecord, Lease, LeaseDecision, LeaseRequest, MaxStaleness, Priority, RecentCall};
pub use login::{CredentialFingerprint, LoginId, LoginInfo, OwnerId};
pub use manager::QuotaManager;
pub use manager::account::{Account, Changes, GetFuture, KeepFreshGuard};
pub use manager::account_usage::{AccountUsage, Freshness, RefreshOutcome, StaleReason};
pub use manager::builder::{BuildError, QuotaManagerBuilder};
pub use manager::error::{ObserveError, QuotaError};
pub use manager::events::{Event, Events};
pub use manager::store_metrics::StoreStats;
pub use percent::Percent;
pub use plausibility::{Rejected, plausible_percent, plausible_reset};
pub use policy::{Backoff, Budget, CooldownPolicy, CooldownScope, Policy, PolicyError, StoreOutagePolicy};
pub use record::{Cleared, CommitOutcome, Counted, DecodeError, FailOutcome, MergeOutcome, Record, Seed};
pub use refresher::{TokenError, TokenRefresher, Tokens};
pub use request_id::RequestId;
pub use scope::{Scope, model_matches};
pub use secret::{Secret, SecretBuffer};
pub use snapshot::{Presence, Snapshot};
pub use store::memory::MemoryStore;
pub use store::{CasOutcome, Document, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};
pub use time::is_from_future;
pub use traffic::{
    LONGEST_WAIT, ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser, bounded_wait,
    retry_after, wait_of_seconds,
};
pub use usage::{Coverage, LimitStatus, UsageReport, WindowStatus};
pub use window::{Provenance, Source, Used, Window, WindowId, WindowReading};
pub use word::UnknownWord;
