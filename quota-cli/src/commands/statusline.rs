//! `quota statusline`: one short line from the store. It never waits for the network.
//! How the line looks is in `format` and `preset`, what Claude Code says in `session`, and who asks the provider in `refresher`.

mod claim;
mod format;
mod observe;
mod preset;
pub(crate) mod refresher;
mod session;

use std::mem::ManuallyDrop;
use std::sync::Arc;

use jiff::tz::TimeZone;
use quota::{AccountUsage, CredentialError, Freshness, StoreError};

use self::format::Format;
use self::observe::Joined;
use self::session::Session;
use crate::cli::{GlobalOptions, Preset, StatuslineArgs};
use crate::config::{AccountSettings, Config, LoginSource};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::runtime;
use crate::store::{self, OpenedStore};
use crate::store_probe;
use crate::term;
use crate::view::account::AccountView;
use crate::view::account_json;
use crate::view::reason::Reason;
use crate::zone;

/// What the line is made of.
#[derive(Debug)]
struct LineData<'a> {
    /// `None` where the configuration or the store cannot be used, and the session states no usage of its own.
    account: Option<&'a AccountView>,
    session: &'a Session,
    local: &'a LocalTime,
    /// Why there is no account, or only the session's.
    broken: Option<Reason>,
}

/// Why there is no line as it was asked for.
#[derive(Debug)]
struct Broken {
    /// What the line says in its place; `None` where there is no line at all, as for a command line that is not understood.
    reason: Option<Reason>,
    /// Whether the session's own numbers are the whole line: nothing is broken, there is only no store to share them in.
    leaves_session: bool,
    failure: CliError,
}

/// A store that no other process sees holds nothing that a statusline could show.
fn not_shared(store: &OpenedStore) -> Broken {
    let (reason, why) = if store.no_home {
        let why = "neither XDG_STATE_HOME nor HOME is set to an absolute path, so there is no store to read; set HOME, or name a \
                   store with --store or QUOTA_STORE: sqlite:///path";
        (Reason::NoHomeDirectory, why)
    } else {
        let why = "the store memory: is not shared, so a statusline finds nothing in it; name a file: sqlite:///path";
        (Reason::StoreNotShared, why)
    };
    Broken { reason: Some(reason), leaves_session: true, failure: CliError::new(Exit::Config, why) }
}

impl From<CliError> for Broken {
    fn from(failure: CliError) -> Self {
        Self { reason: None, leaves_session: false, failure }
    }
}

impl Broken {
    fn because(reason: Reason) -> impl Fn(CliError) -> Self {
        move |failure| Self { reason: Some(reason), leaves_session: false, failure }
    }
}

/// Writes the line, and has somebody else ask if its numbers are old.
///
/// A configuration or a store that cannot be used is named in the line, and in full on standard error. The exit code is then 0,
/// because Claude Code and Waybar show nothing of a command that fails; with `--json` it is the failure's own.
///
/// # Errors
///
/// [`CliError`] if the command line is not understood, or the line cannot be written.
pub(crate) fn run(options: &StatuslineArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let look = Look {
        format: options.format.as_deref().map(Format::parse).transpose()?,
        preset: options.preset.unwrap_or(Preset::Plain),
        is_json: global.json,
    };
    let store = match store::open_quick(global.store.as_deref()) {
        Ok(store) => store,
        Err(failure) => {
            let tell = async {
                let broken = Broken::because(Reason::StoreError)(failure);
                look.tell_broken(broken, &session::hear()).await
            };
            return runtime::run_without_network(tell);
        }
    };
    if !store.is_shared {
        let tell = async { look.tell_broken(not_shared(&store), &session::hear()).await };
        return runtime::run_without_network(tell);
    }
    let line = async {
        let session = session::hear();
        match line(options, global, &look, &store, &session).await {
            Ok(exit) => Ok(exit),
            Err(broken) => look.tell_broken(broken, &session).await,
        }
    };
    // What is needed for connections, and for a keychain, which is asked by a program, takes a part of the time that a line from
    // a file takes.
    let has_keychain = cfg!(target_os = "macos");
    // Left open: the system takes a file back at the end of the process faster than it is closed.
    let _open = ManuallyDrop::new(Arc::clone(&store.store));
    let line = runtime::warm_up(store.warm_up(), line);
    if store.is_file() && !has_keychain { runtime::run_without_network(line) } else { runtime::run(line) }
}

async fn line(
    options: &StatuslineArgs,
    global: &GlobalOptions,
    look: &Look,
    store: &OpenedStore,
    session: &Session,
) -> Result<Exit, Broken> {
    let config = Config::load(global.config.as_deref()).map_err(Broken::because(Reason::ConfigError))?;
    let settings = chosen(&config, options.account.as_deref(), session)?;
    let manager = context::open_read_only(&config, store).map_err(Broken::because(Reason::ConfigError))?;
    let account = manager.account(&settings.id);
    let mut answer = account.sync().await;
    if answer.store_unavailable_since().is_some() {
        store.check().await.map_err(Broken::because(Reason::StoreError))?;
    }
    let joined = observe::join(&config, &manager, session, &answer, settings).await;
    let observed = match &joined {
        Joined::Observed(observed) => Some(*observed),
        _ => None,
    };
    if observed.is_some_and(|observed| observed.id == settings.id) {
        answer = account.peek();
    }
    let own = match joined {
        // Where an account is named, that one is meant, whatever the session.
        Joined::Own(own) if options.account.is_none() || own.id == settings.id => Some(own.view),
        _ => None,
    };
    let is_of_no_account = own.as_ref().is_some_and(|own| own.id != settings.id);
    // What was observed may be an event, and its hooks take their time.
    let is_due = !settings.disabled && !is_of_no_account && needs_refresh(&answer);
    // A refresher could store nothing in a damaged record, and each line would start another one.
    let has_news = observed.or_else(|| is_due.then_some(settings)).filter(|_| !answer.is_record_damaged());
    let start = async {
        if observed.is_some() {
            // Now, for this process ends at once. If another process holds the lock, the next line reports it again.
            manager.close().await;
        }
        let Some(settings) = has_news else { return Ok(None) };
        refresher::start(store, settings, &config, global.config.as_deref(), &answer).await
    };
    let is_empty = own.is_none() && answer.snapshot().windows().is_empty();
    let view = match own {
        Some(own) => own,
        None => view(&config, settings, &answer).await,
    };
    let tell = |started: &Result<Option<Reason>, StoreError>| {
        let reason = match started {
            Err(_) => Some(Reason::StoreReadOnly),
            // Of another account than the one that is shown it says nothing.
            Ok(reason) => view.reason.or(reason.filter(|_| observed.is_none())),
        };
        look.tell(Some(&AccountView { reason, ..view.clone() }), session, &answer)
    };
    let started = if is_empty {
        // A line without a number says why there will be none.
        let started = start.await;
        tell(&started)?;
        started
    } else {
        // Printed first, so that the line does not wait for the rest.
        tell(&Ok(None))?;
        start.await
    };
    if let Err(error) = started {
        store_probe::warn_read_only(&error);
    }
    Ok(Exit::Success)
}

/// What the line is to look like.
#[derive(Debug)]
struct Look {
    format: Option<Format>,
    preset: Preset,
    is_json: bool,
}

impl Look {
    fn local(&self, now: jiff::Timestamp) -> LocalTime {
        // The zone is looked up only where the time of day is shown.
        let has_clock = self.format.as_ref().is_some_and(Format::has_clock);
        LocalTime { now, zone: if has_clock { zone::local() } else { TimeZone::UTC } }
    }

    fn tell(
        &self,
        account: Option<&AccountView>,
        session: &Session,
        answer: &AccountUsage,
    ) -> Result<(), CliError> {
        let local = self.local(answer.now());
        term::print(&self.shown(&LineData { account, session, local: &local, broken: None }))
    }

    /// Says in the line that something is broken, with what the session itself states, and the rest on standard error.
    async fn tell_broken(&self, broken: Broken, session: &Session) -> Result<Exit, CliError> {
        let Broken { reason, leaves_session, failure } = broken;
        let Some(reason) = reason else { return Err(failure) };
        let local = self.local(quota::Clock::system().now());
        let own = observe::own(session, observe::of_no_account(), local.now);
        let (account, broken) = match own.map(|own| own.view) {
            Some(view) if leaves_session => (Some(AccountView { reason: Some(reason), ..view }), None),
            view => (view, Some(reason)),
        };
        term::print(&self.shown(&LineData { account: account.as_ref(), session, local: &local, broken }))?;
        if self.is_json && broken.is_some() {
            return Err(failure);
        }
        term::eprint(&format!("quota: {failure}\n"));
        Ok(Exit::Success)
    }

    fn shown(&self, line: &LineData<'_>) -> String {
        if self.is_json {
            let accounts = line.account.map(std::slice::from_ref).unwrap_or_default();
            return match line.broken {
                Some(reason) => account_json::render_broken(accounts, reason, line.local),
                None => account_json::render(accounts, line.local),
            };
        }
        match &self.format {
            Some(format) => format.render(line) + "\n",
            None => preset::render(self.preset, line) + "\n",
        }
    }
}

/// What is stored of the account, and why there is not more.
async fn view(config: &Config, settings: &AccountSettings, answer: &AccountUsage) -> AccountView {
    let mut view = AccountView::of(&settings.id, answer, None);
    view.switched_off = settings.disabled;
    if settings.disabled {
        view.reason = Some(Reason::Disabled);
    } else if view.reason.is_none() && answer.is_stale() {
        view.reason = of_login(config, settings).await;
    }
    view
}

/// Why the account cannot be refreshed from here, if its login shows that. A login that a program prints is not looked
/// at: the line does not wait for it.
async fn of_login(config: &Config, settings: &AccountSettings) -> Option<Reason> {
    let is_printed = match &settings.login {
        LoginSource::TokenCommand(_) => true,
        LoginSource::ClaudeCode | LoginSource::ClaudeConfigDir(_) => cfg!(target_os = "macos"),
        LoginSource::TokenEnv(_) | LoginSource::TokenFile(_) => false,
    };
    if is_printed {
        return None;
    }
    let source = context::credential_source(&settings.login, config);
    match source.credential(&settings.id).await {
        Err(CredentialError::NotLoggedIn { .. }) => Some(Reason::NotLoggedIn),
        Err(CredentialError::Unreadable { .. }) => Some(Reason::LoginUnreadable),
        _ => None,
    }
}

/// The account that is named, or else that of the session, or else the first.
fn chosen<'a>(
    config: &'a Config,
    named: Option<&str>,
    session: &Session,
) -> Result<&'a AccountSettings, Broken> {
    match named {
        Some(name) => Ok(config.account(name)?),
        None => match session.was_heard().then(|| observe::account_of_session(config)).flatten() {
            Some(account) => Ok(account),
            None => config.first().map_err(Broken::because(Reason::AllDisabled)),
        },
    }
}

/// Whether asking may bring something: nobody has been told to wait.
fn needs_refresh(answer: &AccountUsage) -> bool {
    matches!(answer.freshness(), Freshness::Stale { .. }) && answer.hold().is_none()
}
