//! Where the logins of accounts are found, and logins that this program owns.
//!
//! | source | finds |
//! |---|---|
//! | [`ClaudeCode`] | the login of Claude Code: its files, the keychain of macOS, its environment variable |
//! | [`Codex`] | the login of Codex: its file |
//! | [`CommandSource`] | the token that a program prints |
//! | [`EnvVar`] | a token in an environment variable |
//! | [`TokenFile`] | a file that holds a token and nothing else |
//! | [`Fixed`] | the credential it was given |
//! | [`OwnedLogins`] | logins that were made for this program, which it can also renew |
//! | `Keyring` (feature `keyring`) | a token in the keyring of the operating system |
//! | [`PerAccount`] | another source for each account |
//!
//! Every source reads its login again at each call, because logins change while a program runs. A refresh token of another
//! program is never used: it works once, so a second program that used it would log the first one out.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `keyring` | `Keyring`: Secret Service on Linux and the BSDs, Keychain on macOS, Credential Manager on Windows |
//!
//! ```
//! use std::sync::Arc;
//! use quota_core::{CredentialSource, Secret};
//! use quota_credentials::{Environment, EnvVar, Fixed, PerAccount};
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

mod claude_code;
mod codex;
mod command;
mod env_var;
mod environment;
mod fixed;
mod hash;
#[cfg(feature = "keyring")]
mod keyring;
mod owned;
mod per_account;
mod token;
mod token_file;
mod unreadable;

pub use claude_code::{ClaudeCode, FoundLogin, LoginPlace, UnparsedUsage};
pub use codex::Codex;
pub use command::CommandSource;
pub use env_var::EnvVar;
pub use environment::Environment;
pub use fixed::Fixed;
#[cfg(feature = "keyring")]
pub use keyring::Keyring;
pub use owned::{NewLogin, OwnedLogins, OwnedLoginsBuilder, Put};
pub use per_account::PerAccount;
pub use token_file::TokenFile;
