//! Whether a file that names programs and hosts may be believed: only its user and root may change it.
//! Nothing here changes what is there; the error names the command that does.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file must not be used: another user may have written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// The file belongs to neither this user nor root.
    #[error("{} belongs to another user (id {owner}); run: sudo chown {own} {}", path.display(), quoted(path))]
    #[non_exhaustive]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This user.
        own: u32,
    },
    /// A folder above the file belongs to another user than this one, and users other than root may write in it. It may be a folder of
    /// the system, so no command is suggested that changes it.
    #[error("other users may write in {}; keep the file in a folder of your own", path.display())]
    #[non_exhaustive]
    SharedFolder {
        /// Which folder.
        path: PathBuf,
    },
    /// Others than its owner may write the file, or put another one into a folder of this user above it.
    #[error("others may write {}; run: chmod go-w {}", paths[0].display(), listed(paths))]
    #[non_exhaustive]
    Writable {
        /// Which file and folders; one at least.
        paths: Vec<PathBuf>,
    },
}

/// Whether only this user and root may change what an open file holds, or put another one in its place.
///
/// `path` is how it was opened. The file itself is checked by its handle, so a file that replaces it later changes nothing. Only a
/// regular file has a folder that counts: a pipe from another program of this user has none.
///
/// # Errors
///
/// [`Untrusted`] inside, if others may. That of the system outside, if it does not say.
#[cfg(unix)]
pub fn check(file: &File, path: &Path) -> io::Result<Result<(), Untrusted>> {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    let found = |found: fs::Metadata| Found { owner: found.uid(), mode: found.mode() };
    let opened = file.metadata()?;
    if opened.file_type().is_char_device() {
        // What others write to a device, such as /dev/null, is not what is read from it.
        return Ok(Ok(()));
    }
    let is_file = opened.is_file();
    let mut places = vec![(path.to_owned(), found(opened))];
    if is_file {
        for folder in folders(path)? {
            let found = found(fs::metadata(&folder)?);
            places.push((folder, found));
        }
    }
    Ok(judge(&places, rustix::process::geteuid().as_raw()))
}

/// The folders whose rights [`check`] reads: a user who may write in one of them chooses the file.
///
/// They are those above the file, up to the home directory or else the root, as in `StrictModes` of OpenSSH. A link has folders, and so
/// has its target.
///
/// # Errors
///
/// That of the system if there is no such file.
pub fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let target_of_home = home.as_ref().and_then(|home| home.canonicalize().ok());
    let homes: Vec<_> = home.into_iter().chain(target_of_home).collect();
    for place in [std::path::absolute(path)?, std::fs::canonicalize(path)?] {
        for folder in folders_above(&place, &homes) {
            if !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_owned());
            }
        }
    }
    Ok(folders)
}

/// The folders above an absolute path, from its own up to a home directory or the root.
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

/// Elsewhere there are no such rights.
#[cfg(not(unix))]
pub fn check(_file: &File, _path: &Path) -> io::Result<Result<(), Untrusted>> {
    Ok(Ok(()))
}

/// Who owns a file or a folder, and who may write it.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
struct Found {
    owner: u32,
    mode: u32,
}

#[cfg(unix)]
fn judge(places: &[(PathBuf, Found)], own: u32) -> Result<(), Untrusted> {
    for (path, found) in places {
        let is_foreign = found.owner != own && found.owner != 0;
        if is_foreign && !found.is_folder() {
            return Err(Untrusted::Foreign { path: path.clone(), owner: found.owner, own });
        }
        if is_foreign || found.owner != own && found.is_folder() && found.is_writable_by_others() {
            return Err(Untrusted::SharedFolder { path: path.clone() });
        }
    }
    let writable = places.iter().filter(|(_, found)| found.is_writable_by_others());
    let paths: Vec<_> = writable.map(|(path, _)| path.clone()).collect();
    if paths.is_empty() { Ok(()) } else { Err(Untrusted::Writable { paths }) }
}

#[cfg(unix)]
impl Found {
    fn is_writable_by_others(self) -> bool {
        const WRITE: u32 = 0o022;
        const STICKY: u32 = 0o1000;
        // In a sticky folder, such as /tmp, only its owner moves a file.
        let is_sticky_folder = self.is_folder() && self.mode & STICKY != 0;
        self.mode & WRITE != 0 && !is_sticky_folder
    }

    fn is_folder(self) -> bool {
        const FOLDER: u32 = 0o040_000;
        const KIND: u32 = 0o170_000;
        self.mode & KIND == FOLDER
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" ")
}

/// A path as a shell takes it for one word.
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

    fn judged(owner: u32, mode: u32) -> Option<String> {
        judge(&[("/x".into(), Found { owner, mode })], 1000).err().map(|error| error.to_string())
    }

    #[test]
    fn a_file_of_this_user_or_of_root_that_others_cannot_write_is_trusted() {
        for (owner, mode) in [(1000, 0o600), (1000, 0o644), (0, 0o644)] {
            assert_eq!(judged(owner, FILE | mode), None);
        }
    }

    #[test]
    fn a_file_of_another_user_is_not_trusted() {
        let told = judged(1001, FILE | 0o600).unwrap();

        assert_eq!(told, "/x belongs to another user (id 1001); run: sudo chown 1000 '/x'");
    }

    #[test]
    fn no_command_changes_a_folder_of_another_user() {
        let shared = "other users may write in /x; keep the file in a folder of your own";
        for (owner, mode) in [(1001, 0o755), (0, 0o775)] {
            assert_eq!(judged(owner, FOLDER | mode).unwrap(), shared);
        }
    }

    #[test]
    fn a_file_that_group_or_others_may_write_is_not_trusted() {
        for mode in [0o620, 0o602, 0o666] {
            assert_eq!(judged(1000, FILE | mode).unwrap(), "others may write /x; run: chmod go-w '/x'");
        }
    }

    #[test]
    fn all_that_others_may_write_is_closed_by_one_command() {
        let wide = |path: &str, mode| (path.into(), Found { owner: 1000, mode });

        let error = judge(&[wide("/a/b", FILE | 0o664), wide("/a", FOLDER | 0o775)], 1000).unwrap_err();

        assert_eq!(error.to_string(), "others may write /a/b; run: chmod go-w '/a/b' '/a'");
    }

    #[test]
    fn a_folder_that_others_may_write_is_trusted_only_if_it_is_sticky() {
        assert!(judged(0, FOLDER | 0o777).is_some());
        assert_eq!(judged(0, FOLDER | 0o1777), None);
        assert!(judged(1000, FILE | 0o1666).is_some(), "on a file the bit says nothing");
    }

    /// A file in a folder of its own, both with the usual rights.
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
    fn the_opened_file_counts_and_not_one_that_took_its_place() {
        let (folder, path) = file();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let opened = File::open(&path).unwrap();
        fs::rename(&path, folder.path().join("away")).unwrap();
        fs::write(&path, "").unwrap();

        assert_eq!(check(&opened, &path).unwrap(), Err(Untrusted::Writable { paths: vec![path] }));
    }

    #[test]
    fn the_folder_of_a_link_and_of_its_target_count() {
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
    fn folders_count_up_to_the_home_directory_or_the_root() {
        let above = |path: &'static str| folders_above(Path::new(path), &["/home/me".into()]);

        assert_eq!(above("/home/me/a/b"), ["/home/me/a", "/home/me"].map(Path::new));
        assert_eq!(above("/etc/quota/b"), ["/etc/quota", "/etc", "/"].map(Path::new));
    }

    #[test]
    fn a_folder_higher_up_that_others_may_write_counts() {
        let (top, _) = file();
        let above = top.path().join("above");
        fs::create_dir_all(above.join("own")).unwrap();
        let path = above.join("own/file");
        fs::write(&path, "").unwrap();
        for (place, mode) in [(path.clone(), 0o644), (above.join("own"), 0o755), (above.clone(), 0o777)] {
            fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
        }

        assert_eq!(checked(&path), Err(Untrusted::Writable { paths: vec![above.clone()] }));

        fs::set_permissions(&above, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(checked(&path), Ok(()));
    }

    #[test]
    fn a_device_that_all_may_write_is_trusted() {
        assert_eq!(checked(Path::new("/dev/null")), Ok(()));
    }

    #[test]
    fn a_pipe_of_this_user_has_no_folder_that_counts() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));

        assert_eq!(check(&file, Path::new("/dev/fd/63")).unwrap(), Ok(()));
    }
}
