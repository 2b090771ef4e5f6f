//! Caches the login ids of unchanged state files in a file, so that not every process must parse a large state file.
//!
//! It is only a cache: if the file is lost or damaged, a process parses the state file itself.

use std::io;
use std::path::{Path, PathBuf};

use quota_core::Clock;
use quota_core::file::{self, FileLock, FileVersion, permissions};
use quota_core::model::LoginId;
use serde::{Deserialize, Serialize};

use crate::token;

/// The minimum size of a state file to remember. Parsing a smaller one takes no longer than reading the memory.
const MIN_SIZE: u64 = 128 * 1024;
/// The number of state files that are remembered. A user has one per configuration directory.
const MAX_FILES: usize = 16;
/// The maximum size of the memory. An entry takes about 200 bytes.
const LIMIT: u64 = 64 * 1024;
const FORMAT: u32 = 1;

/// The memory of one user, shared by all processes.
#[derive(Debug, Clone)]
pub(super) struct LoginMemory {
    path: PathBuf,
    clock: Clock,
}

/// The content of the file. It contains neither a path nor an account, only their hashes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    #[serde(default)]
    format: u32,
    /// The entries in the order in which they were added.
    #[serde(default)]
    files: Vec<Entry>,
}

/// The part of the file that all formats share.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default)]
    format: u64,
}

/// The content of the file.
#[derive(Debug)]
enum Found {
    Content(Content),
    /// The file of a newer program, which must not be changed.
    Newer,
    /// There is no file, it is damaged, or another user may have written it.
    Nothing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// The hash of the path of the state file.
    path: String,
    version: FileVersion,
    /// `None` if the state file names no login.
    login_id: Option<LoginId>,
}

impl LoginMemory {
    pub(super) fn at(path: PathBuf, clock: Clock) -> Self {
        Self { path, clock }
    }

    /// The remembered login id of this version of the state file; `None` if the version is unknown.
    ///
    /// `Some(None)` means that the state file names no login.
    pub(super) fn get(&self, state_file: &Path, version: &FileVersion) -> Option<Option<LoginId>> {
        if version.size() < MIN_SIZE {
            return None;
        }
        let Found::Content(content) = self.read() else { return None };
        let path = hash(state_file);
        let entry =
            content.files.into_iter().find(|entry| entry.path == path && entry.version == *version)?;
        Some(entry.login_id)
    }

    /// Remembers the login id of this version, if any later write is certain to change the version. The version must be
    /// older than the read that found the login id.
    pub(super) fn put(&self, state_file: &Path, version: &FileVersion, login_id: Option<&LoginId>) {
        if version.size() < MIN_SIZE || !version.is_settled(self.clock.now()) {
            return;
        }
        if let Err(error) = self.try_put(state_file, version, login_id) {
            tracing::debug!(%error, path = %self.path.display(), "login id not remembered");
        }
    }

    fn try_put(
        &self,
        state_file: &Path,
        version: &FileVersion,
        login_id: Option<&LoginId>,
    ) -> io::Result<()> {
        // If another process is writing, it has parsed the same state file, or the next process will remember this one.
        let Some(lock) = FileLock::try_acquire(&self.path, ".lock")? else { return Ok(()) };
        let lock = lock.remove_on_release();
        let mut content = match self.read() {
            Found::Content(content) => content,
            Found::Newer => return Ok(()),
            Found::Nothing => Content::default(),
        };
        content.format = FORMAT;
        let path = hash(state_file);
        content.files.retain(|entry| entry.path != path);
        let surplus = (content.files.len() + 1).saturating_sub(MAX_FILES);
        content.files.drain(..surplus);
        content.files.push(Entry { path, version: *version, login_id: login_id.cloned() });
        // Do not wait for the disk, because a file that a power failure damages is replaced.
        lock.replace_cache(&serde_json::to_vec(&content)?)
    }

    fn read(&self) -> Found {
        let opened = file::open(&self.path);
        let Some(file) = opened.ok().filter(|file| permissions::is_private(file).unwrap_or(false)) else {
            return Found::Nothing;
        };
        let contents = match file::read(file, LIMIT) {
            Ok(contents) => contents,
            // This version never writes such a large file.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Found::Newer,
            Err(_) => return Found::Nothing,
        };
        // Read the format first, because the rest of a newer format may differ.
        if let Ok(header) = serde_json::from_slice::<Header>(&contents)
            && header.format > u64::from(FORMAT)
        {
            return Found::Newer;
        }
        let content = serde_json::from_slice::<Content>(&contents);
        content.ok().filter(|content| content.format == FORMAT).map_or(Found::Nothing, Found::Content)
    }
}

fn hash(path: &Path) -> String {
    format!("{:016x}", token::sha256_prefix_u64(path.as_os_str().as_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// A folder with a large state file, and a memory whose clock is later than the last write.
    struct Fixture {
        folder: TempDir,
        state_file: PathBuf,
        memory: LoginMemory,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state_file = folder.path().join(".claude.json");
            write(&state_file, "a");
            let memory = memory(&folder.path().join("state/login-ids.json"), 3600);
            Self { folder, state_file, memory }
        }

        fn version(&self) -> FileVersion {
            FileVersion::at(&self.state_file).unwrap()
        }

        fn put(&self, login_id: &str) {
            self.memory.put(&self.state_file, &self.version(), Some(&LoginId::new(login_id)));
        }

        fn get(&self) -> Option<Option<LoginId>> {
            self.memory.get(&self.state_file, &self.version())
        }
    }

    /// A memory whose clock is this many seconds ahead.
    fn memory(path: &Path, seconds: u64) -> LoginMemory {
        let now = Clock::system().now() + Duration::from_secs(seconds);
        LoginMemory::at(path.to_owned(), Clock::virtual_at(now))
    }

    fn write(path: &Path, letter: &str) {
        fs::write(path, letter.repeat(usize::try_from(MIN_SIZE).unwrap())).unwrap();
    }

    fn found(login_id: &str) -> Option<Option<LoginId>> {
        Some(Some(LoginId::new(login_id)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_id_is_remembered_until_the_state_file_changes() {
        let fixture = Fixture::new();
        assert_eq!(fixture.get(), None);

        fixture.put("first");
        assert_eq!(fixture.get(), found("first"));

        fs::write(&fixture.state_file, "b".repeat(200_000)).unwrap();
        assert_eq!(fixture.get(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_state_file_names_no_login_is_remembered() {
        let fixture = Fixture::new();

        fixture.memory.put(&fixture.state_file, &fixture.version(), None);

        assert_eq!(fixture.get(), Some(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_may_still_change_is_not_remembered() {
        let fixture = Fixture::new();
        let unsettled = memory(&fixture.memory.path, 0);

        unsettled.put(&fixture.state_file, &fixture.version(), None);

        assert_eq!(fixture.get(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_state_file_is_not_remembered() {
        let fixture = Fixture::new();
        fs::write(&fixture.state_file, "{}").unwrap();

        fixture.put("first");

        assert!(!fixture.memory.path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_file_has_its_own_entry_up_to_a_limit() {
        let fixture = Fixture::new();
        let other = |number: usize| fixture.folder.path().join(format!("{number}.json"));
        for number in 0..=MAX_FILES {
            write(&other(number), "c");
            let version = FileVersion::at(&other(number)).unwrap();
            fixture.memory.put(&other(number), &version, Some(&LoginId::new(&number.to_string())));
        }

        let get = |number| fixture.memory.get(&other(number), &FileVersion::at(&other(number)).unwrap());

        assert_eq!(get(0), None, "the oldest entry makes room");
        for number in 1..=MAX_FILES {
            assert_eq!(get(number), found(&number.to_string()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_memory_is_replaced() {
        for damaged in ["", "{", "[]", "{\"format\":1,\"files\":7}", "\0\0\0"] {
            let fixture = Fixture::new();
            fixture.put("first");
            fs::write(&fixture.memory.path, damaged).unwrap();
            assert_eq!(fixture.get(), None, "{damaged:?}");

            fixture.put("second");

            assert_eq!(fixture.get(), found("second"), "{damaged:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_memory_of_a_newer_program_is_neither_used_nor_changed() {
        let fixture = Fixture::new();
        fixture.put("first");
        let same_form =
            fs::read_to_string(&fixture.memory.path).unwrap().replace("\"format\":1", "\"format\":2");
        let other_form = r#"{"format":9000000000,"files":{"a":{}},"salt":"b"}"#.to_owned();
        let longer = format!("{}{}", " ".repeat(100_000), other_form);
        for newer in [same_form, other_form, longer] {
            fs::write(&fixture.memory.path, &newer).unwrap();
            assert_eq!(fixture.get(), None);

            fixture.put("second");

            assert_eq!(fs::read_to_string(&fixture.memory.path).unwrap(), newer);
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_memory_that_others_may_write_is_not_used_and_is_replaced() {
        use std::os::unix::fs::PermissionsExt as _;

        let fixture = Fixture::new();
        fixture.put("first");
        let mode = || fs::metadata(&fixture.memory.path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&fixture.memory.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(fixture.get(), None);

        fixture.put("second");

        assert_eq!((fixture.get(), mode()), (found("second"), 0o600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_cannot_be_created_is_no_error() {
        let fixture = Fixture::new();
        fs::write(fixture.folder.path().join("state"), "a file").unwrap();

        fixture.put("first");

        assert_eq!(fixture.get(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_contains_neither_the_path_nor_the_lock() {
        let fixture = Fixture::new();

        fixture.put("first");

        let content = fs::read_to_string(&fixture.memory.path).unwrap();
        assert!(!content.contains(fixture.folder.path().to_str().unwrap()), "{content}");
        let names = fs::read_dir(fixture.memory.path.parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["login-ids.json"]);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_writers_leave_a_readable_memory() {
        let fixture = Fixture::new();
        let memory = &fixture.memory;
        let version = fixture.version();
        memory.try_put(&fixture.state_file, &version, None).unwrap();

        std::thread::scope(|scope| {
            for number in 0..8 {
                let version = &version;
                scope.spawn(move || {
                    let path = PathBuf::from(format!("/state/{number}"));
                    for _ in 0..20 {
                        memory.try_put(&path, version, None).unwrap();
                        assert!(
                            matches!(memory.read(), Found::Content(_)),
                            "a process reads the old or the new content"
                        );
                    }
                });
            }
        });
    }
}
