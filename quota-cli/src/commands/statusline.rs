//! `quota statusline`: prints one line from the store, without waiting for the network.
//! `format` and `preset` render the line, `session` reads Claude Code's input, and `refresher` calls the provider in another process.

mod claim;
mod format;
mod observe;
mod preset;
pub(crate) mod refresher;
mod session;

use std::mem::ManuallyDrop;
use std::sync::Arc;

use jiff::tz::TimeZone;
use quota::store::StoreError;
use quota::{AccountUsage, CredentialError, Freshness};

use self::format::Format;
use self::observe::MergeResult;
use self::session::Session;
use crate::cli::{GlobalOptions, Preset, StatuslineArgs};
use crate::config::{AccountSettings, Config, LoginSource};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::local_usage;
use crate::runtime;
use crate::store::{self, OpenedStore};
use crate::store_probe;
use crate::term;
use crate::view::account::AccountView;
use crate::view::account_json;
use crate::view::reason::Reason;
use crate::zone;

/// The content of the line.
#[derive(Debug)]
struct LineData<'a> {
    /// `None` if the configuration or the store cannot be used, and the session has no usage of its own.
    account: Option<&'a AccountView>,
    session: &'a Session,
    local: &'a LocalTime,
    /// Why the configuration or the store cannot be used.
    broken: Option<Reason>,
}

/// Why the requested line cannot be printed.
#[derive(Debug)]
struct Broken {
    /// The text of the line instead; `None` if no line is printed, for example after a usage error.
    reason: Option<Reason>,
    /// Whether the session's own usage can still be shown, because only a shared store is missing.
    leaves_session: bool,
    failure: CliError,
}

/// The error for a store that is not shared. It contains no data that a statusline could show.
fn not_shared(store: &OpenedStore) -> Broken {
    let (reason, why) = if store.no_home {
        let why = "neither XDG_STATE_HOME nor HOME is set to an absolute path, so there is no store to read; set HOME, or select \
                   a store with --store or QUOTA_STORE: sqlite:///path";
        (Reason::NoHomeDirectory, why)
    } else {
        let why =
            "the store memory: is not shared, so it has no data for a statusline; use a file: sqlite:///path";
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

/// Prints the line, and starts a refresher if its readings are stale.
///
/// If the configuration or the store cannot be used, the line states that, and standard error has the details. The exit code is then 0,
/// because Claude Code and Waybar hide the output of a command that fails. With `--json` it is the exit code of the error.
///
/// # Errors
///
/// [`CliError`] after a usage error, or if the line cannot be written.
pub(crate) fn run(options: &StatuslineArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let output = Output {
        format: options.format.as_deref().map(Format::parse).transpose()?,
        preset: options.preset.unwrap_or(Preset::Plain),
        is_json: global.json,
    };
    let store = match store::open_quick(global.store.as_deref()) {
        Ok(store) => store,
        Err(failure) => {
            let print = async {
                let broken = Broken::because(Reason::StoreError)(failure);
                output.print_broken(broken, &session::read_input()).await
            };
            return runtime::run_without_network(print);
        }
    };
    if !store.is_shared {
        let print = async { output.print_broken(not_shared(&store), &session::read_input()).await };
        return runtime::run_without_network(print);
    }
    let line = async {
        let session = session::read_input();
        match line(options, global, &output, &store, &session).await {
            Ok(exit) => Ok(exit),
            Err(broken) => output.print_broken(broken, &session).await,
        }
    };
    // A line from a file needs neither the network driver nor the process driver (for a keychain), whose start takes time.
    let has_keychain = cfg!(target_os = "macos");
    // Never closed, because the operating system releases the file faster at the end of the process.
    let _open = ManuallyDrop::new(Arc::clone(&store.store));
    let line = runtime::warm_up(store.warm_up(), line);
    if store.is_file() && !has_keychain { runtime::run_without_network(line) } else { runtime::run(line) }
}

async fn line(
    options: &StatuslineArgs,
    global: &GlobalOptions,
    output: &Output,
    store: &OpenedStore,
    session: &Session,
) -> Result<Exit, Broken> {
    let config = Config::load(global.config.as_deref()).map_err(Broken::because(Reason::ConfigError))?;
    let Some(settings) = select(&config, options.account.as_deref(), session)? else {
        output.print_without_account(session)?;
        return Ok(Exit::Success);
    };
    let manager = context::open_read_only(&config, store).map_err(Broken::because(Reason::ConfigError))?;
    let account = manager.account(&settings.id);
    let mut usage = account.sync().await;
    if usage.store_unavailable_since().is_some() {
        store.check(&config).await.map_err(Broken::because(Reason::StoreError))?;
    }
    let merged = observe::merge(&config, &manager, session, &usage, settings).await;
    let observed = match &merged {
        MergeResult::Observed(observed) => Some(*observed),
        _ => None,
    };
    if observed.is_some_and(|observed| observed.id == settings.id) {
        usage = account.peek();
    }
    let own = match merged {
        // With --account, the session's account does not matter.
        MergeResult::SessionOnly(own) if options.account.is_none() || own.id == settings.id => Some(own.view),
        _ => None,
    };
    let is_unassigned = own.as_ref().is_some_and(|own| own.id != settings.id);
    let is_due = !settings.disabled && !is_unassigned && needs_refresh(&usage, settings);
    // An observation may cause an event, so it needs a refresher too, which runs the hooks. If the record is damaged, a refresher could
    // not store its result, and every line would start another one.
    let to_refresh = observed.or_else(|| is_due.then_some(settings)).filter(|_| !usage.is_record_damaged());
    let start = async {
        if observed.is_some() {
            // Flush the observation before this process ends. If the flush fails, the next line reports the observation again.
            manager.close().await;
        }
        let Some(settings) = to_refresh else { return Ok(None) };
        refresher::start(store, settings, &config, global.config.as_deref(), &usage).await
    };
    let is_empty = own.is_none() && usage.snapshot().windows().is_empty();
    let view = match own {
        Some(own) => own,
        None => {
            let mut view = view(&config, settings, &usage).await;
            if is_empty && store.outage().is_some() {
                view.reason = view.reason.or(Some(Reason::StoreUnreachable));
            }
            view
        }
    };
    let print = |started: &Result<Option<Reason>, StoreError>| {
        let reason = match started {
            Err(_) => Some(Reason::StoreReadOnly),
            // The reason may concern another account than the shown one.
            Ok(reason) => view.reason.or(reason.filter(|_| observed.is_none())),
        };
        output.print(Some(&AccountView { reason, ..view.clone() }), session, &usage)
    };
    let started = if is_empty {
        // A line without readings shows the reason, which the start may return.
        let started = start.await;
        print(&started)?;
        started
    } else {
        // Print first, so that the line does not wait for the start.
        print(&Ok(None))?;
        start.await
    };
    if let Err(error) = started {
        store_probe::warn_read_only(&error);
    }
    Ok(Exit::Success)
}

/// The format of the line.
#[derive(Debug)]
struct Output {
    format: Option<Format>,
    preset: Preset,
    is_json: bool,
}

impl Output {
    fn local(&self, now: jiff::Timestamp) -> LocalTime {
        // Loading the time zone takes time, so do it only for a format with a time of day.
        let has_clock = self.format.as_ref().is_some_and(Format::has_clock);
        LocalTime { now, zone: if has_clock { zone::local_time_zone() } else { TimeZone::UTC } }
    }

    fn print(
        &self,
        account: Option<&AccountView>,
        session: &Session,
        usage: &AccountUsage,
    ) -> Result<(), CliError> {
        let local = self.local(usage.now());
        term::print(&self.text(&LineData { account, session, local: &local, broken: None }))
    }

    /// Prints the line of a session that belongs to no account.
    fn print_without_account(&self, session: &Session) -> Result<(), CliError> {
        let local = self.local(quota::Clock::system().now());
        let account = observe::without_account(session, local.now);
        term::print(&self.text(&LineData { account: Some(&account), session, local: &local, broken: None }))
    }

    /// Prints a line with the reason and the session's own usage, and prints the error on standard error.
    async fn print_broken(&self, broken: Broken, session: &Session) -> Result<Exit, CliError> {
        let Broken { reason, leaves_session, failure } = broken;
        let Some(reason) = reason else { return Err(failure) };
        let local = self.local(quota::Clock::system().now());
        let own = observe::own(session, observe::unknown_account(), local.now);
        let (account, broken) = match own.map(|own| own.view) {
            Some(view) if leaves_session => (Some(AccountView { reason: Some(reason), ..view }), None),
            view => (view, Some(reason)),
        };
        term::print(&self.text(&LineData { account: account.as_ref(), session, local: &local, broken }))?;
        if self.is_json && broken.is_some() {
            return Err(failure);
        }
        term::eprint(&format!("quota: {failure}\n"));
        Ok(Exit::Success)
    }

    fn text(&self, line: &LineData<'_>) -> String {
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

/// The stored state of the account, with the reason if it is stale.
async fn view(config: &Config, settings: &AccountSettings, usage: &AccountUsage) -> AccountView {
    let mut view = AccountView::of(&settings.id, usage, None);
    view.disabled = settings.disabled;
    if settings.disabled {
        view.reason = Some(Reason::Disabled);
    } else if view.reason.is_none() && usage.is_stale() {
        view.reason = login_reason(config, settings).await;
    }
    view
}

/// Why the login prevents a refresh. It does not run a token command or read a keyring, because the line must not wait for them.
async fn login_reason(config: &Config, settings: &AccountSettings) -> Option<Reason> {
    let needs_process = match &settings.login {
        LoginSource::TokenCommand(_) | LoginSource::Keyring(_) => true,
        // An expired token is renewed by the refresh.
        LoginSource::Own => true,
        LoginSource::ClaudeCode | LoginSource::ClaudeConfigDir(_) => cfg!(target_os = "macos"),
        LoginSource::Program(_) | LoginSource::ProgramDir(..) => false,
        LoginSource::TokenEnv(_) | LoginSource::TokenFile(_) => false,
    };
    if needs_process {
        return None;
    }
    let source = context::credential_source(&settings.login, config);
    match source.credential(&settings.id).await {
        Err(CredentialError::NotLoggedIn { .. }) => Some(Reason::NotLoggedIn),
        Err(CredentialError::Unreadable { .. }) => Some(Reason::LoginUnreadable),
        _ => None,
    }
}

/// Selects the account of `--account`, else the account of the session, else the first account. `None` if there is a session that belongs
/// to no account.
fn select<'a>(
    config: &'a Config,
    named: Option<&str>,
    session: &Session,
) -> Result<Option<&'a AccountSettings>, Broken> {
    match named {
        Some(name) => Ok(Some(config.account(name)?)),
        None if session.names_anything() => Ok(observe::account_of_session(config)),
        None => config.first().map(Some).map_err(Broken::because(Reason::AllDisabled)),
    }
}

/// Whether the readings are stale and a refresher may find newer ones. A hold prevents only calls: the provider's own program may have
/// stored newer readings on this machine.
fn needs_refresh(usage: &AccountUsage, settings: &AccountSettings) -> bool {
    matches!(usage.freshness(), Freshness::Stale { .. })
        && (usage.hold().is_none() || local_usage::source(&settings.login).is_some())
}
