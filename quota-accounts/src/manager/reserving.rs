//! Reserving what a request is expected to use: here at once, and in the store for every host.
//! What fits is a pure rule in `reservation`. A store that does not answer holds no request up for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Applied, AttemptId, Percent, QuotaStore, StoreError, StoreKey, Swap};
use tokio::runtime::Handle;

use super::Inner;
use super::member::Member;
use super::route::Route;
use crate::Request;
use crate::reservation::{Held, Reservation, Reservations};
use crate::routing::{Rule, Verdict};

/// How often hosts that write at once try again: of any who do, one succeeds.
const MOST_TRIES: u32 = 64;
/// How long a store that was in trouble is not asked: each request would wait for it.
const REST: Duration = Duration::from_secs(1);

/// Where reservations are shared, and whether that works.
#[derive(Debug)]
pub(super) struct SharedReservations {
    store: Arc<dyn QuotaStore>,
    /// When it was in trouble last, in milliseconds; never, if it worked since.
    in_trouble_at: AtomicI64,
}

impl SharedReservations {
    const NEVER: i64 = i64::MIN;

    pub(super) fn on(store: Arc<dyn QuotaStore>) -> Self {
        Self { store, in_trouble_at: AtomicI64::new(Self::NEVER) }
    }

    fn rests(&self, now: Timestamp) -> bool {
        // By the distance: the clock may have been set back since.
        let since = now.as_millisecond().abs_diff(self.in_trouble_at.load(Ordering::Relaxed));
        u128::from(since) < REST.as_millis()
    }

    fn note(&self, now: Timestamp, trouble: Option<&StoreError>) {
        let at = trouble.map_or(Self::NEVER, |_| now.as_millisecond());
        let before = self.in_trouble_at.swap(at, Ordering::Relaxed);
        match (trouble, before == Self::NEVER) {
            (Some(error), true) => {
                tracing::warn!(%error, "cannot share reservations, only this process's count until it can be done again");
            }
            (None, false) => tracing::info!("reservations are shared again"),
            _ => {}
        }
    }
}

/// Something reserved for a request whose result nobody will tell unless it is kept: given back when dropped.
pub(super) struct Reserved {
    inner: Arc<Inner>,
    at: usize,
    id: AttemptId,
    is_kept: bool,
}

impl Reserved {
    /// Leaves it until the request is reported.
    pub(super) fn keep(mut self) -> AttemptId {
        self.is_kept = true;
        self.id
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.release(self.at, self.id);
        }
    }
}

impl Inner {
    /// Reserves what the request is expected to use; the verdict if that does not fit beside the others.
    ///
    /// Without an estimate nothing is reserved. If the store cannot be used, what is known here counts.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        request: &Request,
        at: usize,
    ) -> Result<Option<Reserved>, Verdict> {
        let Some((window, share)) = request.estimated() else { return Ok(None) };
        let member = &self.members[at];
        let now = self.now();
        let wanted = Reservation::new(window.clone(), share, now);
        let left = member.left_of(window, now);
        let full = || Verdict::refused(Rule::Reserved, now.checked_add(self.policy.pause).ok());
        if !member.change_reservations(|held| held.reserve(&wanted, left, now)) {
            return Err(full());
        }
        let id = wanted.id;
        let reserved = Reserved { inner: Arc::clone(self), at, id, is_kept: false };
        match self.share(at, Some((id, left))).await {
            Some(true) => {}
            None => member.change_reservations(|held| held.go_alone(id)),
            Some(false) => return Err(full()),
        }
        Ok(Some(reserved))
    }

    /// Takes over what every host has reserved by now.
    pub(super) async fn read_reservations(&self, at: usize) {
        self.share(at, None).await;
    }

    /// What is given back should whoever sends the request of a route go away.
    pub(super) fn pending(self: &Arc<Self>, route: &Route) -> Option<Reserved> {
        let (at, id) = (route.at, route.reservation?);
        Some(Reserved { inner: Arc::clone(self), at, id, is_kept: false })
    }

    /// Gives back what was reserved; doing it again changes nothing.
    pub(super) fn release(self: &Arc<Self>, at: usize, id: AttemptId) {
        let is_to_be_told = self.members[at].change_reservations(|held| held.release(id));
        // Without a runtime, or with the store away, the next who reserves or gives back tells it; or it ends by itself.
        if is_to_be_told && self.reservations.is_some() && Handle::try_current().is_ok() {
            let inner = Arc::clone(self);
            self.in_background(async move {
                inner.share(at, None).await;
            });
        }
    }

    /// Brings what this process has reserved and given back to the store, with what is wanted, and takes over what stands then.
    /// Whether that fits; `None` if the store cannot be used.
    async fn share(&self, at: usize, wanted: Option<(AttemptId, Option<Percent>)>) -> Option<bool> {
        let shared = self.reservations.as_ref().filter(|shared| !shared.rests(self.clock.now()))?;
        let member = &self.members[at];
        let patience = self.policy.reserve_patience;
        let settled = async {
            let _turn = member.turn_to_reserve().await;
            settle(&*shared.store, member, wanted).await
        };
        let settled = self.clock.bounded(patience, settled).await;
        let settled = settled.unwrap_or_else(|| {
            Err(StoreError::unavailable(
                Applied::Perhaps,
                format!("no answer within {} ms", patience.as_millis()),
            ))
        });
        shared.note(self.clock.now(), settled.as_ref().err());
        settled.ok()
    }
}

async fn settle(
    store: &dyn QuotaStore,
    member: &Member,
    wanted: Option<(AttemptId, Option<Percent>)>,
) -> Result<bool, StoreError> {
    let key = StoreKey::beside(&member.id, "reservations");
    let mut reading = store.read(&key).await?;
    for _ in 0..MOST_TRIES {
        let body = reading.document.as_ref().map(|document| &document.body);
        let mut document = match body {
            None => Reservations::default(),
            // Damaged, or a newer program's: not ours to change.
            Some(body) => Reservations::decode(body)
                .ok_or_else(|| StoreError::unusable(format!("{key} is damaged, or of a newer program")))?,
        };
        let ahead = reading.now.duration_since(member.numbers.now());
        let brought =
            member.change_reservations(|held| held.bring(&mut document, wanted, (reading.now, ahead)));
        if brought.is_changed {
            let text =
                document.encode().ok_or_else(|| StoreError::unusable(format!("{key} cannot be written")))?;
            match store.swap(&key, reading.version(), Bytes::from(text), Held::KEPT).await {
                Ok(Swap::Conflict(stands)) => {
                    reading = stands;
                    continue;
                }
                // It may have been applied, and to look again is to recognise it.
                Err(error) if error.is_transient() => {
                    reading = store.read(&key).await?;
                    continue;
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        member.change_reservations(|held| held.take_over(document, ahead));
        return Ok(brought.fits);
    }
    Err(StoreError::unavailable(Applied::No, "others wrote each time"))
}

impl Member {
    /// What is left of a window, as far as that is known.
    fn left_of(&self, window: &quota_core::WindowId, now: Timestamp) -> Option<Percent> {
        let candidate = self.candidate();
        let window = candidate.snapshot().window(window)?;
        Some(window.used_at(now, candidate.fresh_for()).lower_bound()?.remaining())
    }
}
