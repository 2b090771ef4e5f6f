use std::fs;
use std::time::{Duration, SystemTime};

use quota_core::ProviderId;
use quota_core::provider::ProgramLogin;
use tempfile::TempDir;

use super::*;

const LOGIN: ProgramLogin = ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json"])
    .token(&["/tokens/access_token"])
    .account_id(&["/tokens/account_id"]);

/// A time this many seconds from now.
fn from_now(seconds: u64) -> SystemTime {
    let now = quota_core::Clock::system().now().as_duration();
    SystemTime::UNIX_EPOCH + now.unsigned_abs() + Duration::from_secs(seconds)
}

/// A folder of a program, whose login was written an hour ago, as far as its modification time shows.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.log_in("made-up");
        folder
    }

    fn log_in(&self, id: &str) {
        let login = format!(r#"{{"tokens":{{"access_token":"abc","account_id":"{id}"}}}}"#);
        fs::write(self.0.path().join("auth.json"), login).unwrap();
    }

    fn path(&self, day: &str, name: &str) -> PathBuf {
        let day = self.0.path().join("sessions/2026/11").join(day);
        fs::create_dir_all(&day).unwrap();
        day.join(format!("rollout-{name}.jsonl"))
    }

    /// Writes a session that was last modified `ahead` seconds from now.
    fn session(&self, day: &str, name: &str, contents: &str, ahead: u64) -> PathBuf {
        let path = self.path(day, name);
        fs::write(&path, contents).unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(from_now(ahead)).unwrap();
        path
    }

    async fn read_after(&self, newer_than: Option<Timestamp>) -> Option<Sessions> {
        let login = LoginFile::new(ProviderId::from_static("openai"), LOGIN).in_dir(self.0.path());
        SessionFiles::of(login).read(&"openai/main".parse().unwrap(), newer_than).await
    }

    /// The first lines of the files.
    async fn first_lines(&self) -> Vec<String> {
        let sessions = self.read_after(None).await.expect("a login");
        sessions.files.into_iter().map(|file| String::from_utf8(file.first_line).unwrap()).collect()
    }
}

#[tokio::test]
async fn the_newest_files_come_first() {
    let folder = Folder::new();
    folder.session("29", "a", "older\nx", 10);
    folder.session("30", "b", "newer\nx", 20);

    assert_eq!(folder.first_lines().await, ["newer", "older"]);
}

#[tokio::test]
async fn without_a_folder_there_are_no_files() {
    let folder = Folder::new();

    assert_eq!(folder.first_lines().await, [""; 0]);
}

#[tokio::test]
async fn without_a_login_nothing_is_read() {
    let folder = Folder::new();
    folder.session("30", "a", "x", 10);
    fs::write(folder.0.path().join("auth.json"), r#"{"tokens":{"access_token":"abc"}}"#).unwrap();
    assert_eq!(folder.read_after(None).await, None);

    fs::remove_file(folder.0.path().join("auth.json")).unwrap();
    assert_eq!(folder.read_after(None).await, None);
}

#[tokio::test]
async fn files_of_an_earlier_login_are_not_read() {
    let folder = Folder::new();
    folder.session("30", "a", "x", 0);
    // A later write, with the same content: a file system may have coarse timestamps.
    let login = folder.0.path().join("auth.json");
    File::options().append(true).open(&login).unwrap().set_modified(from_now(5)).unwrap();

    assert_eq!(folder.first_lines().await, [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_login_that_was_moved_into_place_is_as_young_as_the_move() {
    let folder = Folder::new();
    let (login, other) = (folder.0.path().join("auth.json"), folder.0.path().join("auth.work.json"));
    fs::copy(&login, &other).unwrap();
    File::options().append(true).open(&other).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let before = quota_core::Clock::system().now();
    fs::rename(&other, &login).unwrap();

    let since = folder.read_after(None).await.unwrap().login_since;

    assert!(since > before - Duration::from_secs(1), "{since} {before}");
}

#[tokio::test]
async fn a_file_that_is_not_newer_is_not_read() {
    let folder = Folder::new();
    folder.session("30", "a", "x", 10);

    let later = quota_core::Clock::system().now() + Duration::from_secs(60);
    assert_eq!(folder.read_after(Some(later)).await.unwrap().files, []);
}

#[tokio::test]
async fn only_the_end_of_a_large_file_is_read() {
    let folder = Folder::new();
    let contents = format!("first\n{}\nlast", "x".repeat(3 * 1024 * 1024));
    folder.session("30", "a", &contents, 10);

    let file = folder.read_after(None).await.unwrap().files.remove(0);

    assert_eq!((file.first_line.as_slice(), file.tail.len()), (&b"first"[..], 1024 * 1024));
    assert!(file.tail.ends_with(b"\nlast"));
}

#[tokio::test]
async fn the_number_of_files_and_days_is_bounded() {
    let folder = Folder::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        folder.session("30", name, name, 10);
    }
    assert_eq!(folder.first_lines().await.len(), MAX_FILES);

    let folder = Folder::new();
    for day in ["27", "28", "29", "30"] {
        folder.session(day, "a", day, 10);
    }
    assert_eq!(folder.first_lines().await.len(), MAX_DAYS);
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_links_are_not_followed() {
    use std::os::unix::fs::symlink;

    let (folder, other) = (Folder::new(), Folder::new());
    let target = other.session("30", "a", "other", 10);
    symlink(&target, folder.path("30", "link")).unwrap();
    assert_eq!(folder.first_lines().await, [""; 0]);

    let folder = Folder::new();
    symlink(other.0.path().join("sessions"), folder.0.path().join("sessions")).unwrap();
    assert_eq!(folder.first_lines().await, [""; 0]);
}

#[tokio::test]
async fn other_files_are_ignored() {
    let folder = Folder::new();
    let path = folder.session("30", "a", "x", 10);
    fs::rename(&path, path.with_extension("jsonl.zst")).unwrap();
    fs::create_dir_all(folder.path("30", "folder")).unwrap();
    fs::write(folder.0.path().join("sessions/notes"), "x").unwrap();

    assert_eq!(folder.first_lines().await, [""; 0]);
}
