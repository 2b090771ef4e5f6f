//! OpenAI Codex: the parser for its ordinary API responses, and the token exchange for its logins.
//! `quota-core` decides which credential a call uses.

mod headers;
mod oauth;
mod response;

use quota_core::ProviderId;

#[cfg(test)]
pub(crate) use oauth::CONFIG;
pub use oauth::refresher;
pub use response::CodexResponseParser;
pub(crate) use response::RULES;

/// The provider of Codex: `openai`.
pub const OPENAI: ProviderId = ProviderId::from_static("openai");
