//! Who may use the file: its owner, and nobody else.
//! Nothing here changes what is there; the error names the command that does.

use std::fs::Metadata;
use std::path::Path;

use quota_core::StoreError;

/// Which file a path leads to, so that one that was replaced is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Which {
    device: u64,
    number: u64,
}

#[cfg(unix)]
impl Which {
    pub(crate) fn of(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: found.dev(), number: found.ino() }
    }
}

#[cfg(not(unix))]
impl Which {
    /// Elsewhere an open file cannot be replaced.
    pub(crate) fn of(_found: &Metadata) -> Self {
        Self { device: 0, number: 0 }
    }
}

/// Whether the file is its owner's alone.
#[cfg(unix)]
pub(crate) fn check_file(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt as _;

    use crate::failure::quoted;

    let quoted = quoted(path);
    if found.uid() != own_id() {
        return Err(StoreError::refused(format!(
            "{} belongs to another user; name another file, or run: sudo chown {} {quoted}",
            path.display(),
            own_id()
        )));
    }
    if found.mode() & 0o077 != 0 {
        return Err(StoreError::refused(format!(
            "others may use {}; run: chmod 600 {quoted}",
            path.display()
        )));
    }
    Ok(())
}

/// Whether nobody else may lay a file into the folder: SQLite would take it for the log of the database.
#[cfg(unix)]
pub(crate) fn check_folder(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt as _;

    use crate::failure::quoted;

    if found.uid() != own_id() && found.uid() != 0 {
        return Err(StoreError::refused(format!(
            "the folder {} belongs to another user; name a file in one of your own",
            path.display()
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(StoreError::refused(match found.mode() & 0o1000 {
            0 => format!("others may write in {}; run: chmod go-w {}", path.display(), quoted(path)),
            // It is sticky, so it is meant for everybody, like /tmp.
            _ => format!(
                "everybody may write in {}; name a file in a folder of your own: mkdir -m 700 {}",
                path.display(),
                quoted(&path.join("quota"))
            ),
        }));
    }
    Ok(())
}

#[cfg(unix)]
fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
pub(crate) fn check_file(_path: &Path, _found: &Metadata) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn check_folder(_path: &Path, _found: &Metadata) -> Result<(), StoreError> {
    Ok(())
}
