//! Whether the configuration or the accounts file has changed, told by what the file system says of them.
//! What is in them is read by `config`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config;

/// The files as they were last seen.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Identity>>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Files {
    /// The accounts file, and the configuration that is named or lies where it should. To be called before they are read:
    /// what is written after that is a change.
    pub(super) fn of(config: Option<&Path>) -> Self {
        let config = config.map(Path::to_owned).or_else(config::usual_path);
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
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Identity { inode, size: metadata.len(), modified: metadata.modified().ok() })
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
}
