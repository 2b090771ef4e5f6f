//! Writing a file whole or not at all, for its owner alone, and keeping the one that was there.
//! What is in it does not matter here.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes the file; what was there is kept beside it, and its path is the answer.
///
/// # Errors
///
/// What the system said. What was there is then still there.
pub(super) fn whole(path: &Path, text: &str, is_there: bool) -> io::Result<Option<PathBuf>> {
    // A link stays one: what it leads to is written.
    let target = if is_there { path.canonicalize()? } else { path.to_owned() };
    // A pipe or a device may never end.
    if is_there && !target.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
    }
    let draft = beside(&target, &format!(".new-{:016x}", fastrand::u64(..)));
    let placed = write_new(&draft, text.as_bytes()).and_then(|()| place(&draft, &target, is_there));
    // After a rename it is not there any more, and after a failure nobody wants it.
    let _ = fs::remove_file(&draft);
    placed
}

fn place(draft: &Path, target: &Path, is_there: bool) -> io::Result<Option<PathBuf>> {
    if !is_there {
        // Not a rename: somebody may have made one meanwhile, and was not asked.
        return fs::hard_link(draft, target).map(|()| None);
    }
    let kept = beside(target, &format!(".before-{:016x}", fastrand::u64(..)));
    write_new(&kept, &fs::read(target)?)?;
    fs::rename(draft, target).map(|()| Some(kept))
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
