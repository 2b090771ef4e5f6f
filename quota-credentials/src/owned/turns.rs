//! Waiting for the turn to exchange a token: of this file's processes by a lock, of other hosts through the store.
//! Whose turn it is, is decided in `turn`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quota_core::{Applied, AttemptId, Clock, ProviderId, QuotaStore, Reading, StoreError, StoreKey, Swap};

use super::turn::{LASTS, Turn};
use quota_core::file::JsonFile;
use quota_core::file::{FileError, FileLock};

/// How long one trip to the store may take; without it, the lock of the file has to do.
const TRIP: Duration = Duration::from_millis(250);
/// How long to wait for others, each of whom may take as long as an exchange does.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How often to look for the turn, should no notice come.
const A_LOOK: Duration = Duration::from_secs(1);
/// How often to swap against others who swap at once.
const MOST_TRIES: u32 = 16;

/// The turn of one provider. The lock ends when it is dropped; the store's turn is to be given back.
#[derive(Debug)]
pub(super) struct Held {
    _lock: FileLock,
    shared: Option<(Arc<dyn QuotaStore>, StoreKey, AttemptId)>,
    clock: Clock,
}

/// Waits for the turn; `None` if it did not come in time.
pub(super) async fn wait(
    document: &JsonFile,
    store: Option<&Arc<dyn QuotaStore>>,
    clock: &Clock,
    provider: &ProviderId,
) -> Result<Option<Held>, FileError> {
    let lock = match document.lock_beside(&format!(".{provider}.turn"), PATIENCE).await {
        Ok(lock) => lock,
        Err(FileError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut held = Held { _lock: lock, shared: None, clock: clock.clone() };
    let Some(store) = store else { return Ok(Some(held)) };
    let key = StoreKey::beside_provider(provider, "logins");
    let who = AttemptId::random();
    match clock.bounded(PATIENCE, wait_in_store(&**store, &key, who, clock)).await {
        Some(Ok(true)) => {
            held.shared = Some((Arc::clone(store), key, who));
            Ok(Some(held))
        }
        // Damaged, or a newer program's: it is not ours to change, and the lock is there.
        Some(Ok(false)) => Ok(Some(held)),
        Some(Err(error)) => {
            tracing::warn!(%provider, %error, "store unavailable, renewing logins under the file's lock only");
            Ok(Some(held))
        }
        None => Ok(None),
    }
}

impl Held {
    /// Gives the turn back to whoever waits on another host. Should that not succeed, it ends by itself.
    pub(super) async fn give_back(self) {
        let Some((store, key, who)) = &self.shared else { return };
        if let Err(error) = change(&**store, key, &self.clock, |turn, _| turn.give_back(*who)).await {
            tracing::debug!(%error, "the turn ends by itself");
        }
    }
}

async fn wait_in_store(
    store: &dyn QuotaStore,
    key: &StoreKey,
    who: AttemptId,
    clock: &Clock,
) -> Result<bool, StoreError> {
    loop {
        let mut is_taken = false;
        let stands = change(store, key, clock, |turn, now| {
            is_taken = turn.take(who, now).is_ok();
            is_taken
        })
        .await?;
        match stands {
            _ if is_taken => return Ok(true),
            None => return Ok(false),
            // A hint, and bounded: whoever has the turn may have vanished.
            Some(reading) => {
                if let Some(Err(_)) = clock.bounded(A_LOOK, store.changed(key, reading.version())).await {
                    // Without notices there are still looks.
                    clock.sleep(A_LOOK).await;
                }
            }
        }
    }
}

/// Reads, decides and swaps; what stood when nothing was decided, or `None` if it was written or is not ours.
async fn change(
    store: &dyn QuotaStore,
    key: &StoreKey,
    clock: &Clock,
    mut decide: impl FnMut(&mut Turn, jiff::Timestamp) -> bool,
) -> Result<Option<Reading>, StoreError> {
    let slow = || StoreError::unavailable(Applied::Perhaps, "it did not answer in time");
    let mut reading = clock.bounded(TRIP, store.read(key)).await.unwrap_or_else(|| Err(slow()))?;
    for _ in 0..MOST_TRIES {
        let turn = reading.document.as_ref().map(|document| Turn::decode(&document.body));
        let Some(mut turn) = turn.unwrap_or_else(|| Some(Turn::default())) else { return Ok(None) };
        if !decide(&mut turn, reading.now) {
            return Ok(Some(reading));
        }
        let Some(body) = turn.encode() else { return Ok(None) };
        let swap = store.swap(key, reading.version(), Bytes::from(body), LASTS * 2);
        reading = match clock.bounded(TRIP, swap).await.unwrap_or_else(|| Err(slow())) {
            Ok(Swap::Conflict(stands)) => stands,
            // It may have been applied, and to ask again is to be recognised.
            Err(StoreError::Unavailable { applied: Applied::Perhaps, .. }) => {
                clock.bounded(TRIP, store.read(key)).await.unwrap_or_else(|| Err(slow()))?
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(None),
        };
    }
    Err(StoreError::unavailable(Applied::No, "too many others write at once"))
}
