//! Tests which locations are read, which copy is used, and which login it is. The parsers have their own tests of the content.

mod cached_usage;
mod changes;
mod copies;
#[cfg(unix)]
mod keychains;
mod locations;
mod login_id;
mod no_login;
mod variable;

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const LATER: i64 = 1_900_000_000_000;
const EARLIER: i64 = 1_800_000_000_000;

/// A home directory, and the environment of its user.
struct Home {
    dir: TempDir,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let variables = vec![("HOME", dir.path().to_owned()), ("USER", "me".into())];
        Self { dir, variables }
    }

    fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn write(&self, below: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn environment(&self) -> Environment {
        Environment::from_vars(self.variables.clone())
    }

    fn source(&self) -> ClaudeCode {
        ClaudeCode::from_parts(&self.environment(), None)
    }

    /// The credential that is found in this environment.
    async fn credential(&self) -> Result<Credential, CredentialError> {
        credential_of(&self.source()).await
    }

    async fn token(&self) -> String {
        self.credential().await.unwrap().secret.expose().to_owned()
    }

    async fn login_id(&self) -> Option<String> {
        self.credential().await.unwrap().login.login_id.map(|id| id.to_string())
    }
}

async fn credential_of(source: &ClaudeCode) -> Result<Credential, CredentialError> {
    source.credential(&"anthropic/main".parse().unwrap()).await
}

fn login(token: &str, expires_at: impl Into<Value>) -> String {
    json!({ "claudeAiOauth": { "accessToken": token, "expiresAt": expires_at.into() } }).to_string()
}

/// The text, padded with spaces to this length.
fn padded(text: &str, length: usize) -> String {
    text.to_owned() + &" ".repeat(length - text.len())
}

fn state(account: &str, organization: &str) -> String {
    json!({
        "oauthAccount": { "accountUuid": account, "organizationUuid": organization },
        "cachedUsageUtilization": { "fetchedAtMs": 1, "accountUuid": account, "utilization": {} },
    })
    .to_string()
}
