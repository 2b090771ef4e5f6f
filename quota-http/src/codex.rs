//! OpenAI Codex: reading what it says on ordinary answers, and exchanging the tokens of its logins.
//! Where tokens come from is a [`CredentialSource`](quota_core::CredentialSource)'s business.

mod headers;
mod tokens;
mod traffic;

use quota_core::ProviderId;

#[cfg(test)]
pub(crate) use tokens::DIALECT;
pub use tokens::refresher;
pub use traffic::CodexTraffic;

/// The provider of Codex: `openai`.
pub const OPENAI: ProviderId = ProviderId::from_static("openai");
