//! The locations of a login of Claude Code, and the errors of locations without one.

use std::fmt;
use std::path::PathBuf;

use quota_core::{Credential, CredentialError};

use super::login_file::ParseError;

const LOG_IN_HINT: &str = "run `claude` and log in";

/// A location of a login of Claude Code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialLocation {
    /// An environment variable, identified by its name.
    Variable(&'static str),
    /// An item of the macOS keychain, identified by its name.
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

/// The result of reading one location.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveredCredential {
    /// The location.
    pub location: CredentialLocation,
    /// The login, or why there is none. Only the active copy has a login id.
    pub result: Result<Credential, CredentialError>,
    /// Whether this is the copy in use.
    pub is_active: bool,
}

/// Why a location yields no login.
#[derive(Debug)]
pub(super) enum LookupError {
    /// The location does not exist.
    NotFound,
    /// Its content is not a login.
    NoLogin(ParseError),
    /// It could not be read.
    Unreadable(CredentialError),
}

/// The source of an error about malformed content. It does not repeat the content, which may include a token.
#[derive(Debug, thiserror::Error)]
#[error("its content is not JSON")]
struct NotJson;

impl LookupError {
    /// Why the location has no login; `None` if that is unknown.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("does not exist"),
            Self::NoLogin(ParseError::Empty) => Some("is empty"),
            Self::NoLogin(ParseError::MissingToken) => Some("has a login without a token"),
            Self::NoLogin(ParseError::UnknownFormat) => Some("has no login of Claude Code"),
            Self::NoLogin(ParseError::Malformed) | Self::Unreadable(_) => None,
        }
    }

    /// The error of this location alone.
    pub(super) fn into_credential_error(self, location: &CredentialLocation) -> CredentialError {
        match (self.reason(), self) {
            (Some(reason), _) => {
                CredentialError::not_logged_in(format!("{location} {reason}; {LOG_IN_HINT}"))
            }
            (None, Self::Unreadable(error)) => error,
            (None, _) => {
                let reason = format!("could not parse {location}: it is not JSON; {LOG_IN_HINT} again");
                CredentialError::unreadable(reason, NotJson)
            }
        }
    }
}

/// The error if no location has a login: the first location that could not be read, otherwise a list of all locations.
pub(super) fn no_login_error<'a>(
    errors: impl IntoIterator<Item = (&'a CredentialLocation, LookupError)>,
) -> CredentialError {
    let mut reasons = Vec::new();
    for (location, error) in errors {
        match error.reason() {
            Some(reason) => reasons.push(format!("{location} {reason}")),
            None => return error.into_credential_error(location),
        }
    }
    if reasons.is_empty() {
        return CredentialError::not_logged_in(
            "could not find a login of Claude Code: neither CLAUDE_CONFIG_DIR nor HOME is set; set one of them",
        );
    }
    CredentialError::not_logged_in(format!("{}; {LOG_IN_HINT}", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> CredentialLocation {
        CredentialLocation::File(path.into())
    }

    #[test]
    fn an_error_names_the_location_the_reason_and_what_to_do() {
        let text = |error: LookupError| error.into_credential_error(&file("/a")).to_string();

        assert_eq!(text(LookupError::NotFound), "/a does not exist; run `claude` and log in");
        assert_eq!(text(LookupError::NoLogin(ParseError::Empty)), "/a is empty; run `claude` and log in");
        assert_eq!(
            text(LookupError::NoLogin(ParseError::MissingToken)),
            "/a has a login without a token; run `claude` and log in"
        );
        assert_eq!(
            text(LookupError::NoLogin(ParseError::UnknownFormat)),
            "/a has no login of Claude Code; run `claude` and log in"
        );
        assert_eq!(
            text(LookupError::NoLogin(ParseError::Malformed)),
            "could not parse /a: it is not JSON; run `claude` and log in again"
        );
    }

    #[test]
    fn an_error_names_all_locations() {
        let keychain = CredentialLocation::Keychain("Claude Code-credentials".to_owned());

        let error = no_login_error([
            (&keychain, LookupError::NotFound),
            (&file("/a"), LookupError::NoLogin(ParseError::MissingToken)),
        ]);

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the keychain item \"Claude Code-credentials\" does not exist, /a has a login without a token; \
             run `claude` and log in"
        );
    }

    #[test]
    fn an_unreadable_location_is_reported_first() {
        let error = no_login_error([
            (&file("/a"), LookupError::NotFound),
            (&file("/b"), LookupError::NoLogin(ParseError::Malformed)),
        ]);

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().starts_with("could not parse /b"), "{error}");
    }

    #[test]
    fn an_error_without_locations_names_the_variables_to_set() {
        let error = no_login_error([]);

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert!(error.to_string().ends_with("set one of them"), "{error}");
    }
}
