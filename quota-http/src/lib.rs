//! Fetches usage from the endpoints of LLM providers.
//!
//! A [`Fetcher`] requests the usage of an account from its provider. `quota-core` decides when to call it, and handles
//! the result. A [`Provider`] describes one provider: its request, its parser, the locations of logins, and the
//! defaults. [`PROVIDERS`] lists all providers. Parsers work on bytes and do no I/O:
//!
//! | provider | parsers |
//! |---|---|
//! | [`anthropic`] | the usage and profile responses, rate-limit headers, [ordinary API responses](anthropic::AnthropicResponseParser), the data that Claude Code writes on this machine |
//! | [`codex`] | the usage response, [ordinary API responses](codex::CodexResponseParser), the windows in session files |
//! | [`zai`] | the response of the quota endpoint |
//! | [`kimi`] | the response of the usage endpoint, two documents of the website |
//! | [`minimax`] | the response of the remaining quota endpoint |
//! | [`gemini`] | the responses of both requests: the plan, and the quota of each model |
//! | [`antigravity`] | the quota summary, the list of models |
//! | [`copilot`] | the response of the endpoint for users |
//! | [`openrouter`] | the responses of the endpoints for the key and the credits |
//! | [`deepseek`] | the response of the balance endpoint |
//! | [`litellm`] | the responses of the endpoints for a key, a user and a team |
//! | [`cursor`] | the response of the endpoint for the current period, saved documents of the dashboard |
//! | [`xai`] | the response of the billing endpoint |
//!
//! A provider with a token exchange has a refresher, which exchanges the refresh token of a login ([`OAuthRefresher`]).
//! To add a provider, see `docs/add-a-provider.md`. [`lenient`] and [`ReportBuilder`] help to write its parser.
//!
//! # Example
//!
//! ```
//! use async_trait::async_trait;
//! use quota_core::{
//!     AccountId, Credential, CredentialError, CredentialSource, MemoryStore, QuotaManager, Secret,
//! };
//! use quota_http::{Fetcher, anthropic};
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
//! let fetcher = Fetcher::builder(&anthropic::PROVIDER).user_agent("my-program/1.0").build()?;
//! let quota = QuotaManager::builder(MemoryStore::new()).provider(fetcher, FromEnvironment).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees of every fetcher
//!
//! - One call sends one request, or two if the provider needs two. There are no retries or delays.
//! - Tokens are sent over TLS or to a loopback address, and redirects are not followed. Errors, logs and `Debug` contain
//!   neither tokens nor any part of a provider's response.
//! - The `User-Agent` names quota, unless the caller sets another one.
//! - At most 1 MiB of a response is read.
//! - The process need not configure TLS. The crypto provider is ring, and the operating system verifies certificates.
//!   The first call builds the HTTP clients.
//! - A field that cannot be parsed is skipped and listed by name. It never counts as 0 % or 100 % used.

pub mod anthropic;
pub mod antigravity;
mod authorization;
mod classify;
pub mod codex;
mod command_environment;
pub mod copilot;
pub mod cursor;
pub mod deepseek;
mod definition;
mod endpoint;
mod failure_body;
mod fetcher;
pub mod gemini;
mod generic_headers;
mod interpret;
pub mod json;
pub mod kimi;
pub mod lenient;
mod limit_headers;
pub mod litellm;
pub mod minimax;
mod oauth;
#[cfg(any(feature = "tower", feature = "reqwest-middleware"))]
pub mod observe;
pub mod openrouter;
mod parsed;
mod provider;
mod registry;
mod report;
mod request;
mod response;
mod saved;
pub mod shape;
mod transport;
mod usage_endpoint;
mod window_length;
pub mod xai;
pub mod zai;

pub use authorization::{Authorization, AuthorizationError};
pub use command_environment::CommandEnvironment;
pub use definition::{Method, ProviderDefinition};
pub use endpoint::BuildError;
pub use fetcher::{Fetcher, FetcherBuilder};
pub use oauth::{OAuthRefresher, OAuthRefresherBuilder};
pub use parsed::{ParseError, Parsed, SkippedField};
pub use provider::{OwnLogin, ParseBody, ParseSaved, Provider, SecondRequest};
pub use registry::{PROVIDERS, find_provider};
pub use report::{ReportBuilder, json_object};
pub use request::UsageRequest;
pub use response::{AnyResponseParser, inspect_response, parse_response};
pub use saved::SavedDocument;
pub use usage_endpoint::{EndpointFailure, KnownUsage, LastResponse, UsageEndpoint};
pub use window_length::window_of_length;
/// The crates whose types appear in this API.
pub use {jiff, reqwest, serde_json, url};
