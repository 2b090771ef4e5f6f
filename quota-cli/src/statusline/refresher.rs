//! The process that asks the provider for a statusline and keeps the journal, and is waited for by nobody.
//! Whether anybody may ask is decided by the rules, as everywhere; here it is only avoided that forty start at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota::{AccountId, Answer, Clock, State, StoreError, StoreKey, Swap, Version};

use crate::args::RefreshArgs;
use crate::config::{AccountSettings, Config};
use crate::exit::{Exit, Failure};
use crate::gateway::{self, STORE_VARIABLE, Store};
use crate::journal;
use crate::runtime::{self, Threads};

/// How long a claim is kept that is none any more: stores forget, and do not delete.
const OVER: Duration = Duration::from_millis(1);

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
) -> Result<(), StoreError> {
    // A document that is forgotten after a while: of all who find none, one may write it. As long as a lease, for after one
    // that was killed in the middle of a call nobody may ask any sooner; and one that found nobody logged in has a successor.
    let every = config.policy.lease;
    let claimed = store.store.swap(&claim(&account.id), None, Bytes::from_static(b"claimed"), every).await;
    let version = match claimed {
        Ok(Swap::Applied(version)) => version,
        Err(error) if !error.is_transient() => return Err(error),
        _ => return Ok(()),
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

/// Where it stands that a process has been started to ask about an account.
fn claim(account: &AccountId) -> StoreKey {
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
    runtime::run(Threads::One, async {
        let manager = gateway::open(&config, &store, "quota statusline")?;
        let account = manager.account(&settings.id);
        let mut news = account.watch();
        let before = account.load().await.snapshot().complete_at();
        account.refresh_in_background();
        let asked = async {
            while let Some(answer) = news.next().await {
                if has_read(&answer, before) || answer.error().is_some() || answer.hold().is_some() {
                    break;
                }
            }
        };
        if account.is_stale() {
            let _ = Clock::system().bounded(LIFE, asked).await;
        }
        let answer = account.peek();
        manager.close().await;
        // Whoever found nothing out keeps the claim, so that the next one does not try at once.
        if has_read(&answer, before) || answer.hold().is_some() {
            let (key, claimed) = (claim(&settings.id), Some(Version::new(options.claim)));
            let _ = store.store.swap(&key, claimed, Bytes::from_static(b"done"), OVER).await;
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
