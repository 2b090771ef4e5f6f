//! Credential sources, which find the logins of accounts, and a store for tokens that this program owns.
//!
//! | source | reads |
//! |---|---|
//! | [`ClaudeCode`] | the login of Claude Code: its files, the keychain of macOS, its environment variable |
//! | [`CommandToken`] | the token that a command prints |
//! | [`EnvToken`] | a token in an environment variable |
//! | [`FileToken`] | a file that contains only a token |
//! | [`LoginFile`] | the login of a provider's own program, such as Codex: its file |
//! | [`StaticCredential`] | the credential that it was created with |
//! | [`TokenStore`] | logins that were created for this program, which it can also renew |
//! | `Keyring` (feature `keyring`) | a token in the keyring of the operating system |
//! | [`from_fn`] | the result of your own async function |
//! | [`CredentialMap`] | a separate source for each account |
//! | [`ScopedLogin`] | another source, for one of the organizations of a login |
//!
//! Each call to a source reads the login again, because logins change while a program runs. A manager caches
//! credentials: it reads an unchanged file once, and runs a command once every five minutes. No source uses the refresh
//! token of another program. Such a token works once, so using it would log the other program out.
//!
//! [`ClaudeCode::cached_usage`] and [`SessionFiles`] read the usage that two of these programs store on this machine, for the current
//! login only.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `keyring` | `Keyring`: Secret Service on Linux and the BSDs, Keychain on macOS, Credential Manager on Windows |
//!
//! ```
//! use quota_core::{CredentialSource, Secret};
//! use quota_credentials::{Environment, EnvToken, StaticCredential, CredentialMap};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let environment = Environment::from_vars([("WORK_TOKEN", "sk-ant-oat01-work")]);
//! let logins = CredentialMap::new()
//!     .with("anthropic/work".parse()?, EnvToken::in_environment("WORK_TOKEN", environment))
//!     .with("anthropic/test".parse()?, StaticCredential::new(Secret::new("sk-ant-oat01-test")));
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
mod command_token;
mod credential_map;
mod env_token;
mod environment;
mod error;
mod file_token;
mod from_fn;
#[cfg(feature = "keyring")]
mod keyring;
mod login_file;
mod scoped_login;
mod session_files;
mod static_credential;
mod token;
mod token_store;

pub use claude_code::{ClaudeCode, CredentialLocation, DiscoveredCredential, UnparsedUsage};
pub use command_token::CommandToken;
pub use credential_map::CredentialMap;
pub use env_token::EnvToken;
pub use environment::Environment;
pub use file_token::FileToken;
pub use from_fn::{FromFn, from_fn};
#[cfg(feature = "keyring")]
pub use keyring::Keyring;
pub use login_file::LoginFile;
pub use scoped_login::ScopedLogin;
pub use session_files::{SessionFile, SessionFiles, Sessions};
pub use static_credential::StaticCredential;
pub use token_store::{LogInError, NewLogin, PutResult, TokenStore, TokenStoreBuilder};
