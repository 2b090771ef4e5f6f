//! Writing a configuration whole or not at all, and keeping a copy of the one that was there.
//! What is in it does not matter here.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quota::file::{self, FileLock};

use crate::config;

/// More than any file that a person writes.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Writes the file under its lock. If there was one, a copy is kept beside it, whose path is returned.
///
/// # Errors
///
/// Those of the system. What was there is then still there.
pub(super) async fn whole(path: &Path, text: &str, is_there: bool) -> io::Result<Option<PathBuf>> {
    if is_there {
        // Nothing is written if what is there cannot be read.
        file::open(path)?;
    }
    let lock = config::lock(path).await?;
    let lock = lock.ok_or_else(|| io::Error::other("another command is changing it; try again"))?;
    if is_there {
        return replace(&lock, text).map(Some);
    }
    match lock.replace_if_unchanged(None, text.as_bytes())? {
        true => Ok(None),
        // The user was not asked about one that was created in between.
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

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
