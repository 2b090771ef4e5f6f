//! OpenAI Codex: exchanging the tokens of its logins.
//! Where tokens come from is a [`CredentialSource`](quota_core::CredentialSource)'s business.

mod tokens;

use quota_core::ProviderId;

#[cfg(test)]
pub(crate) use tokens::DIALECT;
pub use tokens::refresher;

/// The provider of Codex: `openai`.
pub const OPENAI: ProviderId = ProviderId::from_static("openai");
