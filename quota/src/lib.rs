//! A shared cache for LLM usage, and the single gateway to the usage endpoints of providers.
//!
//! Applications depend on this crate. It re-exports [`quota_core`]: the names that most programs need at the root, and
//! the others in the modules [`model`], [`record`], [`store`], [`provider`], [`policy`] and [`manager`]. Features add
//! providers, stores and routing:
//!
//! | feature | adds |
//! |---|---|
//! | `anthropic` | [`anthropic`]: Anthropic's usage endpoint and rate limit headers |
//! | `codex` | [`codex`]: the usage endpoint of Codex, and parsers for its ordinary responses |
//! | `providers` | [`http`]: the fetchers of all providers, and the list of them |
//! | `tower`, `reqwest-middleware` | `http::observe`: a layer and a middleware that observe ordinary responses |
//! | `accounts` | [`accounts`]: chooses the account for each request, with the reasons |
//! | `credentials` | [`credentials`]: finds existing logins, and stores logins that the program owns |
//! | `keyring` | `credentials::Keyring`: reads tokens from the keyring of the operating system |
//! | `local` | [`local`]: the usage that Claude Code and Codex stored on this machine |
//! | `redis` | [`redis`]: a store on Redis or Valkey, for many hosts |
//! | `redis-tls` | the same over TLS |
//! | `sqlite` | [`sqlite`]: a store in one file, for the processes of one machine |
//! | `testing` | [`testing`]: conformance suite, fakes and mocks |
//!
//! A feature adds API and never changes what existing calls do. The examples below are programs in `quota/examples`. They use a
//! scripted provider instead of a real one.
//!
//! # Read how much is left
//!
//! ```
#![doc = include_str!("../examples/read.rs")]
//! ```
//!
//! # Choose an account for each request, and report the response
//!
//! ```
#![cfg_attr(feature = "accounts", doc = include_str!("../examples/route.rs"))]
//! ```
//!
//! # Observe the responses of a client or a proxy
//!
//! ```
#![cfg_attr(
    all(feature = "accounts", feature = "anthropic", feature = "tower"),
    doc = include_str!("../examples/observe.rs")
)]
//! ```
//!
//! # Explain a choice
//!
//! ```
#![cfg_attr(feature = "accounts", doc = include_str!("../examples/explain.rs"))]
//! ```
//!
//! # Use credentials of your own
//!
//! ```
#![cfg_attr(feature = "credentials", doc = include_str!("../examples/own_credentials.rs"))]
//! ```
//!
//! # Share readings among hosts
//!
//! [`open_store`] opens the store that a URL names, among those whose features are enabled.
//!
//! ```
#![doc = include_str!("../examples/several_hosts.rs")]
//! ```

#[cfg(feature = "local")]
pub mod local;
mod open;
#[cfg(feature = "sqlite")]
mod outage_files;

pub use open::{OpenError, open_store};
#[cfg(feature = "sqlite")]
pub use outage_files::outage_files;
#[cfg(feature = "accounts")]
pub use quota_accounts as accounts;
pub use quota_core::*;
#[cfg(feature = "credentials")]
pub use quota_credentials as credentials;
#[cfg(any(
    feature = "anthropic",
    feature = "codex",
    feature = "providers",
    feature = "reqwest-middleware",
    feature = "tower"
))]
pub use quota_http as http;
#[cfg(feature = "anthropic")]
pub use quota_http::anthropic;
#[cfg(feature = "codex")]
pub use quota_http::codex;
#[cfg(feature = "redis")]
pub use quota_redis as redis;
#[cfg(feature = "sqlite")]
pub use quota_sqlite as sqlite;

/// Compiles the example in the README.
#[cfg(all(doctest, feature = "anthropic", feature = "accounts", feature = "credentials", feature = "tower"))]
#[doc = include_str!("../../README.md")]
struct Readme;
