//! Checks that only this user and root may change a file that names programs and hosts. The errors suggest the command that
//! fixes the permissions.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file must not be used. Another user may have written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// The file belongs to neither this user nor root.
    #[error("{} belongs to another user (id {owner}); run: sudo chown {own} {}", path.display(), quoted(path))]
    #[non_exhaustive]
    Foreign {
        /// The path of the file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user id of this process.
        own: u32,
    },
    /// A folder above the file belongs to another user, and users other than root may write to it. It may be a system
    /// folder, so the error suggests no command to change it.
    #[error("other users may write in {}; keep the file in a folder of your own", path.display())]
    #[non_exhaustive]
    SharedFolder {
        /// The path of the folder.
        path: PathBuf,
    },
    /// Other users may write the file, or replace it in a folder of this user above it.
    #[error("other users may write {}; run: chmod go-w {}", paths[0].display(), quoted_list(paths))]
    #[non_exhaustive]
    Writable {
        /// The paths of the writable file and folders; at least one.
        paths: Vec<PathBuf>,
    },
}

/// Checks that only this user and root may change or replace an open file.
///
/// `path` is the path with which it was opened. The handle is checked, so a file that replaces it later has no effect.
/// Folders are checked for regular files only, because a pipe from another program of this user has no folder.
///
/// # Errors
///
/// The inner result is [`Untrusted`] if other users may change or replace the file. The outer error is the system's.
#[cfg(unix)]
pub fn check(file: &File, path: &Path) -> io::Result<Result<(), Untrusted>> {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    let access = |metadata: fs::Metadata| Access { owner: metadata.uid(), mode: metadata.mode() };
    let opened = file.metadata()?;
    if opened.file_type().is_char_device() {
        // A device such as /dev/null does not return data that other users wrote to it.
        return Ok(Ok(()));
    }
    let is_file = opened.is_file();
    let mut checked = vec![(path.to_owned(), access(opened))];
    if is_file {
        for folder in folders(path)? {
            let access = access(fs::metadata(&folder)?);
            checked.push((folder, access));
        }
    }
    Ok(evaluate(&checked, rustix::process::geteuid().as_raw()))
}

/// Whether an open file belongs to this user, and no other user except root may read or change it.
///
/// # Errors
///
/// The system's error.
#[cfg(unix)]
pub fn is_private(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = file.metadata()?;
    Ok(metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0)
}

/// Returns `true`, because other systems have no such permissions.
#[cfg(not(unix))]
pub fn is_private(_file: &File) -> io::Result<bool> {
    Ok(true)
}

/// The folders that [`check`] examines. A user who may write in one of them can replace the file.
///
/// They are the folders above the file up to the home directory, otherwise up to the root, as in `StrictModes` of OpenSSH. For a
/// symbolic link they include those above its target.
///
/// # Errors
///
/// The system's error if the file does not exist.
pub fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let target_of_home = home.as_ref().and_then(|home| home.canonicalize().ok());
    let homes: Vec<_> = home.into_iter().chain(target_of_home).collect();
    for path in [std::path::absolute(path)?, std::fs::canonicalize(path)?] {
        for folder in folders_above(&path, &homes) {
            if !folders.iter().any(|earlier| earlier == folder) {
                folders.push(folder.to_owned());
            }
        }
    }
    Ok(folders)
}

/// The folders above an absolute path, from its parent up to a home directory or the root.
fn folders_above<'a>(path: &'a Path, homes: &[PathBuf]) -> Vec<&'a Path> {
    let mut folders = Vec::new();
    for folder in path.ancestors().skip(1) {
        folders.push(folder);
        if homes.iter().any(|home| home == folder) {
            break;
        }
    }
    folders
}

/// Accepts every file, because other systems have no such permissions.
#[cfg(not(unix))]
pub fn check(_file: &File, _path: &Path) -> io::Result<Result<(), Untrusted>> {
    Ok(Ok(()))
}

/// The owner and the mode of a file or a folder.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
struct Access {
    owner: u32,
    mode: u32,
}

#[cfg(unix)]
fn evaluate(checked: &[(PathBuf, Access)], own: u32) -> Result<(), Untrusted> {
    for (path, access) in checked {
        let is_foreign = access.owner != own && access.owner != 0;
        if is_foreign && !access.is_folder() {
            return Err(Untrusted::Foreign { path: path.clone(), owner: access.owner, own });
        }
        if is_foreign || access.owner != own && access.is_folder() && access.is_writable_by_others() {
            return Err(Untrusted::SharedFolder { path: path.clone() });
        }
    }
    let writable = checked.iter().filter(|(_, access)| access.is_writable_by_others());
    let paths: Vec<_> = writable.map(|(path, _)| path.clone()).collect();
    if paths.is_empty() { Ok(()) } else { Err(Untrusted::Writable { paths }) }
}

#[cfg(unix)]
impl Access {
    fn is_writable_by_others(self) -> bool {
        const WRITE: u32 = 0o022;
        const STICKY: u32 = 0o1000;
        // In a sticky folder, such as /tmp, only its owner can rename a file.
        let is_sticky_folder = self.is_folder() && self.mode & STICKY != 0;
        self.mode & WRITE != 0 && !is_sticky_folder
    }

    fn is_folder(self) -> bool {
        const FOLDER: u32 = 0o040_000;
        const FILE_TYPE: u32 = 0o170_000;
        self.mode & FILE_TYPE == FOLDER
    }
}

fn quoted_list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" ")
}

/// The path, quoted for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const FILE: u32 = 0o100_000;
    const FOLDER: u32 = 0o040_000;

    fn error_of(owner: u32, mode: u32) -> Option<String> {
        evaluate(&[("/x".into(), Access { owner, mode })], 1000).err().map(|error| error.to_string())
    }

    #[test]
    fn an_own_or_root_file_that_only_its_owner_may_write_is_trusted() {
        for (owner, mode) in [(1000, 0o600), (1000, 0o644), (0, 0o644)] {
            assert_eq!(error_of(owner, FILE | mode), None);
        }
    }

    #[test]
    fn a_file_of_another_user_is_not_trusted() {
        let error = error_of(1001, FILE | 0o600).unwrap();

        assert_eq!(error, "/x belongs to another user (id 1001); run: sudo chown 1000 '/x'");
    }

    #[test]
    fn the_error_for_a_foreign_folder_suggests_no_command() {
        let shared = "other users may write in /x; keep the file in a folder of your own";
        for (owner, mode) in [(1001, 0o755), (0, 0o775)] {
            assert_eq!(error_of(owner, FOLDER | mode).unwrap(), shared);
        }
    }

    #[test]
    fn a_file_writable_by_group_or_others_is_not_trusted() {
        for mode in [0o620, 0o602, 0o666] {
            assert_eq!(
                error_of(1000, FILE | mode).unwrap(),
                "other users may write /x; run: chmod go-w '/x'"
            );
        }
    }

    #[test]
    fn one_command_fixes_all_writable_paths() {
        let wide = |path: &str, mode| (path.into(), Access { owner: 1000, mode });

        let error = evaluate(&[wide("/a/b", FILE | 0o664), wide("/a", FOLDER | 0o775)], 1000).unwrap_err();

        assert_eq!(error.to_string(), "other users may write /a/b; run: chmod go-w '/a/b' '/a'");
    }

    #[test]
    fn a_folder_writable_by_others_is_trusted_only_if_it_is_sticky() {
        assert!(error_of(0, FOLDER | 0o777).is_some());
        assert_eq!(error_of(0, FOLDER | 0o1777), None);
        assert!(error_of(1000, FILE | 0o1666).is_some(), "the sticky bit has no effect on a file");
    }

    /// A file in a new folder, both with the usual permissions.
    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        (folder, path)
    }

    fn checked(path: &Path) -> Result<(), Untrusted> {
        check(&File::open(path).unwrap(), path).unwrap()
    }

    #[test]
    fn the_open_file_is_checked_and_not_its_replacement() {
        let (folder, path) = file();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let opened = File::open(&path).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        fs::write(&path, "").unwrap();

        assert_eq!(check(&opened, &path).unwrap(), Err(Untrusted::Writable { paths: vec![path] }));
    }

    #[test]
    fn the_folders_of_a_link_and_of_its_target_are_checked() {
        let ((_one, target), (other, _)) = (file(), file());
        let link = other.path().join("link");
        symlink(&target, &link).unwrap();
        assert_eq!(checked(&link), Ok(()));

        for folder in [other.path(), target.parent().unwrap()] {
            fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
            assert!(matches!(checked(&link), Err(Untrusted::Writable { .. })), "{}", folder.display());
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn folders_are_checked_up_to_the_home_directory_or_the_root() {
        let above = |path: &'static str| folders_above(Path::new(path), &["/home/me".into()]);

        assert_eq!(above("/home/me/a/b"), ["/home/me/a", "/home/me"].map(Path::new));
        assert_eq!(above("/etc/quota/b"), ["/etc/quota", "/etc", "/"].map(Path::new));
    }

    #[test]
    fn a_writable_folder_above_the_parent_is_rejected() {
        let (top, _) = file();
        let above = top.path().join("above");
        fs::create_dir_all(above.join("own")).unwrap();
        let path = above.join("own/file");
        fs::write(&path, "").unwrap();
        for (path, mode) in [(path.clone(), 0o644), (above.join("own"), 0o755), (above.clone(), 0o777)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }

        assert_eq!(checked(&path), Err(Untrusted::Writable { paths: vec![above.clone()] }));

        fs::set_permissions(&above, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(checked(&path), Ok(()));
    }

    #[test]
    fn a_device_writable_by_all_is_trusted() {
        assert_eq!(checked(Path::new("/dev/null")), Ok(()));
    }

    #[test]
    fn the_folder_of_a_pipe_is_not_checked() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));

        assert_eq!(check(&file, Path::new("/dev/fd/63")).unwrap(), Ok(()));
    }
}
