//! Small files that several programs share: opened safely, locked, and replaced atomically.
//! This module does not interpret their content.

mod held_file;
mod json;
mod lock;
pub mod permissions;
mod private_folder;
mod version;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

pub use self::json::{FileError, JsonContent, JsonFile, LOCK_TIMEOUT};
pub use self::lock::{FileLock, is_lock_unsupported, resolve_symlinks};
pub use self::private_folder::{check_private_folder, create_private_folder, private_temp_folder};
pub use self::version::FileVersion;
use crate::secret::SecretBuffer;

/// Runs a blocking closure on the runtime's blocking thread pool. Dropping the future does not stop the closure.
///
/// # Errors
///
/// The errors of the closure, and an error if the runtime shuts down.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the program is shutting down")),
    }
}

/// Opens a regular file. Symbolic links are followed.
///
/// The path is checked first, because opening a device can have side effects. The open file is checked again, because
/// another file may have replaced it in between. If a pipe has replaced it, opening does not wait for a writer.
///
/// # Errors
///
/// [`io::ErrorKind::IsADirectory`] for a directory, [`io::ErrorKind::InvalidInput`] for anything else that is not a regular file,
/// otherwise the system's error.
pub fn open(path: &Path) -> io::Result<File> {
    expect_regular(&fs::metadata(path)?)?;
    let file = open_nonblocking(path)?;
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

/// Opens a file for reading. If the file is a pipe, this does not wait for a writer.
///
/// # Errors
///
/// The system's error.
#[cfg(unix)]
pub fn open_nonblocking(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

/// Opens a file for reading.
///
/// # Errors
///
/// The system's error.
#[cfg(not(unix))]
pub fn open_nonblocking(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Reads the whole content of an open file of at most `limit` bytes.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] beyond the limit, otherwise the system's error.
pub fn read(file: File, limit: u64) -> io::Result<SecretBuffer> {
    let size = file.metadata()?.len();
    let to_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    SecretBuffer::read(file, to_usize(size), to_usize(limit))
}

/// Opens and reads a regular file on a blocking thread; see [`open`] and [`read`].
///
/// # Errors
///
/// The errors of [`open`] and [`read`].
pub async fn load(path: &Path, limit: u64) -> io::Result<SecretBuffer> {
    let path = path.to_owned();
    blocking(move || read(open(&path)?, limit)).await
}

/// Whether the error means that the file does not exist.
pub fn is_not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes the UTF-8 byte order mark that some editors write.
pub fn strip_bom(contents: &[u8]) -> &[u8] {
    contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents)
}

/// The path with this suffix after its name.
fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Returns options that create a file with access for its owner only.
fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
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
    fn a_file_of_the_limit_size_is_read() {
        assert_eq!(contents_of("12345678", 8).unwrap(), b"12345678");
    }

    #[test]
    fn a_file_over_the_limit_is_rejected() {
        assert_eq!(contents_of("123456789", 8).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn an_open_file_is_read_after_its_path_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let opened = open(&path).unwrap();

        fs::write(dir.path().join("new"), "new and longer").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();

        assert_eq!(&*read(opened, 100).unwrap(), b"old");
    }

    #[test]
    fn opening_a_directory_fails() {
        let dir = tempfile::tempdir().unwrap();

        assert_eq!(open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn opening_a_socket_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();

        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[cfg(unix)]
    #[test]
    fn opening_a_pipe_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();

        // The pipe simulates a file that has replaced the checked one.
        let opened = open_nonblocking(&path).unwrap();

        let error = expect_regular(&opened.metadata().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_path_below_a_file_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();

        assert!(is_not_found(&open(&dir.path().join("file/below")).unwrap_err()));
    }

    #[test]
    fn one_byte_order_mark_is_removed() {
        assert_eq!(strip_bom(b"\xef\xbb\xbfabc"), b"abc");
        assert_eq!(strip_bom(b"abc"), b"abc");
    }
}
