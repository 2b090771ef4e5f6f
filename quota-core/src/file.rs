//! Small files that several programs read and write: opened safely, locked, and replaced whole or not at all.
//! What they hold is for their users to judge.

mod json;
mod lock;
pub mod permissions;

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

pub use self::json::{FileError, JsonContent, JsonFile, LOCK_TIMEOUT};
pub use self::lock::{FileLock, resolve_symlinks};
use crate::SecretBuffer;

/// Runs work that waits for a disk where it holds nobody up. Dropping the future leaves the work to end by itself.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the program is shutting down")),
    }
}

/// Opens a regular file, also by a link to it.
///
/// The path is examined first, because opening a device can have effects. The open file is examined again: something else may have
/// taken its place since, such as a pipe, for whose other end it does not wait.
pub fn open(path: &Path) -> io::Result<File> {
    expect_regular(&fs::metadata(path)?)?;
    let file = open_without_waiting(path)?;
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(())
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Reads the whole of an open file, if it is no larger than `limit` bytes.
///
/// One handle means one file: if another takes its place meanwhile, the two are not mixed.
pub fn read(file: File, limit: u64) -> io::Result<SecretBuffer> {
    let size = file.metadata()?.len();
    let in_memory = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    SecretBuffer::read(file, in_memory(size), in_memory(limit))
}

/// Whether the error says that there is no such file.
pub fn is_not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A text file may begin with a mark that says it is UTF-8; some editors write one.
pub fn strip_bom(contents: &[u8]) -> &[u8] {
    contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents_of(text: &str, limit: u64) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("file");
        fs::write(&path, text)?;
        Ok(read(open(&path)?, limit)?.to_vec())
    }

    #[test]
    fn a_file_as_large_as_the_limit_is_read() {
        assert_eq!(contents_of("12345678", 8).unwrap(), b"12345678");
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        assert_eq!(contents_of("123456789", 8).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_read_is_not_mixed_with_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let opened = open(&path).unwrap();

        fs::write(dir.path().join("new"), "new and longer").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();

        assert_eq!(&*read(opened, 100).unwrap(), b"old");
    }

    #[test]
    fn a_directory_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();

        assert_eq!(open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_neither_file_nor_directory_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();

        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_opened_without_a_wait_for_its_other_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();

        // As if it had taken the place of a file that was examined before.
        let opened = open_without_waiting(&path).unwrap();

        let refused = expect_regular(&opened.metadata().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_path_through_a_file_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();

        assert!(is_not_found(&open(&dir.path().join("file/below")).unwrap_err()));
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert_eq!(strip_bom(b"\xef\xbb\xbfabc"), b"abc");
        assert_eq!(strip_bom(b"abc"), b"abc");
    }
}
