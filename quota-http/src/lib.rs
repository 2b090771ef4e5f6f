//! Usage endpoints of LLM providers over reqwest, for quota.
//!
//! A fetcher asks one provider how much of an account is used; when to ask, and what follows, is decided by
//! `quota-core`. Each provider has a module, with its fetcher and with parsers that work on bytes alone:
//!
//! | module | fetcher | parsers |
//! |---|---|---|
//! | [`anthropic`] | [`Anthropic`](anthropic::Anthropic): the usage of Claude subscriptions | the usage and profile answers, rate-limit headers, [ordinary answers](anthropic::AnthropicTraffic), what Claude Code writes on this machine |
//! | [`codex`] | | [ordinary answers](codex::CodexTraffic) of Codex |
//!
//! Both modules have a `refresher`, which exchanges the refresh token of a login ([`OAuthRefresher`]).
//!
//! # Asking
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use quota_core::{AccountId, Credential, CredentialError, CredentialSource, Secret, UsageFetcher};
//! use quota_http::anthropic::{ANTHROPIC, Anthropic};
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
//! let fetcher = Anthropic::builder(Arc::new(FromEnvironment)).user_agent("my-program/1.0").build()?;
//! assert_eq!(fetcher.provider(), ANTHROPIC);
//! # Ok::<(), quota_http::BuildError>(())
//! ```
//!
//! # What every fetcher promises
//!
//! - It asks once: it never retries and never waits.
//! - Tokens are sent over TLS, or to this machine, and never to where a redirect points. They are in no error, no log
//!   and no `Debug`; nor is any part of a provider's answer.
//! - It says who it is by an honest `User-Agent`, unless the user sets another.
//! - An answer is read up to 1 MiB, and a hostile one costs no more than that.
//! - It needs no TLS set-up by the process: cryptography is ring's, trust is the system's. Clients are made at the
//!   first call.
//! - What it does not understand it leaves out by name, and never counts as nothing used or as all used.

pub mod anthropic;
mod classify;
pub mod codex;
mod endpoint;
mod jwt;
mod lenient;
mod oauth;
mod parsed;
mod transport;

pub use endpoint::BuildError;
pub use oauth::{OAuthRefresher, OAuthRefresherBuilder};
pub use parsed::{Ignored, ParseError, Parsed};
/// The crates whose types are in the signatures here.
pub use {jiff, reqwest, url};
