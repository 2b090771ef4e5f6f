//! The process that asks the provider for a statusline and keeps the journal, and is waited for by nobody.
//! Whether anybody may ask is decided by the rules, as everywhere; here it is only avoided that forty start at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota::{AccountId, Answer, Clock, QuotaStore, State, StoreError, StoreKey, Swap, TroubleKind, Version};

use crate::args::RefreshArgs;
use crate::config::{AccountSettings, Config};
use crate::exit::{Exit, Failure};
use crate::gateway::{self, STORE_VARIABLE, Store};
use crate::journal;
use crate::scope;

/// How long a claim is kept that is none any more: stores forget, and do not delete.
const OVER: Duration = Duration::from_millis(1);
/// The moment of a claim that is over, for clocks by which it is kept for longer.
const LONG_AGO: &[u8] = b"0";

/// How long one lives.
const LIFE: Duration = Duration::from_secs(60);

/// Starts one, unless somebody else just has.
///
/// # Errors
///
/// That of the store if it takes nothing: then it could not be told of either, and all lines would start one.
pub(super) async fn start(
    store: &Store,
    account: &AccountSettings,
    config: &Config,
    path: Option<&Path>,
    known: &Answer,
) -> Result<(), StoreError> {
    // As long as a lease, for after one that was killed in the middle of a call nobody may ask any sooner; and one that found
    // nobody logged in has a successor.
    let lacks_scope = known.trouble().is_some_and(|trouble| trouble.kind == TroubleKind::MissingScope);
    // Such a token makes no call: a process is started only to look for another one.
    let every = if lacks_scope { config.policy.freshness } else { Duration::ZERO };
    let every = every.max(config.policy.lease_ttl());
    let claimed = claim(store.store.as_ref(), &account.id, known.now(), every).await;
    let version = match claimed {
        Ok(Some(version)) => version,
        Err(error) if !error.is_transient() => return Err(error),
        Ok(None) | Err(_) => return Ok(()),
    };
    let Ok(program) = std::env::current_exe() else { return Ok(()) };
    let mut command = Command::new(program);
    command.arg("refresh-detached").arg("--account").arg(account.id.as_str());
    command.arg("--claim").arg(version.number().to_string());
    if let Some(path) = path {
        command.arg("--config").arg(path);
    }
    // In the environment, for there may be a password in it, and arguments are seen by everybody.
    command.env(STORE_VARIABLE, store.url.expose());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // If it cannot be started the numbers grow old, and the line says so. Nobody waits for it: we end first.
    drop(command.spawn());
    Ok(())
}

/// Claims the right to start one: a document that is forgotten after a while, with the moment in it. Of all who find none, one
/// may write it; of all who find one that holds nobody up, one may replace it.
async fn claim(
    store: &dyn QuotaStore,
    account: &AccountId,
    now: Timestamp,
    every: Duration,
) -> Result<Option<Version>, StoreError> {
    let (key, body) = (place(account), Bytes::from(now.as_millisecond().to_string()));
    let found = match store.swap(&key, None, body.clone(), every).await? {
        Swap::Applied(version) => return Ok(Some(version)),
        Swap::Conflict(found) => found,
        _ => return Ok(None),
    };
    match &found.document {
        Some(claim) if !is_live(&claim.body, found.now, every) => {
            match store.swap(&key, found.version(), body, every).await? {
                Swap::Applied(version) => Ok(Some(version)),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Whether a claim holds others up. That it has not expired is not enough: a clock that was a day ahead has it expire in a
/// day. One that is ahead by less than its time is over soon.
fn is_live(claim: &[u8], now: Timestamp, every: Duration) -> bool {
    let moment = std::str::from_utf8(claim).ok().and_then(|text| text.parse::<i64>().ok());
    // What a program of another form has written is over when it expires.
    moment.is_none_or(|moment| u128::from(now.as_millisecond().abs_diff(moment)) < every.as_millis())
}

/// Where it stands that a process has been started to ask about an account.
fn place(account: &AccountId) -> StoreKey {
    StoreKey::beside(account, "refresher")
}

/// Asks about one account, if the rules allow, writes down what has happened, and ends.
///
/// # Errors
///
/// [`Failure`] if it cannot begin; nobody reads it.
pub(crate) fn run(options: &RefreshArgs, store: Option<&str>) -> Result<Exit, Failure> {
    // Whoever closes the terminal, or ends the group of the statusline, does not end this.
    #[cfg(unix)]
    let _ = rustix::process::setsid();
    let store = gateway::store(store)?;
    let config = Config::named_or_usual(options.config.as_deref())?;
    let settings = config.account(&options.account)?;
    scope::run(async |scope| {
        let manager = gateway::open(scope, &config, &store, "quota statusline", Some(LIFE))?;
        let account = manager.account(&settings.id);
        let mut news = account.watch();
        let before = account.load().await.snapshot().complete_at();
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
        // Whoever found nothing out keeps the claim, so that the next one does not try at once.
        if has_read(&answer, before) || answer.hold().is_some() {
            let (key, claimed) = (place(&settings.id), Some(Version::new(options.claim)));
            let _ = store.store.swap(&key, claimed, Bytes::from_static(LONG_AGO), OVER).await;
        }
        // After the claim: hooks may take long, and the next one that asks is none of their business. Nobody reads what
        // they failed by.
        drop(journal::keep(&config, store.store.as_ref()).await);
        Ok(Exit::Done)
    })
}

/// Whether somebody has asked since. A reading can be old again before it is seen, where little time counts as fresh or the
/// provider takes long.
fn has_read(answer: &Answer, before: Option<Timestamp>) -> bool {
    answer.state() == State::Fresh || answer.snapshot().complete_at() > before
}
