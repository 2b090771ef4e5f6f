//! The traits that talk to a provider: they fetch usage, supply credentials, renew tokens and parse responses.
//! The implementations are in `quota-http` and `quota-credentials`.

mod credential;
pub(crate) mod fetch;
mod program_login;
mod response;
mod retry_after;
mod source_version;
mod token;
mod token_claims;

pub use self::credential::{Credential, CredentialError, CredentialSource};
pub use self::fetch::{FetchError, UsageFetcher};
pub use self::program_login::ProgramLogin;
pub use self::response::{
    HeaderSource, ParsedResponse, Rejection, RejectionKind, ResponseHeaders, ResponseMeta, ResponseParser,
};
pub use self::retry_after::{LONGEST_WAIT, bounded_wait, retry_after, wait_of_seconds};
pub use self::source_version::SourceVersion;
pub use self::token::{TokenError, TokenRefresher, Tokens};
pub use self::token_claims::token_claims;
