//! Checks the owner and mode of the file, which only its owner may use. This module changes no permissions, but its
//! errors name the command that does.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

use quota_core::store::StoreError;

use crate::error;

/// The identity of a file, which shows whether the path now leads to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    device: u64,
    number: u64,
}

#[cfg(unix)]
impl FileId {
    pub(crate) fn of(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: found.dev(), number: found.ino() }
    }
}

#[cfg(not(unix))]
impl FileId {
    /// On other systems an open file cannot be replaced.
    pub(crate) fn of(_found: &Metadata) -> Self {
        Self { device: 0, number: 0 }
    }
}

/// Creates a file that only this user can use.
#[cfg(unix)]
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Creates a file.
#[cfg(not(unix))]
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

/// Whether this is an empty regular file.
pub(crate) fn is_empty_file(found: &Metadata) -> bool {
    found.is_file() && found.len() == 0
}

/// Checks that only this user can use the file, its log and the log's index. The log contains the latest writes.
#[cfg(unix)]
pub(crate) fn check_files(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt as _;

    use crate::error::sibling;

    let siblings = ["-wal", "-shm"].map(|ending| sibling(path, ending));
    // A file that is missing, or that another process removes during the check, needs no check.
    let siblings = siblings.map(|path| fs::metadata(&path).ok().map(|found| (path, found)));
    let all = || {
        let sibling = siblings.iter().flatten().map(|(path, found)| (path.as_path(), found));
        std::iter::once((path, found)).chain(sibling)
    };
    let (own, mut foreign, mut too_open) = (effective_uid(), Vec::new(), Vec::new());
    for (path, found) in all() {
        if found.uid() != own {
            foreign.push(path);
        } else if found.mode() & 0o077 != 0 {
            too_open.push(path);
        }
    }
    if let [first, ..] = foreign[..] {
        return Err(StoreError::rejected(format!(
            "{} belongs to another user; use another file, or run: sudo chown {own} {}",
            first.display(),
            quoted_list(&foreign)
        )));
    }
    if let [first, ..] = too_open[..] {
        return Err(StoreError::rejected(format!(
            "{} is accessible to other users; run: chmod 600 {}",
            first.display(),
            quoted_list(&too_open)
        )));
    }
    Ok(())
}

#[cfg(unix)]
fn quoted_list(paths: &[&Path]) -> String {
    paths.iter().map(|path| error::shell_quoted(path)).collect::<Vec<_>>().join(" ")
}

/// Maps an error of the operating system for a path. If a folder denies access, the error names the folder and the command that opens it.
#[cfg(unix)]
pub(crate) fn from_io(what: &str, path: &Path, error: io::Error) -> StoreError {
    use std::os::unix::fs::MetadataExt as _;

    // The deepest folder that can be inspected is the one that denies access.
    let stat = |folder| fs::metadata(folder).ok().map(|found| (folder, found));
    let closed = path.ancestors().skip(1).find_map(stat);
    let Some((folder, found)) = closed.filter(|_| error.kind() == io::ErrorKind::PermissionDenied) else {
        return error::from_io(what, path, error);
    };
    let (at, quoted) = (folder.display(), error::shell_quoted(folder));
    let hint = if found.uid() == effective_uid() {
        format!("run: chmod u+rwx {quoted}")
    } else {
        let (owner, own) = (found.uid(), effective_uid());
        format!("it belongs to user {owner}; use a folder of your own, or run: sudo chown {own} {quoted}")
    };
    StoreError::rejected(format!(
        "could not {what} {}: no permission for the folder {at}; {hint}",
        path.display()
    ))
    .with_source(error)
}

/// Checks the folder of a file.
pub(crate) fn check_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    let found = fs::metadata(folder).map_err(|error| error::from_io("find", folder, error))?;
    check_folder(folder, &found)
}

/// Checks that no other user can create files in the folder: SQLite would apply a planted log to the database.
#[cfg(unix)]
fn check_folder(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt as _;

    use crate::error::shell_quoted;

    if found.uid() != effective_uid() && found.uid() != 0 {
        return Err(StoreError::rejected(format!(
            "the folder {} belongs to another user; use a folder of your own",
            path.display()
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(StoreError::rejected(match found.mode() & 0o1000 {
            0 => {
                format!("other users can write to {}; run: chmod go-w {}", path.display(), shell_quoted(path))
            }
            // The sticky bit marks a shared folder such as /tmp.
            _ => format!(
                "all users can write to {}; use a folder of your own: mkdir -m 700 {}",
                path.display(),
                shell_quoted(&path.join("quota"))
            ),
        }));
    }
    Ok(())
}

#[cfg(unix)]
fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
pub(crate) fn check_files(_path: &Path, _found: &Metadata) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn from_io(what: &str, path: &Path, error: io::Error) -> StoreError {
    error::from_io(what, path, error)
}

#[cfg(not(unix))]
fn check_folder(_path: &Path, _found: &Metadata) -> Result<(), StoreError> {
    Ok(())
}
