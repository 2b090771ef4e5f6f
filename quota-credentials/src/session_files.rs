//! Reads the session files that a provider's own program writes next to its login. The provider's parser in
//! `quota-http` parses them. This module decides which files belong to the current login.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use quota_core::file;
use quota_core::model::LoginId;
use quota_core::{AccountId, CredentialSource as _};

use crate::LoginFile;

/// The folder of the files, next to the login. It contains a folder per year, month and day.
const FOLDER: &str = "sessions";
/// How many days are searched, from the newest folder.
const MAX_DAYS: usize = 3;
/// How many entries of one folder are examined.
const MAX_ENTRIES: usize = 4096;
/// How many files are read, from the newest.
const MAX_FILES: usize = 4;
/// The maximum length of the first line. It may contain the instructions of the session.
const HEAD_LIMIT: u64 = 256 * 1024;
/// How much is read from the end of a file.
const TAIL_LIMIT: u64 = 1024 * 1024;

/// Finds the newest session files of a program with a [`LoginFile`], such as those of Codex, which contain the usage of its login.
///
/// A session file does not name its login. It belongs to the current login if the session began after the login file
/// was last written or replaced, because the program could read no other login since then. So a renewed token also
/// excludes earlier sessions. Symbolic links below the folder of the login are not followed, because several logins may
/// share their target.
#[derive(Debug, Clone)]
pub struct SessionFiles {
    login: LoginFile,
}

/// The parts of a session file that may have usage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionFile {
    /// The first line, which states when the session began.
    pub first_line: Vec<u8>,
    /// The end of the file: at most 1 MiB. Its first and last line may be cut off.
    pub tail: Vec<u8>,
}

/// The newest session files that may belong to the current login.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sessions {
    /// The files, newest first. The caller must skip those that began before [`login_since`](Self::login_since).
    pub files: Vec<SessionFile>,
    /// The current login.
    pub login_id: LoginId,
    /// When the login file was last written or replaced.
    pub login_since: Timestamp,
}

impl SessionFiles {
    /// Uses the sessions in the folder of this login.
    #[must_use]
    pub fn of(login: LoginFile) -> Self {
        Self { login }
    }

    /// Reads the newest files that were written after `newer_than`. `None` if the login is missing or states no login
    /// id.
    ///
    /// At most four files of the last three days are read. If the login changes during the read, the result is `None`. Dropping
    /// the future is safe.
    pub async fn read(&self, account: &AccountId, newer_than: Option<Timestamp>) -> Option<Sessions> {
        let before = self.login_since().await?;
        let login_id = self.login.credential(account).await.ok()?.login.login_id?;
        let path = self.login_path()?;
        let since = newer_than.map_or(before, |newer_than| newer_than.max(before));
        let files = file::blocking(move || Ok(newest_files(&path, since))).await.ok()?;
        // A login that replaced the file in the meantime may own the sessions.
        let login_since = self.login_since().await.filter(|after| *after == before)?;
        Some(Sessions { files, login_id, login_since })
    }

    fn login_path(&self) -> Option<PathBuf> {
        self.login.paths().into_iter().find(|path| path.exists())
    }

    async fn login_since(&self) -> Option<Timestamp> {
        let path = self.login_path()?;
        file::blocking(move || written_at(&path)).await.ok()
    }
}

/// When a file was last written, replaced or renamed. For a symbolic link, the time of the link counts too.
pub(crate) fn written_at(path: &Path) -> io::Result<Timestamp> {
    let times = [changed_at(&fs::symlink_metadata(path)?)?, changed_at(&fs::metadata(path)?)?];
    Ok(times[0].max(times[1]))
}

fn changed_at(metadata: &Metadata) -> io::Result<Timestamp> {
    let modified = time(metadata.modified())?;
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt as _;
        let nanoseconds = i32::try_from(metadata.ctime_nsec()).map_err(io::Error::other)?;
        Timestamp::new(metadata.ctime(), nanoseconds).map_err(io::Error::other)?
    };
    #[cfg(not(unix))]
    let changed = time(metadata.created())?;
    Ok(modified.max(changed))
}

fn time(time: io::Result<std::time::SystemTime>) -> io::Result<Timestamp> {
    Timestamp::try_from(time?).map_err(io::Error::other)
}

/// Reads the newest files next to this login that were written after `since`.
fn newest_files(login: &Path, since: Timestamp) -> Vec<SessionFile> {
    let Some(folder) = login.parent() else { return Vec::new() };
    let Ok(owner) = fs::metadata(login).map(|metadata| owner(&metadata)) else { return Vec::new() };
    let days = numbered(&folder.join(FOLDER)).into_iter().flat_map(|year| numbered(&year));
    let days = days.flat_map(|month| numbered(&month)).take(MAX_DAYS);
    let mut found: Vec<_> = days.flat_map(|day| session_files(&day)).collect();
    found.retain(|(_, metadata)| {
        let written = time(metadata.modified()).is_ok_and(|at| at > since);
        written && self::owner(metadata) == owner
    });
    found.sort_by_key(|(_, metadata)| std::cmp::Reverse(metadata.modified().ok()));
    found.into_iter().take(MAX_FILES).filter_map(|(path, metadata)| read(&path, &metadata).ok()).collect()
}

/// The folders in `folder` whose names are numbers, in descending order.
fn numbered(folder: &Path) -> Vec<PathBuf> {
    let is_number =
        |name: &str| !name.is_empty() && name.len() <= 4 && name.bytes().all(|c| c.is_ascii_digit());
    let folders = entries(folder, is_number, Metadata::is_dir).into_iter().map(|(path, _)| path);
    let mut folders: Vec<_> = folders.collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    folders
}

fn session_files(day: &Path) -> Vec<(PathBuf, Metadata)> {
    let is_session = |name: &str| name.starts_with("rollout-") && name.ends_with(".jsonl");
    entries(day, is_session, Metadata::is_file)
}

/// The entries of a folder with such a name and type. A symbolic link has neither type, and `folder` itself must not be
/// a link.
fn entries(
    folder: &Path,
    is_name: impl Fn(&str) -> bool,
    is_type: impl Fn(&Metadata) -> bool,
) -> Vec<(PathBuf, Metadata)> {
    if !fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named =
        entries.take(MAX_ENTRIES).flatten().filter(|entry| entry.file_name().to_str().is_some_and(&is_name));
    // An entry's metadata does not follow links.
    let typed = named.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    typed.filter(|(_, metadata)| is_type(metadata)).collect()
}

/// Reads the first line and the end of a file.
fn read(path: &Path, expected: &Metadata) -> io::Result<SessionFile> {
    let mut file = file::open(path)?;
    let metadata = file.metadata()?;
    if identity(&metadata) != identity(expected) {
        return Err(io::Error::other("another file has replaced it"));
    }
    let mut first_line = read_at(&mut file, 0, HEAD_LIMIT)?;
    first_line.truncate(first_line.iter().position(|byte| *byte == b'\n').unwrap_or(first_line.len()));
    let tail = read_at(&mut file, metadata.len().saturating_sub(TAIL_LIMIT), TAIL_LIMIT)?;
    Ok(SessionFile { first_line, tail })
}

fn read_at(file: &mut File, start: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(unix)]
fn owner(metadata: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

#[cfg(not(unix))]
fn owner(_metadata: &Metadata) -> u32 {
    0
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests;
