//! Main and fallback accounts: which one a request goes to, and why.
//! Nothing here sends a request or logs in.
//!
//! [`FallbackAccountManager`] gives each request the account that has room and is preferred, and learns from what came of it.
//! The choice is a pure function, [`choose`], and a [`Decision`] lists every account that was considered and the rule that
//! selected or refused it. What is preferred and what is kept back is a [`RoutingPolicy`]; the accounts are an
//! [`AccountsConfig`], which [`AccountsFile`] stores. Where the logins of accounts are found is up to the crate
//! `quota-credentials`, or any other [`CredentialSource`](quota_core::CredentialSource).

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
