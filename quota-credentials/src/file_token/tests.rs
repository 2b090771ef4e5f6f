//! What is found in token files, and which are refused.

use std::fs;

use tempfile::TempDir;

use super::*;

struct Scene {
    dir: TempDir,
}

impl Scene {
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

    async fn found(&self) -> Result<Credential, CredentialError> {
        FileToken::new(self.path()).credential(&"anthropic/main".parse().unwrap()).await
    }

    /// What `found` says, with the file called FILE.
    async fn error(&self) -> (bool, String) {
        let error = self.found().await.unwrap_err();
        let is_unreadable = matches!(error, CredentialError::Unreadable { .. });
        (is_unreadable, error.to_string().replace(self.path().to_str().unwrap(), "FILE"))
    }
}

#[tokio::test]
async fn a_token_is_found_with_its_mark() {
    let scene = Scene::new();
    scene.write("  sk-ant-oat01-abc\r\n\n");

    let credential = scene.found().await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
    assert_eq!(credential.login.mark, Some(token::mark(&credential.secret)));
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_the_token() {
    let scene = Scene::new();
    scene.write("\u{feff}sk-ant-oat01-abc");

    assert_eq!(scene.found().await.unwrap().secret.expose(), "sk-ant-oat01-abc");
}

#[tokio::test]
async fn a_token_that_changes_between_two_reads_is_the_new_one() {
    let scene = Scene::new();
    scene.write("sk-ant-oat01-old");
    let source = FileToken::new(scene.path());
    let account = "anthropic/main".parse().unwrap();
    let old = source.credential(&account).await.unwrap();

    scene.write("sk-ant-oat01-new");
    let new = source.credential(&account).await.unwrap();

    assert_eq!(new.secret.expose(), "sk-ant-oat01-new");
    assert_ne!(new.login.mark, old.login.mark);
}

#[tokio::test]
async fn a_missing_file_is_named_with_what_to_do() {
    let scene = Scene::new();

    let error = scene.error().await;

    assert_eq!(
        error,
        (false, "FILE does not exist; put a token in it, then run `chmod 600 FILE`".to_owned())
    );
}

#[tokio::test]
async fn an_empty_file_holds_no_login() {
    for contents in ["", " \n", "\u{feff}"] {
        let scene = Scene::new();
        scene.write(contents);

        let error = scene.error().await;

        assert_eq!(error, (false, "FILE is empty; put a token in it, then run `chmod 600 FILE`".to_owned()));
    }
}

#[tokio::test]
async fn a_file_with_more_than_a_token_is_refused() {
    for contents in [&b"sk-ant-oat01-a\nsk-ant-oat01-b"[..], b"{\"token\": 1}", b"\xff\xfes\0k\0"] {
        let scene = Scene::new();
        scene.write(contents);

        let error = scene.error().await;

        let text = "FILE does not hold a token and nothing else; put one in it, on one line";
        assert_eq!(error, (true, text.to_owned()));
    }
}

#[tokio::test]
async fn a_file_of_64_kib_is_read() {
    let scene = Scene::new();
    scene.write("sk-ant-oat01-abc".to_owned() + &" ".repeat(64 * 1024 - 16));

    assert_eq!(scene.found().await.unwrap().secret.expose(), "sk-ant-oat01-abc");
}

#[tokio::test]
async fn a_larger_file_is_refused() {
    let scene = Scene::new();
    scene.write("sk-ant-oat01-abc".to_owned() + &" ".repeat(64 * 1024 - 15));

    assert_eq!(scene.error().await, (true, "FILE is too large to hold a login; see what it is".to_owned()));
}

#[tokio::test]
async fn a_directory_is_refused() {
    let scene = Scene::new();
    fs::create_dir(scene.path()).unwrap();

    assert_eq!(scene.error().await, (true, "FILE is a directory, not a file; move it away".to_owned()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_may_touch_is_refused_with_the_command_that_mends_it() {
    for mode in [0o640, 0o620, 0o604, 0o602, 0o644, 0o666] {
        let scene = Scene::new();
        scene.write("sk-ant-oat01-abc");
        scene.set_mode(mode);

        let error = scene.error().await;

        let text = "others than its owner may read or change FILE; run `chmod 600 FILE`";
        assert_eq!(error, (true, text.to_owned()), "{mode:o}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_only_its_owner_may_touch_is_read() {
    for mode in [0o600, 0o400, 0o700, 0o611] {
        let scene = Scene::new();
        scene.write("sk-ant-oat01-abc");
        scene.set_mode(mode);

        assert!(scene.found().await.is_ok(), "{mode:o}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_rights_that_count_are_those_of_the_file_a_link_leads_to() {
    let scene = Scene::new();
    let target = scene.dir.path().join("target");
    std::os::unix::fs::symlink(&target, scene.path()).unwrap();
    fs::write(&target, "sk-ant-oat01-abc").unwrap();

    scene.set_mode(0o644);
    let exposed = scene.found().await;
    scene.set_mode(0o600);
    let private = scene.found().await;

    assert!(exposed.is_err());
    assert!(private.is_ok());
}

#[tokio::test]
async fn a_leading_tilde_is_the_home_directory() {
    let scene = Scene::new();
    scene.write("sk-ant-oat01-abc");
    let environment = Environment::from_vars([("HOME", scene.dir.path())]);

    let source = FileToken::in_environment("~/token", &environment);

    assert!(source.credential(&"anthropic/main".parse().unwrap()).await.is_ok());
}

#[test]
fn a_command_to_paste_survives_any_path() {
    assert_eq!(mend(Path::new("/a/b")), "chmod 600 /a/b");
    assert_eq!(mend(Path::new("/a b/it's")), r"chmod 600 -- '/a b/it'\''s'");
    assert_eq!(mend(Path::new("-R")), "chmod 600 -- '-R'");
}
