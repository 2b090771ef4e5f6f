//! The process that asks the provider for a statusline and keeps the journal, and is waited for by nobody.
//! Whether anybody may ask is decided by the rules, as everywhere; here it is only avoided that forty start at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountUsage, Clock, FetchError, Freshness, LastFailureKind, Policy, QuotaError, StoreError};

use super::claim;
use crate::cli::{GlobalOptions, RefreshArgs};
use crate::config::{AccountSettings, Config};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::journal;
use crate::scope;
use crate::store::{self, OpenedStore, URL_VARIABLE};
use crate::view::reason::Reason;

/// How long one lives.
const LIFE: Duration = Duration::from_secs(60);

/// Starts one, unless another process just has. Returns why the last one found nothing, where the record does not say so.
///
/// # Errors
///
/// That of the store if it takes nothing: then it could not be told of either, and all lines would start one.
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
    let Ok(program) = std::env::current_exe() else { return Ok(reason) };
    let mut command = Command::new(program);
    command.arg("refresh-detached").arg("--account").arg(account.id.as_str());
    command.arg("--claim").arg(holder.to_string());
    if let Some(path) = path {
        command.arg("--config").arg(path);
    }
    // In the environment, for there may be a password in it, and arguments are seen by everybody.
    command.env(URL_VARIABLE, store.url.expose());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // If it cannot be started the numbers grow old, and the line says so. Nobody waits for it: we end first.
    drop(command.spawn());
    Ok(reason)
}

/// How long a claim keeps other processes from starting a refresher.
fn claim_duration(policy: &Policy, answer: &AccountUsage) -> Duration {
    // As long as a lease: after a refresher was killed in the middle of a call, no other may call any sooner.
    let shortest = policy.lease_ttl();
    // A token without the scope makes no call: a process is started only to look for another one.
    let lacks_scope =
        answer.last_failure().is_some_and(|trouble| trouble.kind == LastFailureKind::MissingScope);
    if lacks_scope { policy.max_age.max(shortest) } else { shortest }
}

/// Asks about one account, if the rules allow, writes down what has happened, and ends.
///
/// # Errors
///
/// [`CliError`] if it cannot begin; nobody reads it.
pub(crate) fn run(options: &RefreshArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    // Whoever closes the terminal, or ends the group of the statusline, does not end this.
    #[cfg(unix)]
    let _ = rustix::process::setsid();
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let settings = config.account(&options.account)?;
    scope::run(async |scope| {
        let manager = context::open_manager(scope, &config, &store, "quota statusline", Some(LIFE))?;
        let account = manager.account(&settings.id);
        let mut news = account.watch();
        let before = account.sync().await.snapshot().complete_at();
        let asked = async {
            while let Some(answer) = news.next().await {
                if has_read(&answer, before) || answer.error().is_some() || answer.hold().is_some() {
                    break;
                }
            }
        };
        // One that is switched off is not asked about; what a session has told of it is told on.
        if !settings.disabled && account.is_stale() {
            account.refresh_in_background();
            let _ = Clock::system().bounded(LIFE, asked).await;
        }
        let answer = account.peek();
        manager.close().await;
        // A refresher that found nothing keeps the claim, so that the next one does not try at once.
        let (store_in_use, id) = (store.store.as_ref(), &settings.id);
        if has_read(&answer, before) || answer.hold().is_some() {
            claim::release(store_in_use, id, options.claim).await;
        } else {
            let duration = claim_duration(&config.policy, &answer);
            claim::renew(store_in_use, id, options.claim, duration, of_login(&answer)).await;
        }
        // After the claim: hooks may take long, and the next one that asks is none of their business. Nobody reads what
        // they failed by.
        drop(journal::update(&config, store.store.as_ref()).await);
        Ok(Exit::Success)
    })
}

/// Why there was no login to ask with. The record does not say so, because another host may well have one.
fn of_login(answer: &AccountUsage) -> Option<Reason> {
    match answer.error()? {
        QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. } => Some(Reason::NotLoggedIn),
        QuotaError::Fetch { error: FetchError::CredentialUnavailable { .. }, .. } => {
            Some(Reason::LoginUnreadable)
        }
        _ => None,
    }
}

/// Whether somebody has asked since. A reading can be old again before it is seen, where little time counts as fresh or the
/// provider takes long.
fn has_read(answer: &AccountUsage, before: Option<Timestamp>) -> bool {
    answer.freshness() == Freshness::Fresh || answer.snapshot().complete_at() > before
}
