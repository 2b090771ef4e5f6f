//! Requests usage from the endpoints of LLM providers with reqwest, for quota.
//!
//! A fetcher requests the usage of an account from its provider. `quota-core` decides when to call it, and handles the result.
//! Each provider has a module with its fetcher and its parsers. Parsers work on bytes and do no I/O:
//!
//! | module | fetcher | parsers |
//! |---|---|---|
//! | [`anthropic`] | [`Anthropic`](anthropic::Anthropic): the usage of Claude subscriptions | the usage and profile responses, rate-limit headers, [ordinary API responses](anthropic::AnthropicResponseParser), the data that Claude Code writes on this machine |
//! | [`codex`] | | [ordinary API responses](codex::CodexResponseParser) to Codex |
//!
//! Both modules have a `refresher`, which exchanges the refresh token of a login ([`OAuthRefresher`]).
//!
//! # Example
//!
//! ```
//! use async_trait::async_trait;
//! use quota_core::{
//!     AccountId, Credential, CredentialError, CredentialSource, MemoryStore, QuotaManager, Secret,
//! };
//! use quota_http::anthropic::Anthropic;
//!
//! #[derive(Debug)]
//! struct FromEnvironment;
//!
//! #[async_trait]
//! impl CredentialSource for FromEnvironment {
//!     async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
//!         let token = std::env::var("CLAUDE_CODE_OAUTH_TOKEN")
//!             .map_err(|_| CredentialError::not_logged_in("set CLAUDE_CODE_OAUTH_TOKEN"))?;
//!         Ok(Credential::new(Secret::new(token)))
//!     }
//! }
//!
//! let fetcher = Anthropic::builder().user_agent("my-program/1.0").build()?;
//! let quota = QuotaManager::builder(MemoryStore::new()).provider(fetcher, FromEnvironment).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees of every fetcher
//!
//! - One call sends one request: no retries, no delays.
//! - Tokens are sent over TLS or to a loopback address, and redirects are not followed. Errors, logs and `Debug` contain
//!   neither tokens nor any part of a provider's response.
//! - The `User-Agent` names this program, unless the caller sets another.
//! - At most 1 MiB of a response is read.
//! - The process need not set up TLS: the crypto provider is ring, and the operating system verifies certificates. The first
//!   call builds the HTTP clients.
//! - A field that cannot be parsed is skipped and listed by name. It never counts as 0 % or 100 % used.

pub mod anthropic;
mod classify;
pub mod codex;
mod endpoint;
mod failure_body;
mod generic_headers;
mod interpret;
mod jwt;
mod lenient;
mod limit_headers;
mod oauth;
mod parsed;
mod response;
mod transport;

pub use endpoint::BuildError;
pub use oauth::{OAuthRefresher, OAuthRefresherBuilder};
pub use parsed::{ParseError, Parsed, SkippedField};
pub use response::{AnyResponseParser, inspect_response, parse_response};
/// The crates whose types appear in this API.
pub use {jiff, reqwest, url};
