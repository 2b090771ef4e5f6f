//! What to say of a login file that cannot be read.

use std::io;
use std::path::Path;

use quota_core::CredentialError;

/// Says which file could not be read, and what to do about it.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> CredentialError {
    let path = path.display();
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("this program may not read {path}; run it as the user whose login that is")
        }
        io::ErrorKind::IsADirectory => format!("{path} is a directory, not a file; move it away"),
        io::ErrorKind::InvalidInput => format!("{path} is not a regular file; put one in its place"),
        io::ErrorKind::FileTooLarge => format!("{path} is too large to hold a login; see what it is"),
        _ => format!("{path} could not be read; see whether its disk is in order"),
    };
    CredentialError::unreadable(why, error)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn every_failure_is_told_with_the_path_and_what_to_do() {
        for (kind, text) in [
            (
                io::ErrorKind::PermissionDenied,
                "this program may not read /a; run it as the user whose login that is",
            ),
            (io::ErrorKind::IsADirectory, "/a is a directory, not a file; move it away"),
            (io::ErrorKind::InvalidInput, "/a is not a regular file; put one in its place"),
            (io::ErrorKind::FileTooLarge, "/a is too large to hold a login; see what it is"),
            (io::ErrorKind::TimedOut, "/a could not be read; see whether its disk is in order"),
        ] {
            assert_eq!(unreadable(Path::new("/a"), kind.into()).to_string(), text);
        }
    }

    #[test]
    fn what_the_system_said_is_kept_as_the_source() {
        let error = unreadable(Path::new("/a"), io::ErrorKind::PermissionDenied.into());

        assert_eq!(error.source().unwrap().to_string(), "permission denied");
    }
}
