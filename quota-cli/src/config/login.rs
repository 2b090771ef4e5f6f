//! Where the login of an account is. `context` creates the credential source for it.

use std::path::{Path, PathBuf};

use quota::AccountId;
use quota::credentials::LoginFile;
use quota::http::{OwnLogin, Provider};
use quota::provider::ProgramLogin;
use serde::{Deserialize, Serialize};

use crate::sanitize::sanitize;
use crate::token_like::{looks_like_a_token, masked};

/// Where the login of an account is. None of it is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoginSource {
    /// In the default location of Claude Code.
    ClaudeCode,
    /// In the location of Claude Code for this CLAUDE_CONFIG_DIR.
    ClaudeConfigDir(PathBuf),
    /// In the file of the provider's own program, such as Codex.
    #[serde(skip)]
    Program(Program),
    /// In the file of that program in another folder.
    #[serde(skip)]
    ProgramDir(Program, PathBuf),
    /// In an environment variable.
    TokenEnv(String),
    /// In a separate file.
    TokenFile(PathBuf),
    /// On the standard output of a program, with its arguments.
    TokenCommand(Vec<String>),
    /// In quota's own file. quota renews this login.
    #[serde(skip)]
    Own,
    /// In the keyring of the operating system.
    #[serde(skip)]
    Keyring(KeyringItem),
}

/// An item of the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyringItem {
    pub(crate) service: String,
    /// The user of the item; `None` if it is the name of the account, such as `anthropic/work`.
    pub(crate) user: Option<String>,
}

impl KeyringItem {
    /// The user of the item of this account.
    pub(crate) fn user_for<'a>(&'a self, account: &'a AccountId) -> &'a str {
        self.user.as_deref().unwrap_or(account.as_str())
    }

    fn describe(&self) -> String {
        let user = self.user.as_ref().map(|user| format!(" of {}", masked(user))).unwrap_or_default();
        format!("keyring item {}{user}", masked(&self.service))
    }
}

/// A provider's own program, which stores its login in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) provider: &'static Provider,
    pub(crate) login: ProgramLogin,
}

impl Program {
    /// The provider's own program, if it stores its login in a file.
    pub(crate) fn of(provider: &'static Provider) -> Option<Self> {
        match provider.own_login()? {
            OwnLogin::File(login) => Some(Self { provider, login: *login }),
            _ => None,
        }
    }

    /// The file with the login: in this folder, or where the program looks for it in this environment.
    pub(crate) fn login_file(&self, dir: Option<&Path>) -> LoginFile {
        let file = LoginFile::new(self.provider.id(), self.login);
        match dir {
            Some(dir) => file.in_dir(dir),
            None => file,
        }
    }

    /// The assignment, as written before a command, that makes the program use this folder; empty if there is no such
    /// variable.
    fn variable_for(&self, dir: &Path) -> String {
        let Some(name) = self.login.dir_variable else { return String::new() };
        // Some variables name the parent of the folder.
        let named = dir.to_str().and_then(|dir| match self.login.below_variable {
            "" => Some(dir),
            below => Some(dir.trim_end_matches('/').strip_suffix(below)?.trim_end_matches('/')),
        });
        named.map_or_else(String::new, |named| format!("{name}={named} "))
    }
}

impl LoginSource {
    /// The login of an account of this provider without a login setting; `None` if it must have one.
    pub(crate) fn default_of(provider: &'static Provider) -> Option<Self> {
        let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match provider.own_login() {
            Some(OwnLogin::ClaudeCode) => Some(Self::ClaudeCode),
            Some(_) => Program::of(provider).map(Self::Program),
            None => {
                let variables = provider.variables();
                let variable = variables.iter().find(is_set).or(variables.first())?;
                Some(Self::TokenEnv((*variable).to_owned()))
            }
        }
    }

    /// The login of the provider's own program in this folder; `None` if there is no such program.
    pub(crate) fn in_dir(provider: &'static Provider, dir: PathBuf) -> Option<Self> {
        match provider.own_login()? {
            OwnLogin::ClaudeCode => Some(Self::ClaudeConfigDir(dir)),
            _ => Program::of(provider).map(|program| Self::ProgramDir(program, dir)),
        }
    }

    /// The program that owns the login, if any.
    pub(crate) fn program(&self) -> Option<&'static str> {
        match self {
            Self::ClaudeCode | Self::ClaudeConfigDir(_) => Some("Claude Code"),
            Self::Program(program) | Self::ProgramDir(program, _) => Some(program.login.program),
            _ => None,
        }
    }

    /// What to do if the provider rejects the login.
    pub(crate) fn hint(&self) -> String {
        self.how_to("log in again", "a new token")
    }

    /// What to do if there is no login.
    pub(crate) fn hint_if_missing(&self) -> String {
        self.how_to("log in", "a token")
    }

    fn how_to(&self, log_in: &str, token: &str) -> String {
        match self {
            Self::ClaudeCode => format!("{log_in}: run `claude`, then /login"),
            Self::ClaudeConfigDir(dir) => {
                format!("{log_in}: run `CLAUDE_CONFIG_DIR={} claude`, then /login", dir.display())
            }
            Self::Program(program) => format!("{log_in}: run `{}`", program.login.log_in),
            Self::ProgramDir(program, dir) => {
                format!("{log_in}: run `{}{}`", program.variable_for(dir), program.login.log_in)
            }
            Self::TokenEnv(_) => format!("put {token} into its environment variable (token_env)"),
            Self::TokenFile(path) => format!("put {token} into {}", path.display()),
            Self::TokenCommand(_) => format!("make its program (token_command) print {token}"),
            Self::Own => format!("{log_in}: run `quota accounts login` for this account"),
            Self::Keyring(item) => format!("put {token} into the {}", item.describe()),
        }
    }

    /// Makes paths absolute, but keeps `~`, because the home directory may move.
    pub(crate) fn absolute(self) -> Self {
        let absolute = |path: PathBuf| match path.starts_with("~") {
            true => path,
            false => std::path::absolute(&path).unwrap_or(path),
        };
        match self {
            Self::ClaudeCode | Self::Program(_) | Self::TokenEnv(_) | Self::Keyring(_) | Self::Own => self,
            Self::ProgramDir(program, path) => Self::ProgramDir(program, absolute(path)),
            Self::ClaudeConfigDir(path) => Self::ClaudeConfigDir(absolute(path)),
            Self::TokenFile(path) => Self::TokenFile(absolute(path)),
            Self::TokenCommand(mut words) => {
                // A name without a slash is looked up in PATH.
                if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                    *program = absolute(PathBuf::from(&*program)).display().to_string();
                }
                Self::TokenCommand(words)
            }
        }
    }

    /// The environment variable of the token, if its name is valid.
    pub(crate) fn variable(&self) -> Option<&str> {
        match self {
            Self::TokenEnv(name) if !name.is_empty() && !name.contains(['=', '\0']) => Some(name),
            _ => None,
        }
    }

    /// Describes the source, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::ClaudeCode => "login of Claude Code".to_owned(),
            Self::ClaudeConfigDir(dir) => sanitize(&format!("login of Claude Code in {}", shown(dir))),
            Self::Program(program) => format!("login of {}", program.login.program),
            Self::ProgramDir(program, dir) => {
                sanitize(&format!("login of {} in {}", program.login.program, shown(dir)))
            }
            Self::TokenEnv(name) if is_variable(name) => format!("variable {name}"),
            Self::TokenEnv(_) => "variable (name not shown)".to_owned(),
            Self::TokenFile(path) => sanitize(&format!("file {}", shown(path))),
            Self::TokenCommand(words) => {
                sanitize(&format!("program {}", words.first().map_or("", |program| masked(program))))
            }
            Self::Keyring(item) => sanitize(&item.describe()),
            Self::Own => "login of quota".to_owned(),
        }
    }

    /// The kind and the name of the source, for JSON. The arguments of a command are omitted.
    pub(crate) fn kind(&self) -> (&'static str, Option<String>) {
        match self {
            Self::ClaudeCode => ("claude_code", None),
            Self::ClaudeConfigDir(dir) => ("claude_config_dir", Some(shown(dir))),
            Self::Program(_) => ("program", None),
            Self::ProgramDir(_, dir) => ("login_dir", Some(shown(dir))),
            Self::TokenEnv(name) => ("token_env", is_variable(name).then(|| name.clone())),
            Self::TokenFile(path) => ("token_file", Some(shown(path))),
            Self::TokenCommand(words) => {
                ("token_command", words.first().map(|program| masked(program).to_owned()))
            }
            Self::Own => ("own_login", None),
            Self::Keyring(item) => ("keyring", Some(masked(&item.service).to_owned())),
        }
    }
}

/// A path for output, masked if it looks like a token.
fn shown(path: &Path) -> String {
    masked(&path.display().to_string()).to_owned()
}

/// Whether a text is a valid variable name.
pub(crate) fn is_variable(name: &str) -> bool {
    const LONGEST: usize = 64;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.len() <= LONGEST
        && name.chars().all(is_plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !looks_like_a_token(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_sources_have_a_stable_json_form() {
        let logins = [
            LoginSource::ClaudeCode,
            LoginSource::ClaudeConfigDir("~/.claude-work".into()),
            LoginSource::TokenEnv("QUOTA_WORK".into()),
            LoginSource::TokenFile("/run/token".into()),
            LoginSource::TokenCommand(vec!["pass".into(), "show".into(), "work".into()]),
        ];

        insta::assert_json_snapshot!(logins);
        let written = serde_json::to_string(&logins).unwrap();
        assert_eq!(serde_json::from_str::<[LoginSource; 5]>(&written).unwrap(), logins);
    }

    #[test]
    fn the_command_that_logs_in_names_the_folder_of_the_variable() {
        let hint = |provider: &str, dir: &str| {
            let program = Program::of(quota::http::find_provider(provider).unwrap()).unwrap();
            LoginSource::ProgramDir(program, dir.into()).hint_if_missing()
        };

        assert_eq!(hint("codex", "~/.codex-work"), "log in: run `CODEX_HOME=~/.codex-work codex login`");
        assert_eq!(
            hint("cursor", "~/.config-work/cursor"),
            "log in: run `XDG_CONFIG_HOME=~/.config-work cursor-agent login`"
        );
    }

    #[test]
    fn a_token_given_as_a_variable_name_is_not_shown() {
        for token in ["sk-ant-oat01-made-up", &"a".repeat(65), "1abc"] {
            let login = LoginSource::TokenEnv(token.to_owned());

            assert!(!login.describe().contains(token), "{token}");
            assert_eq!(login.kind(), ("token_env", None));
        }
    }

    #[test]
    fn a_token_given_as_a_path_or_program_is_not_shown() {
        let token = "sk-ant-oat01-made-up";
        for login in [
            LoginSource::ClaudeConfigDir(token.into()),
            LoginSource::TokenFile(token.into()),
            LoginSource::TokenCommand(vec![token.into()]),
            LoginSource::Keyring(KeyringItem { service: token.into(), user: Some(token.into()) }),
        ] {
            assert!(
                !format!("{} {:?}", login.describe(), login.kind()).contains("made-up"),
                "{}",
                login.describe()
            );
        }
    }
}
