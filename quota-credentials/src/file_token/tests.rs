//! Tests which token files are read and which are rejected.

use std::fs;

use tempfile::TempDir;

use super::*;

struct TestFile {
    dir: TempDir,
}

impl TestFile {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn write(&self, contents: impl AsRef<[u8]>) {
        fs::write(self.path(), contents).unwrap();
        self.set_mode(0o600);
    }

    #[cfg(unix)]
    fn set_mode(&self, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(not(unix))]
    fn set_mode(&self, _mode: u32) {}

    async fn read(&self) -> Result<Credential, CredentialError> {
        FileToken::new(self.path()).credential(&"anthropic/main".parse().unwrap()).await
    }

    /// Whether the error is `Unreadable`, and its text with FILE in place of the path.
    async fn error(&self) -> (bool, String) {
        let error = self.read().await.unwrap_err();
        let is_unreadable = matches!(error, CredentialError::Unreadable { .. });
        (is_unreadable, error.to_string().replace(self.path().to_str().unwrap(), "FILE"))
    }
}

#[tokio::test]
async fn a_token_has_a_fingerprint() {
    let file = TestFile::new();
    file.write("  sk-ant-oat01-abc\r\n\n");

    let credential = file.read().await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
    assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&credential.secret)));
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_the_token() {
    let file = TestFile::new();
    file.write("\u{feff}sk-ant-oat01-abc");

    assert_eq!(file.read().await.unwrap().secret.expose(), "sk-ant-oat01-abc");
}

#[tokio::test]
async fn each_call_reads_the_file_again() {
    let file = TestFile::new();
    file.write("sk-ant-oat01-old");
    let source = FileToken::new(file.path());
    let account = "anthropic/main".parse().unwrap();
    let old = source.credential(&account).await.unwrap();

    file.write("sk-ant-oat01-new");
    let new = source.credential(&account).await.unwrap();

    assert_eq!(new.secret.expose(), "sk-ant-oat01-new");
    assert_ne!(new.login.fingerprint, old.login.fingerprint);
}

#[tokio::test]
async fn a_missing_file_is_not_logged_in() {
    let file = TestFile::new();

    let error = file.error().await;

    assert_eq!(
        error,
        (false, "FILE does not exist; put a token in it, then run `chmod 600 FILE`".to_owned())
    );
}

#[tokio::test]
async fn an_empty_file_is_not_logged_in() {
    for contents in ["", " \n", "\u{feff}"] {
        let file = TestFile::new();
        file.write(contents);

        let error = file.error().await;

        assert_eq!(error, (false, "FILE is empty; put a token in it, then run `chmod 600 FILE`".to_owned()));
    }
}

#[tokio::test]
async fn a_file_without_exactly_one_token_is_rejected() {
    for contents in [&b"sk-ant-oat01-a\nsk-ant-oat01-b"[..], b"{\"token\": 1}", b"\xff\xfes\0k\0"] {
        let file = TestFile::new();
        file.write(contents);

        let error = file.error().await;

        let text = "FILE does not contain exactly one token; put one token in it, on one line";
        assert_eq!(error, (true, text.to_owned()));
    }
}

#[tokio::test]
async fn a_file_of_64_kib_is_read() {
    let file = TestFile::new();
    file.write("sk-ant-oat01-abc".to_owned() + &" ".repeat(64 * 1024 - 16));

    assert_eq!(file.read().await.unwrap().secret.expose(), "sk-ant-oat01-abc");
}

#[tokio::test]
async fn a_larger_file_is_rejected() {
    let file = TestFile::new();
    file.write("sk-ant-oat01-abc".to_owned() + &" ".repeat(64 * 1024 - 15));

    assert_eq!(
        file.error().await,
        (true, "could not read FILE: it is too large for a login; check the path".to_owned())
    );
}

#[tokio::test]
async fn a_directory_is_rejected() {
    let file = TestFile::new();
    fs::create_dir(file.path()).unwrap();

    assert_eq!(file.error().await, (true, "could not read FILE: it is a directory; move it away".to_owned()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_accessible_to_others_is_rejected_with_a_command() {
    for mode in [0o640, 0o620, 0o604, 0o602, 0o644, 0o666] {
        let file = TestFile::new();
        file.write("sk-ant-oat01-abc");
        file.set_mode(mode);

        let error = file.error().await;

        let text = "FILE is accessible to other users; run `chmod 600 FILE`";
        assert_eq!(error, (true, text.to_owned()), "{mode:o}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_owner_only_file_is_read() {
    for mode in [0o600, 0o400, 0o700, 0o611] {
        let file = TestFile::new();
        file.write("sk-ant-oat01-abc");
        file.set_mode(mode);

        assert!(file.read().await.is_ok(), "{mode:o}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_permissions_of_the_target_of_a_link_are_checked() {
    let file = TestFile::new();
    let target = file.dir.path().join("target");
    std::os::unix::fs::symlink(&target, file.path()).unwrap();
    fs::write(&target, "sk-ant-oat01-abc").unwrap();

    file.set_mode(0o644);
    let exposed = file.read().await;
    file.set_mode(0o600);
    let owner_only = file.read().await;

    assert!(exposed.is_err());
    assert!(owner_only.is_ok());
}

#[tokio::test]
async fn a_leading_tilde_expands_to_the_home_directory() {
    let file = TestFile::new();
    file.write("sk-ant-oat01-abc");
    let environment = Environment::from_vars([("HOME", file.dir.path())]);

    let source = FileToken::in_environment("~/token", &environment);

    assert!(source.credential(&"anthropic/main".parse().unwrap()).await.is_ok());
}

#[test]
fn the_chmod_hint_quotes_any_path() {
    assert_eq!(chmod_hint(Path::new("/a/b")), "chmod 600 /a/b");
    assert_eq!(chmod_hint(Path::new("/a b/it's")), r"chmod 600 -- '/a b/it'\''s'");
    assert_eq!(chmod_hint(Path::new("-R")), "chmod 600 -- '-R'");
}
