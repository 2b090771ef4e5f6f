//! Which logins of an account are found, which of them counts, and who else may read them.
//! They are only read, and nothing of what they hold is told but when they end.

use std::path::Path;

use quota::accounts::{ClaudeCode, FoundLogin, LoginPlace};
use quota::{Clock, Credential, CredentialError};

use super::place::{others_may, quoted};
use super::{Area, Check};
use crate::config::{AccountSettings, LoginSource};
use crate::gateway;
use crate::words::{between, span};

/// What is found of an account's login.
pub(super) async fn of(account: &AccountSettings, clock: &Clock) -> Vec<Check> {
    let look = Look { account, clock };
    if account.disabled {
        return vec![look.good("is switched off, so its login is not looked for".to_owned())];
    }
    match &account.login {
        LoginSource::ClaudeCode => look.copies(&ClaudeCode::from_env().copies().await),
        LoginSource::ClaudeConfigDir(dir) => look.copies(&ClaudeCode::in_dir(dir).copies().await),
        LoginSource::TokenEnv(name) => look.one(&format!("the environment variable {name}"), None).await,
        LoginSource::TokenFile(path) => look.one(&path.display().to_string(), Some(path)).await,
        login @ LoginSource::TokenCommand(_) => {
            look.one(&format!("what is printed by {}", login.told()), None).await
        }
    }
}

struct Look<'a> {
    account: &'a AccountSettings,
    clock: &'a Clock,
}

impl Look<'_> {
    fn copies(&self, copies: &[FoundLogin]) -> Vec<Check> {
        let is_any_used = copies.iter().any(|copy| copy.used);
        let mut checks: Vec<_> = copies.iter().map(|copy| self.copy(copy, is_any_used)).collect();
        if copies.is_empty() {
            let told = "neither CLAUDE_CONFIG_DIR nor HOME says where a login may be";
            checks.push(self.finding(told.to_owned(), "set one of them"));
        }
        checks
    }

    fn copy(&self, copy: &FoundLogin, is_any_used: bool) -> Check {
        let path = match &copy.place {
            LoginPlace::File(path) => Some(path.as_path()),
            _ => None,
        };
        match &copy.state {
            Ok(credential) => self.found(&copy.place.to_string(), path, credential, copy.used),
            Err(error @ CredentialError::NotLoggedIn { .. }) if is_any_used => {
                // Another copy counts: what to do about this one is nothing.
                let told = error.to_string();
                self.good(told.split(": run `claude`").next().unwrap_or_default().to_owned())
            }
            Err(error) => self.finding(error.to_string(), &self.account.login.advice()),
        }
    }

    async fn one(&self, place: &str, path: Option<&Path>) -> Vec<Check> {
        let found = gateway::source(&self.account.login).credential(&self.account.id).await;
        vec![match found {
            Ok(credential) => self.found(place, path, &credential, true),
            Err(error) => self.finding(error.to_string(), &self.account.login.advice()),
        }]
    }

    fn found(&self, place: &str, path: Option<&Path>, credential: &Credential, is_used: bool) -> Check {
        let which = if is_used { "is the one that counts" } else { "is older than the one that counts" };
        if let Some((path, ())) = path.and_then(|path| Some((path, others_may(path, 0o077)?))) {
            return self.finding(
                format!("{place} {which}; others may use it"),
                &format!("run: chmod 600 {}", quoted(path)),
            );
        }
        let now = self.clock.now();
        match credential.expires_at {
            Some(end) if end <= now && is_used => self.finding(
                format!("{place} {which}; it ended {} ago", span(between(end, now))),
                &self.account.login.advice(),
            ),
            Some(end) if end > now => {
                self.good(format!("{place} {which}; it ends in {}", span(between(now, end))))
            }
            _ => self.good(format!("{place} {which}")),
        }
    }

    fn good(&self, told: String) -> Check {
        Check::good(Area::Login, self.account.id.as_str(), told)
    }

    fn finding(&self, told: String, advice: &str) -> Check {
        Check::finding(Area::Login, self.account.id.as_str(), told, advice)
    }
}
