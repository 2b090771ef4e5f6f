//! Whether the configuration (or the `accounts.json` of an earlier version) has changed, or who may write it, by the metadata of the
//! file system.
//! What is in them is read by `config`.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use quota::file::permissions;

use crate::config;

/// The files as they were last seen.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Identity>>,
}

/// What changes when a file is written or replaced, or when another user may write it or no longer may.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
    /// When anything of it last changed, also its rights, in nanoseconds.
    changed: i128,
    rights: Rights,
    /// Of each folder that the rights check reads. Their times do not count: other files in them change these.
    folders: Vec<Option<Rights>>,
}

/// What the rights check reads of a file or a folder.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    owner: u32,
    mode: u32,
}

impl Files {
    /// The configuration that is named or the usual one, and an `accounts.json`. To be called before they are read:
    /// what is written after that is a change.
    pub(super) fn of(config: Option<&Path>) -> Self {
        let config = config.map(Path::to_owned).or_else(config::default_path);
        let accounts = config::accounts_file().map(|file| file.path().to_owned());
        Self::at(config.into_iter().chain(accounts).collect())
    }

    fn at(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| identity(path)).collect();
        Self { paths, seen }
    }

    /// Whether one of them is another than when this was called last.
    pub(super) fn have_changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| identity(path)).collect();
        let before = std::mem::replace(&mut self.seen, now);
        before != self.seen
    }
}

/// `None` if there is no such file.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    let (inode, changed) = inode_and_change(&metadata);
    let folders = permissions::folders(path).unwrap_or_default();
    Some(Identity {
        inode,
        size: metadata.len(),
        modified: metadata.modified().ok(),
        changed,
        rights: rights_of(&metadata),
        folders: folders
            .iter()
            .map(|folder| std::fs::metadata(folder).ok().as_ref().map(rights_of))
            .collect(),
    })
}

#[cfg(unix)]
fn inode_and_change(metadata: &Metadata) -> (u64, i128) {
    use std::os::unix::fs::MetadataExt as _;

    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    (metadata.ino(), changed)
}

#[cfg(not(unix))]
fn inode_and_change(_metadata: &Metadata) -> (u64, i128) {
    (0, 0)
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
    fn a_file_that_appears_is_written_replaced_or_removed_has_changed_once() {
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
    fn other_rights_of_the_file_its_target_or_their_folders_are_a_change() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, target) = (folder.path().join("config.toml"), elsewhere.path().join("config.toml"));
        std::fs::write(&target, "a").unwrap();
        symlink(&target, &path).unwrap();
        let mut files = Files::at(vec![path]);

        for place in [&*target, folder.path(), elsewhere.path()] {
            for mode in [0o777, 0o755] {
                std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
                assert!(files.have_changed(), "{mode:o} {}", place.display());
                assert!(!files.have_changed(), "{mode:o} {}", place.display());
            }
        }
    }

    #[test]
    fn another_file_in_the_same_folder_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "a").unwrap();
        let mut files = Files::at(vec![path]);

        std::fs::write(folder.path().join("other"), "b").unwrap();

        assert!(!files.have_changed());
    }
}
