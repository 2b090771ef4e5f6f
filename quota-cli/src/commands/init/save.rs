//! Writes a configuration atomically, and keeps a backup of the previous one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quota::file::{self, FileLock};

use crate::config;

/// The size limit for the previous file, larger than any real configuration.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Writes the file while holding its lock. Returns the path of the backup if there was a file.
///
/// # Errors
///
/// An I/O error. The previous file is then unchanged.
pub(super) async fn write_atomic(path: &Path, text: &str, exists: bool) -> io::Result<Option<PathBuf>> {
    if exists {
        // Fail before any write if the previous file cannot be read.
        file::open(path)?;
    }
    let lock = config::lock(path).await?;
    let lock = lock.ok_or_else(|| io::Error::other("another process is changing it; try again"))?;
    if exists {
        return replace(&lock, text).map(Some);
    }
    match lock.replace_if_unchanged(None, text.as_bytes())? {
        true => Ok(None),
        // Another program has created the file in the meantime, and the user has not agreed to overwrite it.
        false => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

fn replace(lock: &FileLock, text: &str) -> io::Result<PathBuf> {
    let before = file::read(file::open(lock.target())?, LIMIT)?;
    let copy = beside(lock.target(), &format!(".before-{:016x}", fastrand::u64(..)));
    write_new(&copy, &before)?;
    let replaced = lock.replace_if_unchanged(Some(&before), text.as_bytes());
    if !matches!(replaced, Ok(true)) {
        let _ = fs::remove_file(&copy);
        replaced?;
        return Err(io::Error::other("another program has just changed it; try again"));
    }
    Ok(copy)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
