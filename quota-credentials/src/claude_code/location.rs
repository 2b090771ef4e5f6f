//! The places where a login of Claude Code may be, and what to say of one where it is not.
//! Looking at them is done in `claude_code`.

use std::fmt;
use std::path::PathBuf;

use quota_core::{Credential, CredentialError};

use super::login_file::Flaw;

/// What ends every line that says nobody is logged in.
const ADVICE: &str = "run `claude` and log in";

/// A place where a login of Claude Code may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialLocation {
    /// An environment variable, by its name.
    Variable(&'static str),
    /// An item of the keychain of macOS, by its name.
    Keychain(String),
    /// A file.
    File(PathBuf),
}

impl fmt::Display for CredentialLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::Keychain(item) => write!(f, "the keychain item {item:?}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What was found at one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveredCredential {
    /// Where.
    pub location: CredentialLocation,
    /// The login, or why there is none. Whose it is, is said only of the copy that counts.
    pub result: Result<Credential, CredentialError>,
    /// Whether this is the copy that counts.
    pub is_active: bool,
}

/// Why a place holds no login.
#[derive(Debug)]
pub(super) enum Miss {
    /// There is no such place.
    Absent,
    /// What is there is no login.
    Flawed(Flaw),
    /// The place could not be read.
    Unreadable(CredentialError),
}

/// What underlies an error about damage. What was there instead is not told: it may be half a token.
#[derive(Debug, thiserror::Error)]
#[error("its content is not JSON")]
struct NotJson;

impl Miss {
    /// What is the matter with the place, if nothing is but that it holds no login.
    fn phrase(&self) -> Option<&'static str> {
        match self {
            Self::Absent => Some("does not exist"),
            Self::Flawed(Flaw::Empty) => Some("is empty"),
            Self::Flawed(Flaw::Blank) => Some("holds a login without a token"),
            Self::Flawed(Flaw::Foreign) => Some("holds no login of Claude Code"),
            Self::Flawed(Flaw::Damaged) | Self::Unreadable(_) => None,
        }
    }

    /// The answer if this was the only place.
    pub(super) fn into_error(self, place: &CredentialLocation) -> CredentialError {
        match (self.phrase(), self) {
            (Some(phrase), _) => CredentialError::not_logged_in(format!("{place} {phrase}; {ADVICE}")),
            (None, Self::Unreadable(error)) => error,
            (None, _) => CredentialError::unreadable(format!("{place} is damaged; {ADVICE} again"), NotJson),
        }
    }
}

/// The answer if no place holds a login: the first that could not be read, or else what was looked for.
pub(super) fn nobody<'a>(
    misses: impl IntoIterator<Item = (&'a CredentialLocation, Miss)>,
) -> CredentialError {
    let mut looked_for = Vec::new();
    for (place, miss) in misses {
        match miss.phrase() {
            Some(phrase) => looked_for.push(format!("{place} {phrase}")),
            None => return miss.into_error(place),
        }
    }
    if looked_for.is_empty() {
        return CredentialError::not_logged_in(
            "neither CLAUDE_CONFIG_DIR nor HOME says where a login of Claude Code may be; set one of them",
        );
    }
    CredentialError::not_logged_in(format!("{}; {ADVICE}", looked_for.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> CredentialLocation {
        CredentialLocation::File(path.into())
    }

    #[test]
    fn a_single_place_is_told_with_what_is_the_matter_and_what_to_do() {
        let told = |miss: Miss| miss.into_error(&file("/a")).to_string();

        assert_eq!(told(Miss::Absent), "/a does not exist; run `claude` and log in");
        assert_eq!(told(Miss::Flawed(Flaw::Empty)), "/a is empty; run `claude` and log in");
        assert_eq!(
            told(Miss::Flawed(Flaw::Blank)),
            "/a holds a login without a token; run `claude` and log in"
        );
        assert_eq!(
            told(Miss::Flawed(Flaw::Foreign)),
            "/a holds no login of Claude Code; run `claude` and log in"
        );
        assert_eq!(told(Miss::Flawed(Flaw::Damaged)), "/a is damaged; run `claude` and log in again");
    }

    #[test]
    fn of_several_places_all_are_told() {
        let keychain = CredentialLocation::Keychain("Claude Code-credentials".to_owned());

        let error = nobody([(&keychain, Miss::Absent), (&file("/a"), Miss::Flawed(Flaw::Blank))]);

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the keychain item \"Claude Code-credentials\" does not exist, /a holds a login without a token; \
             run `claude` and log in"
        );
    }

    #[test]
    fn a_place_that_could_not_be_read_goes_before_those_that_hold_nothing() {
        let error = nobody([(&file("/a"), Miss::Absent), (&file("/b"), Miss::Flawed(Flaw::Damaged))]);

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().starts_with("/b is damaged"), "{error}");
    }

    #[test]
    fn nowhere_to_look_is_told_with_what_to_do() {
        let error = nobody([]);

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert!(error.to_string().ends_with("set one of them"), "{error}");
    }
}
