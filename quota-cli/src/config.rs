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
use crate::term::harmless;

pub(crate) use self::flaw::nearest;

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

    /// The configuration that is named or lies where it should, or else the login of Claude Code, whether it is there or not.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there is one and it cannot be used.
    pub(crate) fn named_or_usual(named: Option<&Path>) -> Result<Self, Failure> {
        match named {
            Some(path) => Self::read(path),
            None => Ok(Self::of_usual_path()?.unwrap_or_else(Self::of_claude_code)),
        }
    }

    /// The configuration that lies where it should; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be used.
    pub(crate) fn of_usual_path() -> Result<Option<Self>, Failure> {
        // Whatever is there is read, even what only looks like a file: an unreadable configuration is not a missing one.
        let usual = usual_path().filter(|path| path.symlink_metadata().is_ok());
        usual.map(|path| Self::read(&path)).transpose()
    }

    /// The account of this name: `anthropic/main`, or `main` where only one is called so.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there is none, or it cannot be told which.
    pub(crate) fn account(&self, name: &str) -> Result<&AccountSettings, Failure> {
        let names = || self.accounts.iter().map(|one| one.id.as_str());
        let mut found = self.accounts.iter().filter(|one| one.id.as_str() == name || one.id.name() == name);
        let why = match (found.next(), found.next()) {
            (Some(account), None) => return Ok(account),
            (Some(one), Some(other)) => {
                format!("several accounts are called {name}: {} and {}", one.id, other.id)
            }
            (None, _) => match nearest(name, names()) {
                Some(near) => format!("no account {}; did you mean {near}?", harmless(name)),
                None => format!(
                    "no account {}; there is {}",
                    harmless(name),
                    names().collect::<Vec<_>>().join(", ")
                ),
            },
        };
        Err(Failure::new(Exit::Usage, why))
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
    Some(directory("XDG_CONFIG_HOME", &[".config"])?.join("quota").join("config.toml"))
}

/// The directory that a variable names, or else the one that lies so below the home directory; `None` if there is none.
pub(crate) fn directory(name: &str, below_home: &[&str]) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // By its specification, a relative path there is to be ignored.
    let named = variable(name).filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).filter(|home| home.is_absolute());
    named.or_else(|| Some(home()?.join(below_home.iter().collect::<PathBuf>())))
}

#[cfg(test)]
mod tests;
