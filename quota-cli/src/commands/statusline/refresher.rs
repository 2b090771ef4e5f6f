//! The detached process that refreshes an account for a statusline and updates the journal.
//! The record's rules decide whether to call the provider. The claim only prevents many lines from starting many processes.

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
use crate::local_usage;
use crate::scope;
use crate::store::{self, OpenedStore, URL_VARIABLE};
use crate::view::reason::Reason;

/// The time limit of the process.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Starts a refresher, unless another process has the claim. Returns why the last refresher failed, if the record does not contain the
/// reason.
///
/// # Errors
///
/// A permanent store error. Nothing is started, because without a claim every line would start a refresher.
pub(super) async fn start(
    store: &OpenedStore,
    account: &AccountSettings,
    config: &Config,
    path: Option<&Path>,
    usage: &AccountUsage,
) -> Result<Option<Reason>, StoreError> {
    let duration = claim_duration(&config.policy_of(account.id.provider()), usage);
    let acquired = claim::acquire(store.store.as_ref(), &account.id, usage.now(), duration).await;
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
    // The URL may contain a password, and other users can read arguments.
    let with_store = |command: &mut Command| {
        command.env(URL_VARIABLE, store.url.expose());
    };
    // If the start fails, the line shows that the readings are stale.
    let _ = detached::start_child(&arguments, with_store);
    Ok(reason)
}

/// The duration of a claim.
fn claim_duration(policy: &Policy, usage: &AccountUsage) -> Duration {
    // The claim lasts at least as long as a lease. If a refresher is killed during its call, the next call must wait for the lease
    // anyway.
    let shortest = policy.lease_ttl();
    // A token without the scope makes no calls, so a refresher would only check for a new token.
    let lacks_scope =
        usage.last_failure().is_some_and(|failure| failure.kind == LastFailureKind::MissingScope);
    if lacks_scope { policy.max_age.max(shortest) } else { shortest }
}

/// Refreshes one account if rate limits allow, and updates the journal.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used. No process reads the message.
pub(crate) fn run(options: &RefreshArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    detached::leave_session();
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let settings = config.account(&options.account)?;
    scope::run(async |scope| {
        let manager = context::open_manager(scope, &config, &store, "quota statusline", Some(TIME_LIMIT))?;
        let account = manager.account(&settings.id);
        let mut changes = account.watch();
        let before = local_usage::sync(&account, settings).await.snapshot().complete_at();
        let refreshed = async {
            while let Some(usage) = changes.next().await {
                if was_refreshed(&usage, before) || usage.error().is_some() || usage.hold().is_some() {
                    break;
                }
            }
        };
        // A disabled account is not refreshed, but its observations are still added to the journal.
        if !settings.disabled && account.is_stale() {
            account.refresh_in_background();
            let _ = Clock::system().bounded(TIME_LIMIT, refreshed).await;
        }
        let usage = account.peek();
        manager.close().await;
        // After a failure the claim is extended, so that the next refresher does not start immediately.
        let (store_ref, id) = (store.store.as_ref(), &settings.id);
        let wait = hold_duration(settings, &config, &usage);
        if let Some(wait) = wait.filter(|_| !was_refreshed(&usage, before)) {
            claim::renew(store_ref, id, options.claim, wait, None).await;
        } else if was_refreshed(&usage, before) || usage.hold().is_some() {
            claim::release(store_ref, id, options.claim).await;
        } else {
            let duration = claim_duration(&config.policy_of(id.provider()), &usage);
            claim::renew(store_ref, id, options.claim, duration, login_reason(&usage)).await;
        }
        // Update the journal after the claim, because a slow update must not delay the next refresher.
        journal::update_and_save_problems(&config, store.store.as_ref()).await;
        Ok(Exit::Success)
    })
}

/// How long to wait before the local readings of an account on hold are read again; `None` if there is no hold, or no such readings.
fn hold_duration(settings: &AccountSettings, config: &Config, usage: &AccountUsage) -> Option<Duration> {
    let hold = usage.hold().filter(|_| local_usage::source(&settings.login).is_some())?;
    let left = hold.until.duration_since(usage.now()).try_into().unwrap_or_default();
    Some(config.policy_of(settings.id.provider()).max_age.min(left))
}

/// Why there was no login. The record does not contain this reason, because another host may have a login.
fn login_reason(usage: &AccountUsage) -> Option<Reason> {
    match usage.error()? {
        QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. } => Some(Reason::NotLoggedIn),
        QuotaError::Fetch { error: FetchError::CredentialUnavailable { .. }, .. } => {
            Some(Reason::LoginUnreadable)
        }
        _ => None,
    }
}

/// Whether the account was refreshed since `before`. With a short max age or a slow provider, the new reading may already be stale.
fn was_refreshed(usage: &AccountUsage, before: Option<Timestamp>) -> bool {
    usage.freshness() == Freshness::Fresh || usage.snapshot().complete_at() > before
}
