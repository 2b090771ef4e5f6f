//! The process that asks the provider for a statusline and keeps the journal, and is waited for by nobody.
//! Whether anybody may ask is decided by the rules, as everywhere; here it is only avoided that forty start at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota::{
    AccountId, Answer, Clock, FetchError, QuotaError, QuotaStore, State, StoreError, StoreKey, Swap,
    TroubleKind, Version,
};

use crate::args::RefreshArgs;
use crate::config::{AccountSettings, Config};
use crate::exit::{Exit, Failure};
use crate::gateway::{self, STORE_VARIABLE, Store};
use crate::journal;
use crate::scope;
use crate::status::reason::Reason;

/// How long a claim is kept that is none any more: stores forget, and do not delete.
const OVER: Duration = Duration::from_millis(1);
/// The moment of a claim that is over, for clocks by which it is kept for longer.
const LONG_AGO: &[u8] = b"0";

/// How long a claim says why its refresher found nothing. The next one states it again.
const REASON_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long one lives.
const LIFE: Duration = Duration::from_secs(60);

/// Starts one, unless another process just has. Returns why the last one found nothing, where the record does not say so.
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
) -> Result<Option<Reason>, StoreError> {
    // As long as a lease, for after one that was killed in the middle of a call nobody may ask any sooner; and one that found
    // nobody logged in has a successor.
    let lacks_scope = known.trouble().is_some_and(|trouble| trouble.kind == TroubleKind::MissingScope);
    // Such a token makes no call: a process is started only to look for another one.
    let every = if lacks_scope { config.policy.freshness } else { Duration::ZERO };
    let every = every.max(config.policy.lease_ttl());
    let claimed = claim(store.store.as_ref(), &account.id, known.now(), every).await;
    let (version, reason) = match claimed {
        Ok((Some(version), reason)) => (version, reason),
        Err(error) if !error.is_transient() => return Err(error),
        Ok((None, reason)) => return Ok(reason),
        Err(_) => return Ok(None),
    };
    let Ok(program) = std::env::current_exe() else { return Ok(reason) };
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
    Ok(reason)
}

/// Claims the right to start one: a document that is forgotten after a while, with the moment in it. Of all who find none, one
/// may write it; of all processes that find an expired one, one may replace it. Behind the moment stands why the last one found
/// nothing, if it is not in the record; a claim passes it on until a refresher knows better.
async fn claim(
    store: &dyn QuotaStore,
    account: &AccountId,
    now: Timestamp,
    every: Duration,
) -> Result<(Option<Version>, Option<Reason>), StoreError> {
    let key = place(account);
    let found = match store.swap(&key, None, body(now, None), every).await? {
        Swap::Applied(version) => return Ok((Some(version), None)),
        Swap::Conflict(found) => found,
        _ => return Ok((None, None)),
    };
    let Some(claim) = &found.document else { return Ok((None, None)) };
    let reason = reason_in(&claim.body);
    if is_live(&claim.body, found.now, every) {
        return Ok((None, reason));
    }
    let keep = if reason.is_some() { every.max(REASON_TTL) } else { every };
    match store.swap(&key, found.version(), body(now, reason), keep).await? {
        Swap::Applied(version) => Ok((Some(version), reason)),
        _ => Ok((None, reason)),
    }
}

fn body(moment: Timestamp, reason: Option<Reason>) -> Bytes {
    let moment = moment.as_millisecond();
    Bytes::from(reason.map_or_else(|| moment.to_string(), |reason| format!("{moment} {}", reason.word())))
}

fn reason_in(claim: &[u8]) -> Option<Reason> {
    let word = std::str::from_utf8(claim).ok()?.split_once(' ')?.1;
    [Reason::NotLoggedIn, Reason::LoginUnreadable].into_iter().find(|reason| reason.word() == word)
}

/// Whether a claim holds others up. That it has not expired is not enough: a clock that was a day ahead has it expire in a
/// day. One that is ahead by less than its time is over soon.
fn is_live(claim: &[u8], now: Timestamp, every: Duration) -> bool {
    let text = std::str::from_utf8(claim).ok();
    let moment = text.and_then(|text| text.split(' ').next()?.parse::<i64>().ok());
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
        let over = has_read(&answer, before) || answer.hold().is_some();
        let claim = match of_login(&answer) {
            _ if over => Some((Bytes::from_static(LONG_AGO), OVER)),
            Some(reason) => Some((body(answer.now(), Some(reason)), REASON_TTL)),
            None => None,
        };
        if let Some((claim, keep)) = claim {
            let (key, claimed) = (place(&settings.id), Some(Version::new(options.claim)));
            let _ = store.store.swap(&key, claimed, claim, keep).await;
        }
        // After the claim: hooks may take long, and the next one that asks is none of their business. Nobody reads what
        // they failed by.
        drop(journal::keep(&config, store.store.as_ref()).await);
        Ok(Exit::Done)
    })
}

/// Why there was no login to ask with. The record does not say so, because another host may well have one.
fn of_login(answer: &Answer) -> Option<Reason> {
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
fn has_read(answer: &Answer, before: Option<Timestamp>) -> bool {
    answer.state() == State::Fresh || answer.snapshot().complete_at() > before
}

#[cfg(test)]
mod tests {
    use quota::MemoryStore;

    use super::*;

    const EVERY: Duration = Duration::from_secs(12);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    #[test]
    fn a_claim_passes_the_reason_on() {
        let claim = body(at(5), Some(Reason::NotLoggedIn));

        assert_eq!(&claim[..], b"5000 not_logged_in");
        assert_eq!(reason_in(&claim), Some(Reason::NotLoggedIn));
        assert_eq!(reason_in(&body(at(5), None)), None);
        assert_eq!(reason_in(b"5000 \x1b[2J"), None);
        assert!(is_live(&claim, at(16), EVERY) && !is_live(&claim, at(17), EVERY));
    }

    #[tokio::test]
    async fn whoever_finds_a_claim_is_told_its_reason() {
        let store = MemoryStore::new();
        let account: AccountId = "anthropic/main".parse().expect("a name");
        let now = Clock::system().now();
        let (version, none) = claim(&store, &account, now, EVERY).await.expect("memory does not fail");
        assert!(version.is_some() && none.is_none());
        let found = body(now, Some(Reason::NotLoggedIn));
        let _ = store.swap(&place(&account), version, found, REASON_TTL).await.expect("memory does not fail");

        let busy = claim(&store, &account, now, EVERY).await.expect("memory does not fail");
        let (next, reason) =
            claim(&store, &account, now, Duration::ZERO).await.expect("memory does not fail");

        assert_eq!(busy, (None, Some(Reason::NotLoggedIn)));
        assert_eq!((next.is_some(), reason), (true, Some(Reason::NotLoggedIn)));
    }
}
