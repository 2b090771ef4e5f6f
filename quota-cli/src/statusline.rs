//! `quota statusline`: one short line from the store. It never waits for the network.
//! How the line looks is in `format` and `preset`, what Claude Code says in `session`, and who asks the provider in `refresher`.

mod format;
mod observe;
mod preset;
pub(crate) mod refresher;
mod session;

use std::mem::ManuallyDrop;
use std::sync::Arc;

use jiff::tz::TimeZone;
use quota::{Answer, State, StoreError};

use self::format::Format;
use self::session::Session;
use crate::args::StatuslineArgs;
use crate::config::{AccountSettings, Config};
use crate::exit::{Exit, Failure};
use crate::gateway;
use crate::runtime;
use crate::sharing;
use crate::status::json;
use crate::status::model::AccountView;
use crate::term;
use crate::words::Here;
use crate::zone;

/// What the line is made of.
#[derive(Debug)]
struct Line<'a> {
    account: &'a AccountView,
    session: &'a Session,
    here: &'a Here,
    /// What anybody asked could not be shared, so nobody is asked.
    is_refused: bool,
}

/// Writes the line, and has somebody else ask if its numbers are old.
///
/// # Errors
///
/// [`Failure`] if the format, the configuration or the store cannot be used, or the line cannot be written.
pub(crate) fn run(options: &StatuslineArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let format = options.format.as_deref().map(Format::parse).transpose()?;
    let store = gateway::store_in_passing(store)?;
    if !store.is_shared {
        let why = "a statusline shows what others have shared, and memory: is shared with nobody; name a file: sqlite:///path";
        return Err(Failure::new(Exit::Usage, why));
    }
    let line = async {
        let session = session::hear();
        let config = Config::named_or_usual(options.config.as_deref())?;
        let settings = chosen(&config, options.account.as_deref(), &session)?;
        let manager = gateway::open_to_read(&config, &store)?;
        let account = manager.account(&settings.id);
        let mut answer = account.load().await;
        if answer.alone_since().is_some() {
            store.check().await?;
        }
        let observed = observe::join(&config, &manager, &session, &answer, settings).await;
        if observed.is_some_and(|observed| observed.id == settings.id) {
            answer = account.peek();
        }
        // What was observed may be something that is to be told, and whatever hooks do for it takes its time.
        let has_news =
            observed.or_else(|| (!settings.disabled && needs_refresh(&answer)).then_some(settings));
        let start = async {
            if observed.is_some() {
                // Now, for this process ends at once. Should somebody hold the lock, the next line says the same again.
                manager.close().await;
            }
            let settings = has_news?;
            refresher::start(&store, settings, &config, options.config.as_deref(), answer.now()).await.err()
        };
        let tell = |refused: &Option<StoreError>| {
            let shown = shown(options, format.as_ref(), settings, &answer, &session, refused.is_some());
            term::answer(&shown)
        };
        let refused = if answer.snapshot().windows().is_empty() {
            // A line without a number says why there will be none.
            let refused = start.await;
            tell(&refused)?;
            refused
        } else {
            // Told first: whoever waits for the line does not wait for the rest.
            tell(&None)?;
            start.await
        };
        if let Some(error) = refused {
            sharing::tell(&error);
        }
        Ok(Exit::Done)
    };
    // What is needed for connections, and for a keychain, which is asked by a program, takes a part of the time that a line from
    // a file takes.
    let has_keychain = cfg!(target_os = "macos");
    // Left open: the system takes a file back at the end of the process faster than it is closed.
    let _open = ManuallyDrop::new(Arc::clone(&store.store));
    let line = runtime::with_ahead(store.open_ahead(), line);
    if store.is_file() && !has_keychain { runtime::run_without_network(line) } else { runtime::run(line) }
}

fn shown(
    options: &StatuslineArgs,
    format: Option<&Format>,
    settings: &AccountSettings,
    answer: &Answer,
    session: &Session,
    is_refused: bool,
) -> String {
    let account = AccountView::of(&settings.id, answer, None);
    let account = AccountView { switched_off: settings.disabled, ..account };
    // The zone is looked up only where the time of day is told.
    let has_clock = format.is_some_and(Format::has_clock);
    let zone = if has_clock { zone::here() } else { TimeZone::UTC };
    let here = Here { now: answer.now(), zone };
    if options.json {
        return json::render(std::slice::from_ref(&account), &here);
    }
    let line = Line { account: &account, session, here: &here, is_refused };
    match format {
        Some(format) => format.fill(&line) + "\n",
        None => preset::fill(options.preset, &line) + "\n",
    }
}

/// The account that is named, or else that of the session, or else the first.
fn chosen<'a>(
    config: &'a Config,
    named: Option<&str>,
    session: &Session,
) -> Result<&'a AccountSettings, Failure> {
    match named {
        Some(name) => config.account(name),
        None => match session.was_heard().then(|| observe::account_of_session(config)).flatten() {
            Some(account) => Ok(account),
            None => config.first(),
        },
    }
}

/// Whether asking may bring something: nobody has been told to wait.
fn needs_refresh(answer: &Answer) -> bool {
    matches!(answer.state(), State::Stale { .. }) && answer.hold().is_none()
}
