//! Environment variables of this process, or a given set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A set of environment variables: those of this process, or given ones.
///
/// `Debug` shows only their names, because some values are tokens.
///
/// ```
/// use quota_credentials::{ClaudeCode, Environment};
///
/// let variables = [("HOME", "/home/me"), ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-abc")];
/// let environment = Environment::from_vars(variables);
/// assert_eq!(format!("{environment:?}"), r#"Environment({"CLAUDE_CODE_OAUTH_TOKEN", "HOME"})"#);
///
/// let source = ClaudeCode::in_environment(&environment);
/// ```
#[derive(Clone, Default)]
pub struct Environment(Variables);

#[derive(Clone, Default)]
enum Variables {
    #[default]
    Process,
    Given(Arc<BTreeMap<String, OsString>>),
}

impl Environment {
    /// The environment of this process. Each use reads it again.
    #[must_use]
    pub fn process() -> Self {
        Self(Variables::Process)
    }

    /// Exactly these variables.
    #[must_use]
    pub fn from_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(Variables::Given(Arc::new(variables.collect())))
    }

    /// Reads a variable; `None` if it is unset or empty.
    pub(crate) fn var(&self, name: &str) -> Option<OsString> {
        let value = match &self.0 {
            Variables::Process => std::env::var_os(name),
            Variables::Given(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// Reads a variable as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from)
    }

    /// A base directory: the variable `name` of the XDG specification, otherwise `default` in the home directory.
    pub(crate) fn xdg_dir(&self, name: &str, default: &str) -> Option<PathBuf> {
        // The specification requires relative paths to be ignored.
        let given = self.path(name).filter(|dir| dir.is_absolute());
        given.or_else(|| Some(self.home()?.join(default)))
    }

    /// The home directory of the user.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        // Windows has no HOME. A shell that sets it there wants programs to use it.
        self.path("HOME").or_else(|| self.path("USERPROFILE"))
    }

    /// Replaces a leading `~/` by the home directory. Without a home directory the path is unchanged.
    pub(crate) fn expand(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix(Path::new("~")), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Variables::Process => f.write_str("Environment(process)"),
            Variables::Given(variables) => {
                f.write_str("Environment(")?;
                f.debug_set().entries(variables.keys()).finish()?;
                f.write_str(")")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_tilde_expands_to_the_home_directory() {
        let environment = Environment::from_vars([("HOME", "/home/me")]);

        assert_eq!(environment.expand("~/tokens/a".into()), Path::new("/home/me/tokens/a"));
    }

    #[test]
    fn a_tilde_within_a_path_is_unchanged() {
        let environment = Environment::from_vars([("HOME", "/home/me")]);

        for path in ["~other/a", "/a/~/b", "a/~", "a~"] {
            assert_eq!(environment.expand(path.into()), Path::new(path));
        }
    }

    #[test]
    fn without_a_home_directory_a_tilde_is_unchanged() {
        let environment = Environment::from_vars([("HOME", "")]);

        assert_eq!(environment.expand("~/a".into()), Path::new("~/a"));
    }

    #[test]
    fn userprofile_is_the_home_directory_on_windows() {
        let environment = Environment::from_vars([("USERPROFILE", r"C:\Users\me")]);

        assert_eq!(environment.home(), Some(PathBuf::from(r"C:\Users\me")));
    }

    #[test]
    fn an_empty_variable_is_unset() {
        let environment = Environment::from_vars([("A", "")]);

        assert_eq!(environment.var("A"), None);
    }

    #[test]
    fn the_environment_of_the_process_is_read() {
        // Cargo sets this variable for each test.
        assert!(Environment::process().var("CARGO_MANIFEST_DIR").is_some());
    }
}
