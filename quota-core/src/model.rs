//! Plain data: accounts, logins, windows, readings, and how readings merge into a snapshot.
//! It does not depend on the file, provider, store, record or manager modules.

mod account;
mod bounds;
mod credits;
pub(crate) mod extra_fields;
pub(crate) mod login;
mod peak;
mod percent;
mod plausibility;
mod provenance;
mod request_id;
mod scope;
mod snapshot;
mod usage;
mod window;
mod window_id;
mod word;

pub use self::account::{AccountId, InvalidId, ProviderId};
pub use self::credits::{Credits, Money};
pub use self::login::{CredentialFingerprint, LoginId, LoginInfo, OwnerId};
pub use self::percent::Percent;
pub use self::plausibility::{Rejected, plausible_percent, plausible_reset};
pub use self::provenance::{Provenance, Source};
pub use self::request_id::RequestId;
pub use self::scope::{Scope, model_matches};
pub use self::snapshot::{Presence, Snapshot};
pub use self::usage::{Coverage, IgnoredField, LimitStatus, Throttled, UsageReport, WindowStatus};
pub use self::window::{Used, Window, WindowReading};
pub use self::window_id::WindowId;
pub use self::word::UnknownWord;
