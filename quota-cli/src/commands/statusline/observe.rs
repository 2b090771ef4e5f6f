//! Takes the numbers of a session for a reading, where it is known whose they are and that they say more than is known.
//! What a session says is read in `session`, and the numbers in it by quota-http.

use std::path::PathBuf;

use jiff::Timestamp;
use quota::anthropic::{ANTHROPIC, parse_statusline};
use quota::{AccountId, AccountUsage, MemoryStore, QuotaManager};

use super::session::Session;
use crate::config::{AccountSettings, Config, LoginSource};
use crate::context;
use crate::view::account::AccountView;

/// What came of the usage that a session states.
#[derive(Debug)]
pub(super) enum Joined<'a> {
    /// It states none, or nothing that is not stored already.
    Nothing,
    /// It was joined to what is stored of this account; others see it once the manager is closed.
    Observed(&'a AccountSettings),
    /// No account here is known to own it, so it is for this line alone.
    Own(Box<Own>),
}

/// The usage of a session that is stored nowhere.
#[derive(Debug)]
pub(super) struct Own {
    /// The account the session uses, or a name for none.
    pub(super) id: AccountId,
    pub(super) view: AccountView,
}

/// Joins what the session states to what is stored of its account.
///
/// Whatever cannot be used is left out without a word: it is another program's line, and it will come again.
pub(super) async fn join<'a>(
    config: &'a Config,
    manager: &QuotaManager,
    session: &Session,
    shown: &AccountUsage,
    chosen: &AccountSettings,
) -> Joined<'a> {
    if !session.was_heard() {
        return Joined::Nothing;
    }
    let of_session = |id: AccountId| {
        own(session, id, shown.now()).map_or(Joined::Nothing, |own| Joined::Own(Box::new(own)))
    };
    // Never filed under an account only because it is the first.
    let Some(settings) = account_of_session(config) else { return of_session(of_no_account()) };
    let Ok(parsed) = parse_statusline(&session.bytes, shown.now()) else { return Joined::Nothing };
    let usage = parsed.usage;
    let account = manager.account(&settings.id);
    let other = if settings.id == chosen.id { None } else { Some(account.sync().await) };
    let known = other.as_ref().unwrap_or(shown);
    if !known.snapshot().is_changed_by(&usage, shown.now()) {
        return Joined::Nothing;
    }
    // Another may have logged in since: then it is refused, if it can be told.
    let source = context::credential_source(&settings.login, config);
    let Ok(credential) = source.credential(&settings.id).await else {
        return of_session(settings.id.clone());
    };
    match account.observe(&usage.login_id(credential.login.login_id)) {
        Ok(_) => Joined::Observed(settings),
        Err(_) => of_session(settings.id.clone()),
    }
}

/// The name of what a session states where it belongs to no account that is configured.
pub(super) fn of_no_account() -> AccountId {
    AccountId::new(ANTHROPIC, "session").expect("the name is valid")
}

/// The usage that the session states, judged by the same rules as what is stored, and stored nowhere; `None` if it states none.
pub(super) fn own(session: &Session, id: AccountId, now: Timestamp) -> Option<Own> {
    let usage = parse_statusline(&session.bytes, now).ok()?.usage;
    let manager = QuotaManager::builder(MemoryStore::new()).build().ok()?;
    let account = manager.account(&id);
    account.observe(&usage).ok()?;
    let answer = account.peek();
    let view = AccountView { reason: None, ..AccountView::of(&id, &answer, None) };
    (!view.windows.is_empty()).then_some(Own { id, view })
}

/// The account whose login the session uses, if it can be told.
pub(super) fn account_of_session(config: &Config) -> Option<&AccountSettings> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let told = Told {
        has_token: variable("CLAUDE_CODE_OAUTH_TOKEN").is_some(),
        has_key: variable("ANTHROPIC_API_KEY").is_some() || variable("ANTHROPIC_AUTH_TOKEN").is_some(),
        dir: variable("CLAUDE_CONFIG_DIR").map(PathBuf::from),
        home,
    };
    told.account(config)
}

/// What the session's environment, which is also ours, says of its login.
#[derive(Debug, Default)]
struct Told {
    has_token: bool,
    has_key: bool,
    dir: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Told {
    fn account<'a>(&self, config: &'a Config) -> Option<&'a AccountSettings> {
        if self.has_key {
            // Paid by key, so the numbers are nobody's windows.
            return None;
        }
        let of_anthropic = || config.accounts.iter().filter(|one| *one.id.provider() == ANTHROPIC);
        let in_its_dir = |login: &LoginSource| match login {
            LoginSource::ClaudeConfigDir(dir) if !self.has_token => self.expanded(dir) == self.dir(),
            LoginSource::TokenEnv(name) => self.has_token && name == "CLAUDE_CODE_OAUTH_TOKEN",
            _ => false,
        };
        // A place that is named says more than one that is found.
        only(of_anthropic().filter(|one| in_its_dir(&one.login))).or_else(|| {
            let is_named = of_anthropic().any(|one| in_its_dir(&one.login));
            only(of_anthropic().filter(|one| !is_named && one.login == LoginSource::ClaudeCode))
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

/// The only one; of several it cannot be told which.
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

    fn told(dir: Option<&str>) -> Told {
        Told { dir: dir.map(PathBuf::from), home: Some("/home/me".into()), ..Told::default() }
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
        assert_eq!(name(told(Some("/home/me/.claude-work")).account(&two())), Some("work"));
        assert_eq!(name(told(None).account(&two())), Some("main"));
    }

    #[test]
    fn a_session_of_no_account_belongs_to_none() {
        let work = config(&[("work", LoginSource::ClaudeConfigDir("/other".into()))]);

        assert_eq!(name(told(None).account(&work)), None);
        assert_eq!(name(told(Some("/third")).account(&work)), None);
    }

    #[test]
    fn where_two_accounts_have_one_login_it_belongs_to_neither() {
        let twins = config(&[("a", LoginSource::ClaudeCode), ("b", LoginSource::ClaudeCode)]);

        assert_eq!(name(told(None).account(&twins)), None);
    }

    #[test]
    fn a_session_that_is_paid_by_key_belongs_to_none() {
        let told = Told { has_key: true, ..told(None) };

        assert_eq!(name(told.account(&two())), None);
    }

    #[test]
    fn a_token_in_the_environment_is_not_the_login_of_a_directory() {
        let told = Told { has_token: true, ..told(Some("/home/me/.claude-work")) };

        assert_eq!(name(told.account(&two())), Some("main"));
    }
}
