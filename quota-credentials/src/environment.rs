//! The environment variables of this process, or others in their place.
//! Which variables mean what is known where they are read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Environment variables: those of this process, or others that stand in for them.
///
/// Their values are not shown by `Debug`, since some of them are tokens.
///
/// ```
/// use quota_credentials::{ClaudeCode, Environment};
///
/// let environment = Environment::from_vars([("HOME", "/home/me"), ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-abc")]);
/// assert_eq!(format!("{environment:?}"), r#"Environment({"CLAUDE_CODE_OAUTH_TOKEN", "HOME"})"#);
///
/// let source = ClaudeCode::in_environment(&environment);
/// ```
#[derive(Clone, Default)]
pub struct Environment(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    Process,
    Given(Arc<BTreeMap<String, OsString>>),
}

impl Environment {
    /// The environment of this process, as it is whenever somebody looks.
    #[must_use]
    pub fn process() -> Self {
        Self(Kind::Process)
    }

    /// These variables and no others.
    #[must_use]
    pub fn from_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(Kind::Given(Arc::new(variables.collect())))
    }

    /// What a variable is set to; `None` if it is not set, or set to nothing.
    pub(crate) fn var(&self, name: &str) -> Option<OsString> {
        let value = match &self.0 {
            Kind::Process => std::env::var_os(name),
            Kind::Given(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// Where the user's programs keep their state: `$XDG_STATE_HOME`, else `~/.local/state`.
    pub(crate) fn state_home(&self) -> Option<PathBuf> {
        // By its specification, a relative path there is to be ignored.
        let given = self.path("XDG_STATE_HOME").filter(|dir| dir.is_absolute());
        given.or_else(|| Some(self.home()?.join(".local").join("state")))
    }

    /// The same as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from)
    }

    /// The home directory of the user.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        // Windows has no HOME of its own; where a shell sets one, it is the one that shell's programs use.
        self.path("HOME").or_else(|| self.path("USERPROFILE"))
    }

    /// The path with a leading `~/` replaced by the home directory, as a shell would; unchanged if there is none.
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
            Kind::Process => f.write_str("Environment(process)"),
            Kind::Given(variables) => {
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
    fn a_leading_tilde_is_the_home_directory() {
        let environment = Environment::from_vars([("HOME", "/home/me")]);

        assert_eq!(environment.expand("~/tokens/a".into()), Path::new("/home/me/tokens/a"));
    }

    #[test]
    fn a_tilde_that_is_part_of_a_name_is_left_alone() {
        let environment = Environment::from_vars([("HOME", "/home/me")]);

        for path in ["~other/a", "/a/~/b", "a/~", "a~"] {
            assert_eq!(environment.expand(path.into()), Path::new(path));
        }
    }

    #[test]
    fn without_a_home_a_tilde_is_left_alone() {
        let environment = Environment::from_vars([("HOME", "")]);

        assert_eq!(environment.expand("~/a".into()), Path::new("~/a"));
    }

    #[test]
    fn the_home_of_windows_is_known() {
        let environment = Environment::from_vars([("USERPROFILE", r"C:\Users\me")]);

        assert_eq!(environment.home(), Some(PathBuf::from(r"C:\Users\me")));
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_not_set() {
        let environment = Environment::from_vars([("A", "")]);

        assert_eq!(environment.var("A"), None);
    }

    #[test]
    fn the_environment_of_the_process_is_read() {
        // Cargo sets it for every test.
        assert!(Environment::process().var("CARGO_MANIFEST_DIR").is_some());
    }
}
