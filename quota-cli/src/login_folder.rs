//! The folder in which a provider's own program stores its login, similar folders in the home directory, and the
//! commands that add a second login.

use std::path::{Path, PathBuf};

use quota::anthropic::ANTHROPIC;
use quota::http::{OwnLogin, Provider};

use crate::config::check_account_name;
use crate::hint;

/// The folder of a provider's own program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginFolder {
    provider: &'static Provider,
    /// The name of the program.
    pub(crate) program: &'static str,
    /// The command that logs in.
    log_in: &'static str,
    /// The folder relative to the home directory; empty for the home directory itself.
    dir: &'static str,
    /// The login file in the folder.
    file: &'static str,
    /// The variable that names another folder.
    pub(crate) variable: Option<&'static str>,
    /// The folder relative to the one that the variable names; empty for that folder itself.
    below: &'static str,
}

impl LoginFolder {
    /// The folder of the provider's own program, if it has one.
    pub(crate) fn of(provider: &'static Provider) -> Option<Self> {
        match provider.own_login()? {
            OwnLogin::ClaudeCode => Some(Self {
                provider,
                program: "Claude Code",
                log_in: "claude",
                dir: ".claude",
                file: ".credentials.json",
                variable: Some("CLAUDE_CONFIG_DIR"),
                below: "",
            }),
            OwnLogin::File(login) => Some(Self {
                provider,
                program: login.program,
                log_in: login.log_in,
                dir: login.dir,
                file: login.files.first().copied().unwrap_or_default(),
                variable: login.dir_variable,
                below: login.below_variable,
            }),
            _ => None,
        }
    }

    /// The path of the login file, as a user would write it.
    pub(crate) fn file(&self) -> String {
        joined(&["~", self.dir, self.file])
    }

    /// The folder that the variable names in this environment, if it differs from the default.
    pub(crate) fn dir_in_environment(&self, home: &Path) -> Option<PathBuf> {
        let named = std::env::var_os(self.variable?).filter(|value| !value.is_empty())?;
        let named = match Path::new(&named).strip_prefix("~") {
            Ok(rest) => home.join(rest),
            Err(_) => std::path::absolute(&named).ok()?,
        };
        let named = if self.below.is_empty() { named } else { named.join(self.below) };
        (real(&named) != real(&home.join(self.dir))).then(|| below_home(&named, home))
    }

    /// The other folders in the home directory that may contain a login, such as `~/.claude-work`, each with a name for its account.
    pub(crate) fn others(&self, home: &Path) -> Vec<(String, PathBuf)> {
        let (beginning, rest) = self.beginning();
        let used =
            self.dir_in_environment(home).map_or_else(|| home.join(self.dir), |dir| expanded(&dir, home));
        let used = real(&used);
        let entries = std::fs::read_dir(home).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(beginning)).collect();
        names.sort();
        let folder = |name: String| {
            let is_default = name == beginning;
            let dir = if is_default { self.dir.to_owned() } else { joined(&[&name, rest]) };
            let path = home.join(&dir);
            let is_other = path.is_dir() && real(&path) != used;
            is_other.then(|| (account_name(&name[beginning.len()..]), Path::new("~").join(dir)))
        };
        names.into_iter().filter_map(folder).collect()
    }

    /// The commands that add a second login of the provider. `is_taken` says whether an account has this name.
    pub(crate) fn second_login(&self, is_taken: impl Fn(&str) -> bool) -> Vec<String> {
        let name = ["work", "second", "third"].into_iter().find(|name| !is_taken(name)).unwrap_or("another");
        let prefix = match self.provider.other_names().first() {
            _ if self.provider.id() == ANTHROPIC => String::new(),
            Some(usual) => format!("{usual}/"),
            None => format!("{}/", self.provider.id_str()),
        };
        let add = |login: &str| hint::command_without_store(&format!("accounts add {prefix}{name} {login}"));
        let Some(variable) = self.variable else {
            return vec![add(&format!("--token-env QUOTA_{}", name.to_uppercase()))];
        };
        let (beginning, rest) = self.beginning();
        let folder = format!("~/{beginning}-{name}");
        let (option, then) = match self.provider.own_login() {
            Some(OwnLogin::ClaudeCode) => ("--claude-config-dir", "   # then /login"),
            _ => ("--login-dir", ""),
        };
        let log_in = format!("mkdir -p {folder} && {variable}={folder} {}{then}", self.log_in);
        vec![log_in, add(&format!("{option} {}", joined(&[&folder, rest])))]
    }

    /// The first component below the home directory, and the rest of the folder's path.
    fn beginning(&self) -> (&'static str, &'static str) {
        let first = |path: &'static str| path.split_once('/').unwrap_or((path, ""));
        if self.dir.is_empty() { (first(self.file).0, "") } else { first(self.dir) }
    }
}

/// The account name for a folder whose name has this suffix.
fn account_name(ending: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = ending.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
    let name = name.trim_matches(|c| "-_.".contains(c));
    match name {
        "" => "default".to_owned(),
        name if name.len() > 32 || check_account_name(name).is_err() => "other".to_owned(),
        name => name.to_owned(),
    }
}

fn joined(parts: &[&str]) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// The path with links resolved, so that two paths to one folder are equal.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The path with `~` in place of the home directory.
fn below_home(path: &Path, home: &Path) -> PathBuf {
    path.strip_prefix(home).map_or_else(|_| path.to_owned(), |rest| Path::new("~").join(rest))
}

fn expanded(path: &Path, home: &Path) -> PathBuf {
    path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home.join(rest))
}

#[cfg(test)]
mod tests {
    use quota::http::{PROVIDERS, find_provider};

    use super::*;

    fn folder(provider: &str) -> LoginFolder {
        LoginFolder::of(find_provider(provider).unwrap()).unwrap()
    }

    fn others(provider: &str, folders: &[&str]) -> Vec<(String, PathBuf)> {
        let home = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        std::fs::write(home.path().join(".claude.json"), "{}").unwrap();
        folder(provider).others(home.path())
    }

    fn found(name: &str, dir: &str) -> (String, PathBuf) {
        (name.to_owned(), dir.into())
    }

    #[test]
    fn the_other_folders_are_named_after_their_endings() {
        let folders = [".claude", ".claude-work", ".claude2", ".claude_a b", ".clau", ".config/claude"];

        assert_eq!(
            others("anthropic", &folders),
            [found("work", "~/.claude-work"), found("2", "~/.claude2"), found("a-b", "~/.claude_a b")]
        );
    }

    #[test]
    fn a_folder_below_another_one_is_found_in_its_siblings() {
        assert_eq!(
            others("copilot", &[".config/github-copilot", ".config-work/github-copilot", ".config-old/x"]),
            [found("work", "~/.config-work/github-copilot")]
        );
    }

    #[test]
    fn a_program_whose_folder_is_the_home_directory_has_siblings() {
        assert_eq!(others("gemini", &[".gemini", ".gemini-work/.gemini"]), [found("work", "~/.gemini-work")]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_the_default_folder_is_not_another_folder() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".codex")).unwrap();
        std::os::unix::fs::symlink(home.path().join(".codex"), home.path().join(".codex-link")).unwrap();

        assert_eq!(folder("codex").others(home.path()), []);
    }

    #[test]
    fn a_name_that_cannot_be_an_account_is_replaced() {
        assert_eq!(account_name("-sk-ant-oat01-made-up"), "other");
        assert_eq!(account_name("-"), "default");
        assert_eq!(account_name("-work"), "work");
    }

    #[test]
    fn the_commands_for_a_second_login_name_the_folder_twice() {
        assert_eq!(
            folder("codex").second_login(|_| false),
            [
                "mkdir -p ~/.codex-work && CODEX_HOME=~/.codex-work codex login",
                "quota accounts add codex/work --login-dir ~/.codex-work"
            ]
        );
        assert_eq!(
            folder("anthropic").second_login(|name| name == "work"),
            [
                "mkdir -p ~/.claude-second && CLAUDE_CONFIG_DIR=~/.claude-second claude   # then /login",
                "quota accounts add second --claude-config-dir ~/.claude-second"
            ]
        );
        assert_eq!(
            folder("cursor").second_login(|_| false),
            [
                "mkdir -p ~/.config-work && XDG_CONFIG_HOME=~/.config-work cursor-agent login",
                "quota accounts add cursor/work --login-dir ~/.config-work/cursor"
            ]
        );
    }

    #[test]
    fn a_program_without_a_variable_gets_its_second_login_from_a_token() {
        assert_eq!(
            folder("minimax").second_login(|_| false),
            ["quota accounts add minimax/work --token-env QUOTA_WORK"]
        );
    }

    #[test]
    fn each_program_has_commands_for_a_second_login() {
        for folder in PROVIDERS.iter().filter_map(|provider| LoginFolder::of(provider)) {
            let commands = folder.second_login(|_| false);

            assert!(commands.last().unwrap().starts_with("quota accounts add "), "{commands:?}");
        }
    }
}
