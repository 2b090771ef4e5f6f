//! The version of a file's content, taken from its metadata without reading the file.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Identifies one version of a file's content: the same version means the same content, if the version [is
/// settled](Self::is_settled).
///
/// It consists of the file's device and inode, its size, its modification time, and its status change time. The system
/// sets the latter at each write and rename, and programs cannot change it. Systems other than Unix provide only the
/// size and the modification time.
///
/// ```
/// use quota_core::file::FileVersion;
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("settings.json");
/// std::fs::write(&path, "{}")?;
/// let version = FileVersion::at(&path)?;
/// assert_eq!(FileVersion::at(&path)?, version);
///
/// std::fs::write(&path, "{ }")?;
/// assert_ne!(FileVersion::at(&path)?, version);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    /// In nanoseconds since 1970; 0 if the system does not state it.
    modified: i64,
    /// In nanoseconds since 1970; on systems other than Unix, the modification time.
    changed: i64,
}

/// The coarsest step of file timestamps: FAT has steps of two seconds.
const TIMESTAMP_STEP: SignedDuration = SignedDuration::from_secs(2);

impl FileVersion {
    /// The version that this metadata describes.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let modified = modified.map_or(0, nanoseconds);
        let (device, inode, changed) = device_inode_and_change(metadata, modified);
        Self { device, inode, size: metadata.len(), modified, changed }
    }

    /// The current version of the file at this path. Symbolic links are followed.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether every later write is certain to change the version, if the file had this version at `now`.
    ///
    /// Two writes within one step of the file system's clock can leave the same times and the same size. So a version is settled only
    /// if the last write is older than the coarsest step. Take the version before the content is read, and `now` after it.
    ///
    /// A file server whose clock is more than two seconds behind this host can make a version look settled too early.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        now.checked_sub(TIMESTAMP_STEP).is_ok_and(|settled| self.changed < nanoseconds(settled))
    }
}

/// The time in nanoseconds; the nearest possible value for years that 64 bits cannot state.
fn nanoseconds(time: Timestamp) -> i64 {
    let clamped = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(clamped).expect("the value was clamped")
}

#[cfg(unix)]
fn device_inode_and_change(metadata: &Metadata, _modified: i64) -> (u64, u64, i64) {
    use std::os::unix::fs::MetadataExt as _;

    const NANOSECONDS: i64 = 1_000_000_000;
    let changed = metadata.ctime().saturating_mul(NANOSECONDS).saturating_add(metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), changed)
}

#[cfg(not(unix))]
fn device_inode_and_change(_metadata: &Metadata, modified: i64) -> (u64, u64, i64) {
    (0, 0, modified)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use jiff::ToSpan as _;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        (folder, path)
    }

    /// Sets the modification time to a time in the past.
    fn set_modified(path: &Path) {
        let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
    }

    #[test]
    fn an_unchanged_file_keeps_its_version() {
        let (_folder, path) = file();

        assert_eq!(FileVersion::at(&path).unwrap(), FileVersion::at(&path).unwrap());
    }

    #[test]
    fn another_size_is_another_version() {
        let (_folder, path) = file();
        let before = FileVersion::at(&path).unwrap();

        fs::write(&path, "longer").unwrap();

        assert_ne!(FileVersion::at(&path).unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_has_another_version_despite_equal_size_and_time() {
        let (folder, path) = file();
        let other = folder.path().join("other");
        fs::write(&other, "new").unwrap();
        set_modified(&path);
        set_modified(&other);
        let before = FileVersion::at(&path).unwrap();

        fs::rename(&other, &path).unwrap();

        assert_eq!(FileVersion::at(&path).unwrap().modified, before.modified);
        assert_ne!(FileVersion::at(&path).unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_with_an_old_modification_time_is_not_settled_after_a_write() {
        let (_folder, path) = file();
        set_modified(&path);

        let version = FileVersion::at(&path).unwrap();

        let written = Timestamp::from_nanosecond(version.changed.into()).unwrap();
        assert!(!version.is_settled(written));
        assert!(!version.is_settled(written + 2.seconds()));
        assert!(version.is_settled(written + 2.seconds() + 1.nanosecond()));
    }

    #[test]
    fn a_version_of_the_future_is_not_settled() {
        let (_folder, path) = file();

        assert!(!FileVersion::at(&path).unwrap().is_settled(Timestamp::from_second(1_000).unwrap()));
    }

    #[test]
    fn a_stored_version_equals_itself() {
        let (_folder, path) = file();
        let version = FileVersion::at(&path).unwrap();

        let stored = serde_json::to_string(&version).unwrap();

        assert_eq!(serde_json::from_str::<FileVersion>(&stored).unwrap(), version);
    }
}
