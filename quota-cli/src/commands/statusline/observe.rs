//! Merges a session's usage into its account, if the account can be determined and the usage is newer.
//! `session` reads the input, and quota-http parses it.

use std::path::PathBuf;

use jiff::Timestamp;
use quota::anthropic::{ANTHROPIC, parse_statusline};
use quota::{AccountId, AccountUsage, MemoryStore, QuotaManager};

use super::session::Session;
use crate::config::{AccountSettings, Config, LoginSource};
use crate::context;
use crate::view::account::AccountView;
use crate::view::reason::Reason;

/// The result of merging a session's usage.
#[derive(Debug)]
pub(super) enum MergeResult<'a> {
    /// The session has no usage, or none that is newer than the stored usage.
    Nothing,
    /// The usage was merged into this account. Other processes can read it after the manager is closed.
    Observed(&'a AccountSettings),
    /// The usage belongs to no configured account, so only this line shows it.
    SessionOnly(Box<SessionUsage>),
}

/// The usage of a session that is not stored.
#[derive(Debug)]
pub(super) struct SessionUsage {
    /// The account of the session, or a placeholder.
    pub(super) id: AccountId,
    pub(super) view: AccountView,
}

/// Merges the session's usage into its account.
///
/// It ignores unusable input without a message, because Claude Code sends new input for each line.
pub(super) async fn merge<'a>(
    config: &'a Config,
    manager: &QuotaManager,
    session: &Session,
    shown: &AccountUsage,
    selected: &AccountSettings,
) -> MergeResult<'a> {
    if !session.is_present() {
        return MergeResult::Nothing;
    }
    let of_session = |id: AccountId| {
        own(session, id, shown.now())
            .map_or(MergeResult::Nothing, |own| MergeResult::SessionOnly(Box::new(own)))
    };
    // If the account is unknown, do not use the first account.
    let Some(settings) = account_of_session(config) else { return of_session(unknown_account()) };
    let Ok(parsed) = parse_statusline(&session.bytes, shown.now()) else { return MergeResult::Nothing };
    let usage = parsed.usage;
    let account = manager.account(&settings.id);
    let other = if settings.id == selected.id { None } else { Some(account.sync().await) };
    let stored = other.as_ref().unwrap_or(shown);
    if !stored.snapshot().is_changed_by(&usage, shown.now()) {
        return MergeResult::Nothing;
    }
    // The manager rejects the observation if the account has another login in the meantime.
    let source = context::account_source(settings, config);
    let Ok(credential) = source.credential(&settings.id).await else {
        return of_session(settings.id.clone());
    };
    match account.observe(&usage.login_id(credential.login.login_id)) {
        Ok(_) => MergeResult::Observed(settings),
        Err(_) => of_session(settings.id.clone()),
    }
}

/// The placeholder account of a session that belongs to no configured account.
pub(super) fn unknown_account() -> AccountId {
    AccountId::new(ANTHROPIC, "session").expect("the name is valid")
}

/// The session's usage, merged in a memory store by the same rules as stored usage; `None` if the session has none.
pub(super) fn own(session: &Session, id: AccountId, now: Timestamp) -> Option<SessionUsage> {
    let view = AccountView { reason: None, ..view_of(session, &id, now) };
    (!view.windows.is_empty()).then_some(SessionUsage { id, view })
}

/// A session that belongs to no configured account: its own usage, or no usage with the reason. It never shows the
/// usage of a configured account, because the line also shows the model of a different login.
pub(super) fn without_account(session: &Session, now: Timestamp) -> AccountView {
    let view = view_of(session, &unknown_account(), now);
    let reason = view.windows.is_empty().then_some(Reason::UnknownAccount);
    AccountView { reason, ..view }
}

fn view_of(session: &Session, id: &AccountId, now: Timestamp) -> AccountView {
    let manager = QuotaManager::builder(MemoryStore::new()).build().expect("the default settings are valid");
    let account = manager.account(id);
    if let Ok(parsed) = parse_statusline(&session.bytes, now) {
        // A rejected observation leaves the account without usage.
        let _ = account.observe(&parsed.usage);
    }
    AccountView::of(id, &account.peek(), None)
}

/// The account whose login the session uses, if it can be determined.
pub(super) fn account_of_session(config: &Config) -> Option<&AccountSettings> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let login = SessionLogin {
        has_token: variable("CLAUDE_CODE_OAUTH_TOKEN").is_some(),
        has_key: variable("ANTHROPIC_API_KEY").is_some() || variable("ANTHROPIC_AUTH_TOKEN").is_some(),
        dir: variable("CLAUDE_CONFIG_DIR").map(PathBuf::from),
        home,
    };
    login.account(config)
}

/// The session's login, from the environment variables that this process inherits from the session.
#[derive(Debug, Default)]
struct SessionLogin {
    has_token: bool,
    has_key: bool,
    dir: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl SessionLogin {
    fn account<'a>(&self, config: &'a Config) -> Option<&'a AccountSettings> {
        if self.has_key {
            // The session is billed to an API key, so its usage belongs to no account.
            return None;
        }
        let of_anthropic = || config.accounts.iter().filter(|one| *one.id.provider() == ANTHROPIC);
        let is_configured = |login: &LoginSource| match login {
            LoginSource::ClaudeConfigDir(dir) if !self.has_token => self.expanded(dir) == self.dir(),
            LoginSource::TokenEnv(name) => self.has_token && name == "CLAUDE_CODE_OAUTH_TOKEN",
            _ => false,
        };
        // An explicitly configured login takes precedence over the detected one.
        only(of_anthropic().filter(|one| is_configured(&one.login))).or_else(|| {
            let has_configured = of_anthropic().any(|one| is_configured(&one.login));
            only(of_anthropic().filter(|one| !has_configured && one.login == LoginSource::ClaudeCode))
        })
    }

    fn dir(&self) -> Option<PathBuf> {
        self.dir.clone().or_else(|| Some(self.home.as_ref()?.join(".claude")))
    }

    fn expanded(&self, dir: &std::path::Path) -> Option<PathBuf> {
        match dir.strip_prefix("~") {
            Ok(rest) => Some(self.home.as_ref()?.join(rest)),
            Err(_) => Some(dir.to_owned()),
        }
    }
}

/// Returns the item if there is exactly one.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(logins: &[(&str, LoginSource)]) -> Config {
        let account = |name: &str, login: &LoginSource| {
            AccountSettings::new(AccountId::new(ANTHROPIC, name).expect("a name"), login.clone())
        };
        let accounts = logins.iter().map(|(name, login)| account(name, login));
        Config { accounts: accounts.collect(), ..Config::default_account() }
    }

    fn session(dir: Option<&str>) -> SessionLogin {
        SessionLogin { dir: dir.map(PathBuf::from), home: Some("/home/me".into()), ..SessionLogin::default() }
    }

    fn name(account: Option<&AccountSettings>) -> Option<&str> {
        account.map(|account| account.id.name())
    }

    fn two() -> Config {
        config(&[
            ("main", LoginSource::ClaudeCode),
            ("work", LoginSource::ClaudeConfigDir("~/.claude-work".into())),
        ])
    }

    #[test]
    fn a_session_belongs_to_the_account_of_its_directory() {
        assert_eq!(name(session(Some("/home/me/.claude-work")).account(&two())), Some("work"));
        assert_eq!(name(session(None).account(&two())), Some("main"));
    }

    #[test]
    fn a_session_of_another_directory_belongs_to_no_account() {
        let work = config(&[("work", LoginSource::ClaudeConfigDir("/other".into()))]);

        assert_eq!(name(session(None).account(&work)), None);
        assert_eq!(name(session(Some("/third")).account(&work)), None);
    }

    #[test]
    fn a_login_of_two_accounts_selects_no_account() {
        let twins = config(&[("a", LoginSource::ClaudeCode), ("b", LoginSource::ClaudeCode)]);

        assert_eq!(name(session(None).account(&twins)), None);
    }

    #[test]
    fn a_session_with_an_api_key_belongs_to_no_account() {
        let login = SessionLogin { has_key: true, ..session(None) };

        assert_eq!(name(login.account(&two())), None);
    }

    #[test]
    fn a_token_in_the_environment_is_not_the_login_of_a_directory() {
        let login = SessionLogin { has_token: true, ..session(Some("/home/me/.claude-work")) };

        assert_eq!(name(login.account(&two())), Some("main"));
    }
}
