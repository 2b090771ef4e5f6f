//! The configuration: which accounts there are, where their logins are, and by which rules they are asked about.
//! How it is written is in `file`, where a flaw stands and how it is told in `flaw`; nothing here asks anybody.

mod check;
mod file;
mod flaw;
mod hooks;

use std::path::{Path, PathBuf};

use quota::{AccountId, Policy};
use url::Url;

use crate::exit::{Exit, Failure};
use crate::hooks::Hook;
use crate::input;
use crate::journal::THRESHOLDS;

/// What is to be asked about, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) policy: Policy,
    pub(crate) anthropic: ProviderSettings,
    pub(crate) accounts: Vec<AccountSettings>,
    pub(crate) hooks: Vec<Hook>,
}

/// The settings of a provider.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProviderSettings {
    pub(crate) base_url: Option<Url>,
    pub(crate) user_agent: Option<String>,
}

/// The settings of an account.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccountSettings {
    pub(crate) id: AccountId,
    pub(crate) login: LoginSource,
    pub(crate) base_url: Option<Url>,
}

/// Where the login of an account is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LoginSource {
    /// Where Claude Code itself would find it.
    ClaudeCode,
    /// Where Claude Code would find it with this directory.
    ClaudeConfigDir(PathBuf),
    /// In an environment variable.
    TokenEnv(String),
    /// In a file of its own.
    TokenFile(PathBuf),
}

impl LoginSource {
    /// What to do when the provider refuses the login.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::ClaudeCode => "log in again: run `claude`, then /login".to_owned(),
            Self::ClaudeConfigDir(dir) => {
                format!("log in again: run `CLAUDE_CONFIG_DIR={} claude`, then /login", dir.display())
            }
            Self::TokenEnv(_) => "put a new token into its environment variable (token_env)".to_owned(),
            Self::TokenFile(path) => format!("put a new token into {}", path.display()),
        }
    }
}

impl Config {
    /// The one account there is without a configuration: the login of Claude Code.
    pub(crate) fn of_claude_code() -> Self {
        let id = AccountId::new(quota::anthropic::ANTHROPIC, "main").expect("the name is valid");
        let main = AccountSettings { id, login: LoginSource::ClaudeCode, base_url: None };
        Self {
            policy: Policy::default(),
            anthropic: ProviderSettings::default(),
            accounts: vec![main],
            hooks: Vec::new(),
        }
    }

    /// Reads the configuration at `path`.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be read, or is broken; it says where, what, why, and what to do.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = input::bytes(path)?;
        let name = input::name(path);
        let broken = |line: String| Failure::new(Exit::Config, line);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(broken(format!("{name}: not UTF-8 text; save it as UTF-8")));
        };
        // Paths in it are seen from where it lies, whatever directory the program is started in.
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(text, directory).map_err(|flaw| broken(flaw.told(&name, text)))
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, flaw::Flaw> {
        check::config(file::read(text)?, text, directory)
    }
}

impl Config {
    /// The thresholds that are told of, in hundredths of a percent: the usual ones and those that hooks name.
    pub(crate) fn thresholds(&self) -> Vec<u32> {
        let named = self.hooks.iter().flat_map(|hook| hook.thresholds.iter().copied());
        let mut all: Vec<_> = THRESHOLDS.into_iter().chain(named).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Where the configuration is looked for if nobody names one; `None` if there is no home directory.
pub(crate) fn usual_path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // By its specification, a relative path there is to be ignored.
    let config = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).map(|home| home.join(".config"));
    Some(config.or_else(home)?.join("quota").join("config.toml"))
}

#[cfg(test)]
mod tests;
