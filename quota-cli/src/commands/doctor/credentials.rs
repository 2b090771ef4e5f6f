//! Checks the logins of an account: which exist, which one is used, and their file permissions.
//! It prints nothing about a login except its expiry.

use std::io;
use std::path::{Path, PathBuf};

use quota::credentials::{ClaudeCode, CredentialLocation, DiscoveredCredential, LoginFile};
use quota::model::LoginInfo;
use quota::{Clock, Credential, CredentialError, CredentialSource as _};

use super::config_and_store::others_may;
use super::{Area, Check};
use crate::config::{AccountSettings, Config, LoginSource};
use crate::context;
use crate::detected_logins::{self, DetectedLogin, DetectedLogins};
use crate::format::{between, duration};
use crate::hint::quoted;

/// Checks an account's login. Returns the checks, and the login of the credential if there is one.
pub(super) async fn of(
    account: &AccountSettings,
    config: &Config,
    clock: &Clock,
) -> (Vec<Check>, Option<LoginInfo>) {
    let checker = LoginChecker { account, config, clock };
    if account.disabled {
        return (vec![checker.ok("disabled, login not checked".to_owned())], None);
    }
    match &account.login {
        LoginSource::ClaudeCode => checker.copies(&ClaudeCode::from_env()).await,
        LoginSource::ClaudeConfigDir(dir) => checker.copies(&ClaudeCode::in_dir(dir)).await,
        LoginSource::Program(program) => checker.program(&program.login_file(None)).await,
        LoginSource::ProgramDir(program, dir) => checker.program(&program.login_file(Some(dir))).await,
        LoginSource::TokenEnv(name) => checker.one(&format!("the environment variable {name}"), None).await,
        LoginSource::TokenFile(path) => checker.one(&path.display().to_string(), Some(path)).await,
        LoginSource::Own => checker.own().await,
        login @ LoginSource::Keyring(_) => checker.one(&format!("the {}", login.describe()), None).await,
        login @ LoginSource::TokenCommand(_) => {
            checker.one(&format!("the output of {}", login.describe()), None).await
        }
    }
}

/// The logins that no account uses, if no account is configured.
pub(super) async fn unused(config: &Config) -> Vec<Check> {
    if !config.is_default() {
        return Vec::new();
    }
    let is_claude_missing = detected_logins::find_claude_code().await.is_err();
    let used = config.accounts.iter().map(|account| &account.login).collect::<Vec<_>>();
    let logins = DetectedLogins::detect().await.logins;
    let unused = logins.into_iter().filter(|one| one.same_as.is_none() && !used.contains(&&one.login));
    let check = |one: DetectedLogin| {
        let message = format!("there is a {}, but no account for it", one.login.describe());
        // With a login of Claude Code, the user may not want another account.
        match is_claude_missing {
            true => Check::warning(Area::Login, one.id.as_str(), message, "run: quota init"),
            false => Check::ok(Area::Login, one.id.as_str(), format!("{message}; to add it: quota init")),
        }
    };
    unused.map(check).collect()
}

struct LoginChecker<'a> {
    account: &'a AccountSettings,
    config: &'a Config,
    clock: &'a Clock,
}

impl LoginChecker<'_> {
    async fn program(&self, source: &LoginFile) -> (Vec<Check>, Option<LoginInfo>) {
        let paths = source.paths();
        let path = paths.iter().find(|path| path.exists()).or(paths.first());
        let location = path.map_or_else(|| self.account.login.describe(), |path| path.display().to_string());
        self.one(&location, path.map(PathBuf::as_path)).await
    }

    /// Checks only whether the login exists, because a read could renew it. `refreshes` shows whether it is rejected.
    async fn own(&self) -> (Vec<Check>, Option<LoginInfo>) {
        let logins = context::stored_logins();
        let path = logins.path().display();
        let check = match logins.accounts().await {
            Ok(accounts) if accounts.contains(&self.account.id) => self.ok(format!("using {path}")),
            Ok(_) => {
                self.problem(format!("there is no login in {path}"), &self.account.login.hint_if_missing())
            }
            Err(error) => self.problem(error.to_string(), "fix the file, or remove it and log in again"),
        };
        (vec![check], None)
    }

    async fn copies(&self, source: &ClaudeCode) -> (Vec<Check>, Option<LoginInfo>) {
        let copies = source.discover().await;
        let used = copies.iter().find(|copy| copy.is_active);
        let login = used.and_then(|copy| copy.result.as_ref().ok()).map(|used| used.login.clone());
        let is_all_missing =
            copies.iter().all(|copy| matches!(copy.result, Err(CredentialError::NotLoggedIn { .. })));
        if copies.is_empty() {
            let message =
                "neither CLAUDE_CONFIG_DIR nor HOME is set, so there is no location to search for a login";
            return (vec![self.problem(message.to_owned(), "set one of them")], login);
        }
        if is_all_missing && let Err(error) = source.credential(&self.account.id).await {
            // Report a missing login once, although several locations were searched.
            return (vec![self.problem(without_hint(&error), &self.account.login.hint_if_missing())], login);
        }
        (copies.iter().flat_map(|copy| self.copy(copy, used.is_some())).collect(), login)
    }

    fn copy(&self, copy: &DiscoveredCredential, is_any_used: bool) -> Vec<Check> {
        let path = match &copy.location {
            CredentialLocation::File(path) => Some(path.as_path()),
            _ => None,
        };
        match &copy.result {
            Ok(credential) => self.found(&copy.location.to_string(), path, credential, copy.is_active),
            // A missing copy is not a problem if another copy exists.
            Err(CredentialError::NotLoggedIn { .. }) => Vec::new(),
            Err(error) if is_any_used => {
                vec![self.warning(error.to_string(), "fix or delete it; another login is used")]
            }
            Err(error) => vec![self.unusable(error)],
        }
    }

    async fn one(&self, location: &str, path: Option<&Path>) -> (Vec<Check>, Option<LoginInfo>) {
        let found =
            context::credential_source(&self.account.login, self.config).credential(&self.account.id).await;
        match found {
            Ok(credential) => (self.found(location, path, &credential, true), Some(credential.login)),
            Err(error) if error.is_timeout() => {
                (vec![self.problem(error.to_string(), "run it manually to see what it waits for")], None)
            }
            Err(error) => (vec![self.unusable(&error)], None),
        }
    }

    /// The problems of a login, the worst first, or one check that it is ok.
    fn found(
        &self,
        location: &str,
        path: Option<&Path>,
        credential: &Credential,
        is_used: bool,
    ) -> Vec<Check> {
        let prefix = if is_used { "using" } else { "not used because it is older:" };
        let now = self.clock.now();
        let rights = path.filter(|path| others_may(path, 0o077).is_some()).map(|path| {
            let message = format!("{prefix} {location}, which is accessible to other users");
            self.warning(message, &format!("run: chmod 600 {}", quoted(path)))
        });
        let expiry = match credential.expires_at {
            Some(end) if end <= now && is_used => self.problem(
                format!("{prefix} {location}, which expired {} ago", duration(between(end, now))),
                &self.account.login.hint(),
            ),
            Some(end) if end > now => {
                self.ok(format!("{prefix} {location} (expires in {})", duration(between(now, end))))
            }
            _ => self.ok(format!("{prefix} {location}")),
        };
        // If other users can read the file, omit a check that reports only a valid expiry.
        let expiry = Some(expiry).filter(|check| rights.is_none() || check.hint.is_some());
        rights.into_iter().chain(expiry).collect()
    }

    /// For an I/O error, use its own hint, because a new login would not help.
    fn unusable(&self, error: &CredentialError) -> Check {
        let text = error.to_string();
        let is_io_error = matches!(error, CredentialError::Unreadable { source: Some(source), .. } if source.is::<io::Error>());
        match text.rsplit_once("; ").filter(|_| is_io_error) {
            Some((message, hint)) => self.problem(message.to_owned(), hint),
            None if matches!(error, CredentialError::NotLoggedIn { .. }) => {
                self.problem(text, &self.account.login.hint_if_missing())
            }
            None => self.problem(text, &self.account.login.hint()),
        }
    }

    fn ok(&self, message: String) -> Check {
        Check::ok(Area::Login, self.account.id.as_str(), message)
    }

    fn warning(&self, message: String, hint: &str) -> Check {
        Check::warning(Area::Login, self.account.id.as_str(), message, hint)
    }

    fn problem(&self, message: String, hint: &str) -> Check {
        Check::problem(Area::Login, self.account.id.as_str(), message, hint)
    }
}

/// The error without its hint, because a check prints the hint on a separate line.
fn without_hint(error: &CredentialError) -> String {
    error.to_string().split("; run `claude`").next().unwrap_or_default().to_owned()
}
