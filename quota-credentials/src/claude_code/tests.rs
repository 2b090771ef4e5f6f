//! Which places are looked at, which copy counts, and whose login it is.
//! What a single file or item may hold is tested beside its parser.

mod cached_usage;
mod changes;
mod copies;
#[cfg(unix)]
mod keychains;
mod lineage;
mod locations;
mod misses;
mod variable;

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const LATER: i64 = 1_900_000_000_000;
const EARLIER: i64 = 1_800_000_000_000;

/// A home directory, and the environment of somebody who lives there.
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
        ClaudeCode::on_machine(&self.environment(), None)
    }

    /// The answer of a source that looks where this home's environment says.
    async fn found(&self) -> Result<Credential, CredentialError> {
        credential_of(&self.source()).await
    }

    async fn token(&self) -> String {
        self.found().await.unwrap().secret.expose().to_owned()
    }

    async fn lineage(&self) -> Option<String> {
        self.found().await.unwrap().login.lineage.map(|lineage| lineage.to_string())
    }
}

async fn credential_of(source: &ClaudeCode) -> Result<Credential, CredentialError> {
    source.credential(&"anthropic/main".parse().unwrap()).await
}

fn login(token: &str, expires_at: impl Into<Value>) -> String {
    json!({ "claudeAiOauth": { "accessToken": token, "expiresAt": expires_at.into() } }).to_string()
}

/// The text with as many spaces after it as make it that long.
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
