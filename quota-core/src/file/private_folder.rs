//! A folder in the temporary directory that only this user can use.

use std::io;
use std::path::{Path, PathBuf};

/// The path of this user's folder in the temporary directory. It may not exist; see [`check_private_folder`].
#[must_use]
pub fn private_temp_folder() -> PathBuf {
    std::env::temp_dir().join(folder_name())
}

#[cfg(unix)]
fn folder_name() -> String {
    // All users share the temporary directory.
    format!("quota-{}", rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn folder_name() -> String {
    "quota".to_owned()
}

/// Creates the folder with mode 0700, unless it exists. Its parent must exist.
///
/// # Errors
///
/// The system's error. Follow it with [`check_private_folder`]: another user may have created the folder.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Checks that the path is a folder of this user, that no other user can use it, and that it is no symbolic link.
///
/// The temporary directory is sticky, so that no other user can replace the folder after the check.
///
/// # Errors
///
/// [`io::ErrorKind::PermissionDenied`] with the reason, or the system's error if the folder is missing.
pub fn check_private_folder(path: &Path) -> io::Result<()> {
    // Do not follow a link, because another user may have planted it.
    let found = std::fs::symlink_metadata(path)?;
    let refused = |reason: &str| {
        let text = format!("{} {reason}", path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    };
    if !found.is_dir() {
        return refused("is not a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        if found.uid() != rustix::process::geteuid().as_raw() {
            return refused("belongs to another user");
        }
        if found.mode() & 0o077 != 0 {
            return refused("is accessible to other users");
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn is_refused(path: &Path) -> bool {
        check_private_folder(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_created_folder_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("quota");

        create_private_folder(&path).unwrap();
        create_private_folder(&path).unwrap();

        check_private_folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_to_a_private_folder_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (path, link) = (parent.path().join("quota"), parent.path().join("link"));
        create_private_folder(&path).unwrap();
        symlink(&path, &link).unwrap();

        assert!(is_refused(&link));
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("quota");
        create_private_folder(&path).unwrap();

        for mode in [0o710, 0o701, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(is_refused(&path), "{mode:o}");
        }
    }

    #[test]
    fn a_file_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("quota");
        fs::write(&path, "").unwrap();

        create_private_folder(&path).unwrap();

        assert!(is_refused(&path));
    }
}
