//! The shared cache and single gateway to LLM providers' usage endpoints.
//!
//! This is the crate that applications add. It brings [`quota_core`], whose types it re-exports at its root, and by
//! features what is around it:
//!
//! | feature | adds |
//! |---|---|
//! | `anthropic` | [`anthropic`]: Anthropic's usage endpoint and rate limit headers |
//! | `codex` | [`codex`]: what Codex says on ordinary answers, and the renewal of its logins |
//! | | [`http`]: what fetchers share: errors, and what a parser understood |
//! | `accounts` | [`accounts`]: which account a request goes to, and why |
//! | `credentials` | [`credentials`]: where logins are found, and logins of this program's own |
//! | `keyring` | `credentials::Keyring`: tokens in the keyring of the operating system |
//! | `redis` | [`redis`]: a store on Redis or Valkey, shared by hosts |
//! | `redis-tls` | the same over TLS |
//! | `sqlite` | [`sqlite`]: a store on one file, shared by the processes of one machine |
//! | `testing` | [`testing`]: conformance suite, fakes and mocks |
//!
//! A feature adds API and never changes what existing calls do. Which store is used is decided by a URL, see
//! [`open_store`].
//!
//! ```
//! use quota::testing::FakeProvider;
//! use quota::{AccountId, QuotaManager, Used, WindowId};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = quota::open_store("memory:")?;
//! let quota = QuotaManager::builder(store).fetcher(FakeProvider::answering("example", 42.0)).build()?;
//! let main = quota.account(&"example/main".parse::<AccountId>()?);
//!
//! let answer = main.get().await?;
//! if let Used::Exact(used) = answer.used(&WindowId::five_hour()) {
//!     println!("{used} of five hours are used");
//! }
//! quota.close().await;
//! # Ok(())
//! # }
//! ```

mod open;

pub use open::{OpenError, open_store};
#[cfg(feature = "accounts")]
pub use quota_accounts as accounts;
pub use quota_core::*;
#[cfg(feature = "credentials")]
pub use quota_credentials as credentials;
#[cfg(any(feature = "anthropic", feature = "codex"))]
pub use quota_http as http;
#[cfg(feature = "anthropic")]
pub use quota_http::anthropic;
#[cfg(feature = "codex")]
pub use quota_http::codex;
#[cfg(feature = "redis")]
pub use quota_redis as redis;
#[cfg(feature = "sqlite")]
pub use quota_sqlite as sqlite;

/// The README's example is compiled like any other.
#[cfg(all(doctest, feature = "anthropic", feature = "accounts", feature = "credentials"))]
#[doc = include_str!("../../README.md")]
struct Readme;
