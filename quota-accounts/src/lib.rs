//! The router: decides which of several accounts serves a request, and why. It neither sends requests nor logs in.
//!
//! [`FallbackAccountManager`] assigns each request to the preferred available account, and learns from its outcome. The
//! choice is a pure function, [`routing::choose`]. A [`Decision`] lists every account with its readings and the reason
//! that selected or excluded it. A [`RoutingPolicy`] states which account is preferred and how much must remain. The
//! accounts are an [`AccountsConfig`], which [`AccountsFile`] stores. Logins come from the sources in
//! `quota-credentials` or any other [`CredentialSource`](quota_core::CredentialSource).

mod config;
mod manager;
mod outcome;
mod reservation;
pub mod routing;
mod state;

pub use config::{AccountConfig, AccountsConfig, AccountsFile};
pub use manager::{
    BuildError, Classification, FallbackAccountManager, FallbackAccountManagerBuilder, Idempotency,
    RefreshReport, ReportError, Route, RouteError,
};
pub use outcome::{RequestOutcome, RetryAdvice};
pub use routing::{
    AccountLimits, Decision, Evaluated, Limits, Reason, Request, RoutingMode, RoutingPolicy, UnknownUsage,
};
