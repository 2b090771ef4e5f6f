//! Errors that several sources use.

use std::io;
use std::path::Path;

use quota_core::{AccountId, CredentialError};

/// Rejects accounts of other providers, so that no other provider receives the token.
pub(crate) fn check_provider(
    account: &AccountId,
    provider: &str,
    program: &str,
) -> Result<(), CredentialError> {
    if account.provider().as_str() == provider {
        return Ok(());
    }
    let reason = format!("the login of {program} is not for {account}; configure another source for it");
    Err(CredentialError::not_logged_in(reason))
}

/// The error for a file: its path, the cause, and a suggested fix.
pub(crate) fn read_error(path: &Path, error: io::Error) -> CredentialError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => ": permission denied; run this program as the owner of the login",
        io::ErrorKind::IsADirectory => ": it is a directory; move it away",
        io::ErrorKind::InvalidInput => ": it is not a regular file; replace it with one",
        io::ErrorKind::FileTooLarge => ": it is too large for a login; check the path",
        _ => "; check the disk",
    };
    CredentialError::unreadable(format!("could not read {}{hint}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn each_error_names_the_path_and_what_to_do() {
        for (kind, text) in [
            (
                io::ErrorKind::PermissionDenied,
                "could not read /a: permission denied; run this program as the owner of the login",
            ),
            (io::ErrorKind::IsADirectory, "could not read /a: it is a directory; move it away"),
            (io::ErrorKind::InvalidInput, "could not read /a: it is not a regular file; replace it with one"),
            (io::ErrorKind::FileTooLarge, "could not read /a: it is too large for a login; check the path"),
            (io::ErrorKind::TimedOut, "could not read /a; check the disk"),
        ] {
            assert_eq!(read_error(Path::new("/a"), kind.into()).to_string(), text);
        }
    }

    #[test]
    fn the_operating_systems_error_is_the_source() {
        let error = read_error(Path::new("/a"), io::ErrorKind::PermissionDenied.into());

        assert_eq!(error.source().unwrap().to_string(), "permission denied");
    }
}
