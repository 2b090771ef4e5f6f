//! Detects changes to the configuration, to an `accounts.json` of an earlier version, and to their permissions, from
//! file metadata.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use quota::file::{FileVersion, permissions};

use crate::config;

/// The files with their metadata at the last check.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    last: Vec<Option<Identity>>,
}

/// The metadata that changes when a file is written or replaced, or when its permissions change.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    version: FileVersion,
    rights: Rights,
    /// The permissions of each folder that the permission check reads. It does not include the folder's times, because
    /// other files in the folder change them.
    folders: Vec<Option<Rights>>,
}

/// The metadata that the permission check reads.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    owner: u32,
    mode: u32,
}

impl Files {
    /// Checks the given or the default configuration, and an `accounts.json`. Call this before they are read, so that later writes count
    /// as changes.
    pub(super) fn of(config: Option<&Path>) -> Self {
        let config = config.map(Path::to_owned).or_else(config::default_path);
        let accounts = config::accounts_file().map(|file| file.path().to_owned());
        Self::at(config.into_iter().chain(accounts).collect())
    }

    fn at(paths: Vec<PathBuf>) -> Self {
        let last = paths.iter().map(|path| identity(path)).collect();
        Self { paths, last }
    }

    /// Whether a file changed since the last call.
    pub(super) fn have_changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| identity(path)).collect();
        let before = std::mem::replace(&mut self.last, now);
        before != self.last
    }
}

/// `None` if the file does not exist.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    let folders = permissions::folders(path).unwrap_or_default();
    Some(Identity {
        version: FileVersion::of(&metadata),
        rights: rights_of(&metadata),
        folders: folders
            .iter()
            .map(|folder| std::fs::metadata(folder).ok().as_ref().map(rights_of))
            .collect(),
    })
}

#[cfg(unix)]
fn rights_of(metadata: &Metadata) -> Rights {
    use std::os::unix::fs::MetadataExt as _;

    Rights { owner: metadata.uid(), mode: metadata.mode() }
}

#[cfg(not(unix))]
fn rights_of(metadata: &Metadata) -> Rights {
    Rights { owner: 0, mode: metadata.permissions().readonly().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_file_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let mut files = Files::at(vec![path.clone()]);
        let steps: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, "a").unwrap(),
            &|| std::fs::write(&path, "ab").unwrap(),
            &|| {
                let other = folder.path().join("other");
                std::fs::write(&other, "cd").unwrap();
                std::fs::rename(&other, &path).unwrap();
            },
            &|| std::fs::remove_file(&path).unwrap(),
        ];

        for (at, step) in steps.iter().enumerate() {
            step();
            assert!(files.have_changed(), "step {at}");
            assert!(!files.have_changed(), "step {at}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn changed_permissions_are_a_change() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, target) = (folder.path().join("config.toml"), elsewhere.path().join("config.toml"));
        std::fs::write(&target, "a").unwrap();
        symlink(&target, &path).unwrap();
        let mut files = Files::at(vec![path]);

        for path in [&*target, folder.path(), elsewhere.path()] {
            for mode in [0o777, 0o755] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
                assert!(files.have_changed(), "{mode:o} {}", path.display());
                assert!(!files.have_changed(), "{mode:o} {}", path.display());
            }
        }
    }

    #[test]
    fn another_file_in_the_folder_is_not_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "a").unwrap();
        let mut files = Files::at(vec![path]);

        std::fs::write(folder.path().join("other"), "b").unwrap();

        assert!(!files.have_changed());
    }
}
