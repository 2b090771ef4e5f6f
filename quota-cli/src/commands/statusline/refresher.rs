//! The detached process that refreshes an account for a statusline and updates the journal.
//! The record's rules decide about the call; the claim only keeps many lines from starting many processes.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use quota::record::LastFailureKind;
use quota::store::StoreError;
use quota::{AccountUsage, Clock, FetchError, Freshness, Policy, QuotaError};

use super::claim;
use crate::cli::{GlobalOptions, RefreshArgs};
use crate::config::{AccountSettings, Config};
use crate::context;
use crate::detached;
use crate::exit::{CliError, Exit};
use crate::journal;
use crate::scope;
use crate::store::{self, OpenedStore, URL_VARIABLE};
use crate::view::reason::Reason;

/// The time limit of the process.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Starts a refresher, unless another process just did. Returns why the last one found nothing, if the record does not say so.
///
/// # Errors
///
/// A permanent error of the store: without a claim every line would start a refresher.
pub(super) async fn start(
    store: &OpenedStore,
    account: &AccountSettings,
    config: &Config,
    path: Option<&Path>,
    known: &AccountUsage,
) -> Result<Option<Reason>, StoreError> {
    let duration = claim_duration(&config.policy, known);
    let acquired = claim::acquire(store.store.as_ref(), &account.id, known.now(), duration).await;
    let (holder, reason) = match acquired {
        Ok((Some(holder), reason)) => (holder, reason),
        Err(error) if !error.is_transient() => return Err(error),
        Ok((None, reason)) => return Ok(reason),
        Err(_) => return Ok(None),
    };
    let holder = holder.to_string();
    let mut arguments =
        ["refresh-detached", "--account", account.id.as_str(), "--claim", &holder].map(OsStr::new).to_vec();
    if let Some(path) = path {
        arguments.extend(["--config".as_ref(), path.as_os_str()]);
    }
    // In the environment, because it may contain a password, and other users can read arguments.
    let with_store = |command: &mut Command| {
        command.env(URL_VARIABLE, store.url.expose());
    };
    // If the start fails, the numbers become stale and the line shows that.
    let _ = detached::start(&arguments, with_store, &[]);
    Ok(reason)
}

/// How long a claim keeps other processes from starting a refresher.
fn claim_duration(policy: &Policy, usage: &AccountUsage) -> Duration {
    // As long as a lease: if a refresher is killed during its call, none can call any sooner.
    let shortest = policy.lease_ttl();
    // A token without the scope makes no call: a process would only check for a new token.
    let lacks_scope =
        usage.last_failure().is_some_and(|failure| failure.kind == LastFailureKind::MissingScope);
    if lacks_scope { policy.max_age.max(shortest) } else { shortest }
}

/// Refreshes one account if the rules allow it, and updates the journal.
///
/// # Errors
///
/// [`CliError`] if it cannot start; no process reads it.
pub(crate) fn run(options: &RefreshArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    detached::leave_session();
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let settings = config.account(&options.account)?;
    scope::run(async |scope| {
        let manager = context::open_manager(scope, &config, &store, "quota statusline", Some(TIME_LIMIT))?;
        let account = manager.account(&settings.id);
        let mut changes = account.watch();
        let before = account.sync().await.snapshot().complete_at();
        let refreshed = async {
            while let Some(usage) = changes.next().await {
                if was_refreshed(&usage, before) || usage.error().is_some() || usage.hold().is_some() {
                    break;
                }
            }
        };
        // A disabled account is not refreshed, but its observations go into the journal.
        if !settings.disabled && account.is_stale() {
            account.refresh_in_background();
            let _ = Clock::system().bounded(TIME_LIMIT, refreshed).await;
        }
        let usage = account.peek();
        manager.close().await;
        // Without a result the claim stays, so that the next refresher does not try at once.
        let (store_in_use, id) = (store.store.as_ref(), &settings.id);
        if was_refreshed(&usage, before) || usage.hold().is_some() {
            claim::release(store_in_use, id, options.claim).await;
        } else {
            let duration = claim_duration(&config.policy, &usage);
            claim::renew(store_in_use, id, options.claim, duration, login_reason(&usage)).await;
        }
        // After the claim, because the journal may take long and must not delay the next refresher.
        journal::update_and_save_problems(&config, store.store.as_ref()).await;
        Ok(Exit::Success)
    })
}

/// Why there was no login. The record does not say so, because another host may have one.
fn login_reason(usage: &AccountUsage) -> Option<Reason> {
    match usage.error()? {
        QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. } => Some(Reason::NotLoggedIn),
        QuotaError::Fetch { error: FetchError::CredentialUnavailable { .. }, .. } => {
            Some(Reason::LoginUnreadable)
        }
        _ => None,
    }
}

/// Whether the account was refreshed since `before`. With a short max age or a slow provider the reading may be stale already.
fn was_refreshed(usage: &AccountUsage, before: Option<Timestamp>) -> bool {
    usage.freshness() == Freshness::Fresh || usage.snapshot().complete_at() > before
}
