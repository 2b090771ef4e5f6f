//! Which logins of an account are found, which of them counts, and who else may read them.
//! They are only read, and nothing of what they hold is told but when they end.

use std::path::Path;

use quota::accounts::{ClaudeCode, CredentialSource as _, FoundLogin, LoginPlace};
use quota::{Clock, Credential, CredentialError};

use super::place::{others_may, quoted};
use super::{Area, Check};
use crate::config::{AccountSettings, Config, LoginSource};
use crate::gateway;
use crate::words::{between, span};

/// What is found of an account's login.
pub(super) async fn of(account: &AccountSettings, config: &Config, clock: &Clock) -> Vec<Check> {
    let look = Look { account, config, clock };
    if account.disabled {
        return vec![look.good("is switched off, so its login is not looked for".to_owned())];
    }
    match &account.login {
        LoginSource::ClaudeCode => look.copies(&ClaudeCode::from_env()).await,
        LoginSource::ClaudeConfigDir(dir) => look.copies(&ClaudeCode::in_dir(dir)).await,
        LoginSource::TokenEnv(name) => look.one(&format!("the environment variable {name}"), None).await,
        LoginSource::TokenFile(path) => look.one(&path.display().to_string(), Some(path)).await,
        login @ LoginSource::TokenCommand(_) => {
            look.one(&format!("what is printed by {}", login.told()), None).await
        }
    }
}

struct Look<'a> {
    account: &'a AccountSettings,
    config: &'a Config,
    clock: &'a Clock,
}

impl Look<'_> {
    async fn copies(&self, source: &ClaudeCode) -> Vec<Check> {
        let copies = source.copies().await;
        let is_any_used = copies.iter().any(|copy| copy.used);
        let is_all_missing =
            copies.iter().all(|copy| matches!(copy.state, Err(CredentialError::NotLoggedIn { .. })));
        if copies.is_empty() {
            let told = "neither CLAUDE_CONFIG_DIR nor HOME says where a login may be";
            return vec![self.finding(told.to_owned(), "set one of them")];
        }
        if is_all_missing && let Err(error) = source.credential(&self.account.id).await {
            // One login is missing, however many places there are for it.
            return vec![self.finding(without_advice(&error), &self.account.login.advice())];
        }
        copies.iter().flat_map(|copy| self.copy(copy, is_any_used)).collect()
    }

    fn copy(&self, copy: &FoundLogin, is_any_used: bool) -> Vec<Check> {
        let path = match &copy.place {
            LoginPlace::File(path) => Some(path.as_path()),
            _ => None,
        };
        match &copy.state {
            Ok(credential) => self.found(&copy.place.to_string(), path, credential, copy.used),
            // Another copy counts, or another is to be mended: what to do about this one is nothing.
            Err(error @ CredentialError::NotLoggedIn { .. }) => vec![self.good(without_advice(error))],
            Err(error) if is_any_used => {
                vec![self.finding(error.to_string(), "mend it or take it away; another one counts")]
            }
            Err(error) => vec![self.finding(error.to_string(), &self.account.login.advice())],
        }
    }

    async fn one(&self, place: &str, path: Option<&Path>) -> Vec<Check> {
        let found = gateway::source(&self.account.login, self.config).credential(&self.account.id).await;
        match found {
            Ok(credential) => self.found(place, path, &credential, true),
            Err(error) => vec![self.finding(error.to_string(), &self.account.login.advice())],
        }
    }

    /// What is wrong with it, the worst first, or else that it is good.
    fn found(&self, place: &str, path: Option<&Path>, credential: &Credential, is_used: bool) -> Vec<Check> {
        let which = if is_used { "is the one that counts" } else { "is older than the one that counts" };
        let now = self.clock.now();
        let rights = path.filter(|path| others_may(path, 0o077).is_some()).map(|path| {
            self.finding(
                format!("{place} {which}; others may use it"),
                &format!("run: chmod 600 {}", quoted(path)),
            )
        });
        let time = match credential.expires_at {
            Some(end) if end <= now && is_used => self.finding(
                format!("{place} {which}; it ended {} ago", span(between(end, now))),
                &self.account.login.advice(),
            ),
            Some(end) if end > now => {
                self.good(format!("{place} {which}; it ends in {}", span(between(now, end))))
            }
            _ => self.good(format!("{place} {which}")),
        };
        // That nothing else is wrong needs no saying.
        let time = Some(time).filter(|time| rights.is_none() || time.advice.is_some());
        rights.into_iter().chain(time).collect()
    }

    fn good(&self, told: String) -> Check {
        Check::good(Area::Login, self.account.id.as_str(), told)
    }

    fn finding(&self, told: String, advice: &str) -> Check {
        Check::finding(Area::Login, self.account.id.as_str(), told, advice)
    }
}

/// What is missing; what to do about it is told in a line of its own.
fn without_advice(error: &CredentialError) -> String {
    error.to_string().split(": run `claude`").next().unwrap_or_default().to_owned()
}
