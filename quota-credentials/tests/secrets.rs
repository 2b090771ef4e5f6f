//! Checks that no text of this crate shows a token. Each source finds a token, and fails because of one. The tests search all its texts
//! for the token.

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use quota_core::model::OwnerId;
use quota_core::provider::{ProgramLogin, TokenError, TokenRefresher, Tokens};
use quota_core::store::StoreKey;
use quota_core::{
    AccountId, CredentialError, CredentialSource, FetchError, MemoryStore, ProviderId, QuotaStore, Secret,
};
use quota_credentials::{
    ClaudeCode, CommandToken, CredentialMap, EnvToken, Environment, FileToken, LoginFile, NewLogin,
    StaticCredential, TokenStore,
};
use tempfile::TempDir;

/// The secret part of each token below.
const NEEDLE: &str = "n33dle";
const TOKEN: &str = "sk-ant-oat01-n33dle";

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid account")
}

/// All texts of a source, before and after a call.
async fn texts_of(source: &dyn CredentialSource) -> String {
    let mut texts = debug(&source);
    match source.credential(&account()).await {
        Ok(credential) => texts += &debug(&credential),
        Err(error) => texts += &error_texts(error),
    }
    texts
}

fn error_texts(error: CredentialError) -> String {
    let mut texts = debug(&error);
    let mut cause: Option<&dyn Error> = Some(&error);
    while let Some(error) = cause {
        texts += &format!("{error} {error:?} ");
        cause = error.source();
    }
    let error = FetchError::from(error);
    texts + &format!("{error} {error:?}")
}

fn debug(value: &dyn Debug) -> String {
    format!("{value:?} {value:#?} ")
}

fn file(dir: &TempDir, name: &str, contents: &str, mode: u32) -> std::path::PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, contents).expect("a file in a new directory can be written");
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .expect("this process owns the file");
    let _ = mode;
    path
}

#[tokio::test]
async fn a_variable_does_not_show_its_token() {
    for value in [TOKEN.to_owned(), format!("{TOKEN} {TOKEN}"), format!("\u{e9}{TOKEN}")] {
        let environment = Environment::from_vars([("A_TOKEN", &value)]);
        let source = EnvToken::in_environment("A_TOKEN", environment.clone());

        let texts = debug(&environment) + &texts_of(&source).await;

        assert!(texts.contains("A_TOKEN"));
        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[tokio::test]
async fn a_token_file_does_not_show_its_token() {
    for (contents, mode) in [
        (TOKEN.to_owned(), 0o600),
        (TOKEN.to_owned(), 0o644),
        (format!("{TOKEN}\n{TOKEN}"), 0o600),
        (TOKEN.repeat(4_000), 0o600),
    ] {
        let dir = tempfile::tempdir().unwrap();

        let texts = texts_of(&FileToken::new(file(&dir, "token", &contents, mode))).await;

        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[tokio::test]
async fn a_static_credential_does_not_show_its_token() {
    let source = StaticCredential::new(Secret::new(TOKEN));

    let texts =
        texts_of(&source).await + &texts_of(&CredentialMap::new().with(account(), Arc::new(source))).await;

    assert!(!texts.contains(NEEDLE), "{texts}");
}

#[tokio::test(start_paused = true)]
async fn a_login_of_claude_code_does_not_show_its_token() {
    for contents in [
        format!(r#"{{"claudeAiOauth":{{"accessToken":"{TOKEN}","refreshToken":"{TOKEN}","expiresAt":1}}}}"#),
        format!(r#"{{"claudeAiOauth":{{"accessToken":"{TOKEN}\n{TOKEN}"}}}}"#),
        format!(r#"{{"claudeAiOauth":{{"accessToken":["{TOKEN}"]}}}}"#),
        format!(r#"{{"claudeAiOauth":{{"accessToken":{{"{TOKEN}":1}}}}}}"#),
        format!(r#"{{"claudeAiOauth":{{"refreshToken":"{TOKEN}"}}}}"#),
        format!(r#"{{"claudeAiOauth":"{TOKEN}"}}"#),
        format!(r#"{{"claudeAiOauth":{{"accessToken":"{TOKEN}"#),
        format!(r#""{TOKEN}""#),
        TOKEN.to_owned(),
        TOKEN.repeat(100_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        file(&dir, ".credentials.json", &contents, 0o600);
        let source = ClaudeCode::in_dir(dir.path());

        let copies = source.discover().await;
        let texts = texts_of(&source).await + &debug(&copies);

        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[tokio::test]
async fn the_variable_of_claude_code_does_not_show_its_token() {
    for value in [TOKEN.to_owned(), format!("{TOKEN} {TOKEN}")] {
        let source =
            ClaudeCode::in_environment(&Environment::from_vars([("CLAUDE_CODE_OAUTH_TOKEN", value)]));

        let copies = source.discover().await;
        let texts = texts_of(&source).await + &debug(&copies);

        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[tokio::test]
async fn fingerprint_and_login_id_do_not_contain_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let login = format!(r#"{{"claudeAiOauth":{{"accessToken":"{TOKEN}"}}}}"#);
    file(&dir, ".credentials.json", &login, 0o600);
    let state = r#"{"oauthAccount":{"accountUuid":"n33dle-account","organizationUuid":"n33dle-org"}}"#;
    file(&dir, ".claude.json", state, 0o600);

    let login = ClaudeCode::in_dir(Path::new(dir.path())).credential(&account()).await.unwrap().login;

    assert!(login.login_id.is_some() && login.fingerprint.is_some());
    assert!(!format!("{login:?}").contains(NEEDLE), "{login:?}");
}

const CODEX: ProgramLogin = ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json"])
    .token(&["/tokens/access_token"])
    .account_id(&["/tokens/account_id"]);

#[tokio::test]
async fn a_login_of_codex_does_not_show_its_token() {
    let openai: AccountId = "openai/main".parse().unwrap();
    for contents in [
        format!(r#"{{"tokens":{{"access_token":"{TOKEN}","refresh_token":"{TOKEN}","account_id":"a"}}}}"#),
        format!(r#"{{"tokens":{{"access_token":"{TOKEN}\n{TOKEN}"}}}}"#),
        format!(r#"{{"tokens":{{"access_token":{{"{TOKEN}":1}}}}}}"#),
        format!(r#"{{"tokens":"{TOKEN}"}}"#),
        TOKEN.to_owned(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        file(&dir, "auth.json", &contents, 0o600);
        let source = LoginFile::new(openai.provider().clone(), CODEX).in_dir(dir.path());

        let texts = match source.credential(&openai).await {
            Ok(credential) => debug(&source) + &debug(&credential),
            Err(error) => debug(&source) + &error_texts(error),
        };

        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_token_command_does_not_show_its_token() {
    for script in
        [format!("echo {TOKEN}"), format!("echo {TOKEN} {TOKEN}"), format!("echo {TOKEN} >&2; exit 1")]
    {
        let source = CommandToken::new("sh").arg("-c").arg(script);

        let texts = texts_of(&source).await;

        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

/// A refresher with a fixed result.
#[derive(Debug)]
struct Refresher(Result<Tokens, TokenError>);

#[async_trait]
impl TokenRefresher for Refresher {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("anthropic")
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        assert!(refresh_token.expose().contains(NEEDLE));
        self.0.clone()
    }
}

#[tokio::test]
async fn only_the_file_of_a_token_store_contains_its_tokens() {
    let tokens = Tokens::new(Secret::new(format!("{TOKEN}-2"))).owner_id(OwnerId::new("an-owner"));
    for result in [
        Ok(tokens.refresh_token(Secret::new(format!("{TOKEN}-3")))),
        Err(TokenError::invalid_grant("refused")),
        Err(TokenError::invalid_client("unknown client")),
        Err(TokenError::transient("status 503")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let refresher = Arc::new(Refresher(result));
        let builder = TokenStore::builder(dir.path().join("logins.json"));
        let builder = builder.refresher(refresher.clone()).store(store.clone());
        let login = NewLogin::new(Secret::new(TOKEN))
            .refresh_token(Secret::new(TOKEN))
            .expires_at(jiff::Timestamp::UNIX_EPOCH);
        let mut texts = debug(&builder) + &debug(&refresher) + &debug(&login);
        let logins = builder.build();
        texts += &debug(&logins.put(&account(), login).await);
        texts += &texts_of(&logins).await;
        texts += &match logins.renew(&account(), None).await {
            Ok(credential) => debug(&credential),
            Err(error) => error_texts(error),
        };
        logins.close().await;
        let lease = store.read(&StoreKey::provider_extension(account().provider(), "logins")).await.unwrap();
        texts += &String::from_utf8_lossy(&lease.document.expect("the lease was acquired").body);

        assert!(fs::read_to_string(logins.path()).unwrap().contains(NEEDLE), "the file contains the tokens");
        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}

#[tokio::test]
async fn an_error_about_the_token_store_does_not_show_tokens() {
    for (contents, mode) in [
        (format!(r#"{{"version":2,"logins":{{"anthropic/main":{{"access_token":"{TOKEN}"}}}}}}"#), 0o600),
        (format!(r#"{{"version":2,"logins":{{"anthropic/main":"{TOKEN}"}}}}"#), 0o600),
        (format!(r#"{{"version":2,"logins":{{"{TOKEN}":{{}}}}}}"#), 0o600),
        (format!(r#"{{"version":"{TOKEN}"}}"#), 0o600),
        (TOKEN.to_owned(), 0o600),
        (TOKEN.to_owned(), 0o644),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "logins.json", &contents, mode);

        let texts = texts_of(&TokenStore::builder(path).build()).await;

        assert!(texts.contains("logins.json"));
        assert!(!texts.contains(NEEDLE), "{texts}");
    }
}
