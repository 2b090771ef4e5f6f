//! The causes of I/O errors as text, with suggested fixes. The caller names the file.

use std::io;

/// Why a file could not be read.
pub(crate) fn of_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; change the permissions of the file or its folder".to_owned()
        }
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "a part of its path is not a directory".to_owned(),
        _ => plain(error),
    }
}

/// Why a file could not be written.
pub(crate) fn of_write(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "its folder does not exist; create it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; change the permissions of the file or its folder".to_owned()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; free some space".to_owned()
        }
        io::ErrorKind::AlreadyExists => {
            "another file already exists at its path or at the path of its folder".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system is read-only; choose another location".to_owned()
        }
        _ => of_read(error),
    }
}

/// The system's text, without the OS error number.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string().split(" (os error ").next().unwrap_or_default().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [io::ErrorKind; 7] = [
        io::ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::StorageFull,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::Other,
    ];

    #[test]
    fn each_kind_has_a_text() {
        let texts = KINDS.map(|kind| [of_read(&kind.into()), of_write(&kind.into())].join(" | "));

        insta::assert_debug_snapshot!(texts);
    }

    #[cfg(unix)]
    #[test]
    fn no_text_contains_an_os_error_number() {
        for number in 1..=120 {
            let error = io::Error::from_raw_os_error(number);
            for text in [of_read(&error), of_write(&error), plain(&error)] {
                assert!(!text.contains("os error") && !text.is_empty(), "{number}: {text}");
            }
        }
    }
}
