//! Main and fallback accounts: which one a request goes to, and where their logins are found.
//! Nothing here sends a request, logs in, or writes to a place that another program owns.
//!
//! # Routing
//!
//! [`FallbackAccountManager`] gives each request the account that has room and is preferred, and learns from what came of it.
//! The choice is a pure function, [`choose`], and a [`Decision`] tells every account that was looked at and the rule that took
//! or refused it. What is preferred and what is kept back is a [`RoutingPolicy`]; the accounts are an [`AccountsConfig`], which
//! [`AccountsFile`] keeps.
//!
//! # Logins
//!
//! | source | finds |
//! |---|---|
//! | [`ClaudeCode`] | the login of Claude Code: its files, the keychain of macOS, its environment variable |
//! | [`Codex`] | the login of Codex: its file |
//! | [`CommandSource`] | the token that a program prints |
//! | [`EnvVar`] | a token in an environment variable |
//! | [`TokenFile`] | a file that holds a token and nothing else |
//! | [`Fixed`] | the credential it was given |
//! | [`OwnedLogins`] | logins that were made for this program, and renews them if it is told to |
//! | `Keyring` (feature `keyring`) | a token in the keyring of the operating system |
//! | [`PerAccount`] | another source for each account |
//!
//! Every source looks anew each time it is asked, because logins change under a running program. The refresh token of another
//! program is never read: it works once, so a second program that uses it logs the first one out.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `keyring` | `Keyring`: Secret Service on Linux and the BSDs, Keychain on macOS, Credential Manager on Windows |
//!
//! ```
//! use std::sync::Arc;
//! use quota_accounts::{CredentialSource, Environment, EnvVar, Fixed, PerAccount, Secret};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let environment = Environment::of([("WORK_TOKEN", "sk-ant-oat01-work")]);
//! let logins = PerAccount::new()
//!     .with("anthropic/work".parse()?, Arc::new(EnvVar::in_environment("WORK_TOKEN", environment)))
//!     .with("anthropic/test".parse()?, Arc::new(Fixed::new(Secret::new("sk-ant-oat01-test"))));
//!
//! let credential = logins.credential(&"anthropic/work".parse()?).await?;
//! assert_eq!(credential.secret.expose(), "sk-ant-oat01-work");
//!
//! let error = logins.credential(&"anthropic/home".parse()?).await.unwrap_err();
//! assert_eq!(error.to_string(), "no login is configured for anthropic/home");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod ahead;
pub mod atomic_file;
mod claude_code;
mod codex;
mod command;
mod config;
mod document;
mod env_var;
mod environment;
mod file;
mod fixed;
mod hash;
#[cfg(feature = "keyring")]
mod keyring;
mod manager;
mod outcome;
mod owned;
mod per_account;
pub mod process;
mod reservation;
pub mod rights;
mod routing;
mod state;
mod token;
mod token_file;

pub use claude_code::{CachedUsage, ClaudeCode, FoundLogin, LoginPlace};
pub use codex::Codex;
pub use command::CommandSource;
pub use config::{AccountConfig, AccountsConfig, AccountsFile};
pub use document::FileError;
pub use env_var::EnvVar;
pub use environment::Environment;
pub use fixed::Fixed;
#[cfg(feature = "keyring")]
pub use keyring::Keyring;
pub use manager::{
    BuildError, FallbackAccountManager, FallbackAccountManagerBuilder, Passed, RefreshReport, Repeat, Report,
    ReportError, Route, RouteError, Tried,
};
pub use outcome::{NextTry, Outcome};
pub use owned::{NewLogin, OwnedLogins, OwnedLoginsBuilder, Put};
pub use per_account::PerAccount;
pub use quota_core::{Credential, CredentialError, CredentialSource, Secret};
pub use routing::{
    AccountLimits, Block, Candidate, Choice, Decision, LimitCheck, Limits, Mode, Reading, Request, Role,
    RoutingPolicy, Rule, Session, Standing, Verdict, Weighed, WhenUnknown, choose,
};
pub use token_file::TokenFile;
