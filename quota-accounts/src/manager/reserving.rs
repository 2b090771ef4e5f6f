//! Reserving what a request is expected to use: here at once, and in the store for every host.
//! What fits is a pure rule in `reservation`. A store that does not answer holds no request up for long.

use std::sync::Arc;

use bytes::Bytes;
use quota_core::{AttemptId, Clock, Percent, QuotaStore, StoreError, StoreKey, Swap};

use super::Inner;
use super::member::Member;
use crate::Request;
use crate::reservation::{Reservation, Reservations};
use crate::routing::{Rule, Verdict};

/// How often two hosts that write at once try again.
const MOST_TRIES: u32 = 8;
/// How long a request waits for the store.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(250);

impl Inner {
    /// Reserves what the request is expected to use; the verdict if that does not fit beside the others.
    ///
    /// Without an estimate nothing is reserved. If the store cannot be used, what is known here counts.
    pub(super) async fn reserve(&self, request: &Request, at: usize) -> Result<Option<AttemptId>, Verdict> {
        let Some((window, share)) = request.estimated() else { return Ok(None) };
        let member = &self.members[at];
        let now = self.now();
        let wanted = Reservation::new(window.clone(), share, now);
        let left = member.left_of(window, now);
        let full = || Verdict::refused(Rule::Reserved, now.checked_add(self.policy.pause).ok());
        if !member.change_reservations(|held| held.reserve(&wanted, left, now)) {
            return Err(full());
        }
        let Some(store) = &self.reservations else { return Ok(Some(wanted.id)) };
        let id = wanted.id;
        match shared(&**store, &self.clock, member, |held| held.reserve(&wanted, left, now)).await {
            Some(true) | None => Ok(Some(id)),
            Some(false) => Err(full()),
        }
    }

    /// Takes over what every host has reserved by now.
    pub(super) async fn read_reservations(&self, at: usize) {
        let Some(store) = &self.reservations else { return };
        shared(&**store, &self.clock, &self.members[at], |_| false).await;
    }

    /// Gives back what was reserved.
    pub(super) fn release(self: &Arc<Self>, at: usize, id: AttemptId) {
        self.members[at].change_reservations(|held| held.release(id));
        if self.reservations.is_none() {
            return;
        }
        let inner = Arc::clone(self);
        self.in_background(async move {
            let Some(store) = &inner.reservations else { return };
            // Should this not succeed, the reservation ends by itself.
            shared(&**store, &inner.clock, &inner.members[at], |held| held.release(id)).await;
        });
    }
}

/// Reads, decides and swaps, and takes over what stands then; what was decided, or `None` if the store cannot be used.
async fn shared(
    store: &dyn QuotaStore,
    clock: &Clock,
    member: &Member,
    decide: impl Fn(&mut Reservations) -> bool,
) -> Option<bool> {
    let key = StoreKey::beside(&member.id, "reservations");
    let result = clock.bounded(PATIENCE, swap_until_done(store, &key, member, decide)).await;
    match result {
        Some(Ok(decided)) => decided,
        Some(Err(error)) => {
            tracing::warn!(account = %member.id, %error, "store unavailable, reserving here only");
            None
        }
        None => {
            tracing::warn!(account = %member.id, "store too slow, reserving here only");
            None
        }
    }
}

async fn swap_until_done(
    store: &dyn QuotaStore,
    key: &StoreKey,
    member: &Member,
    decide: impl Fn(&mut Reservations) -> bool,
) -> Result<Option<bool>, StoreError> {
    let mut reading = store.read(key).await?;
    for _ in 0..MOST_TRIES {
        let body = reading.document.as_ref().map(|document| &document.body);
        let Some(mut held) =
            body.map_or_else(|| Some(Reservations::default()), |body| Reservations::decode(body))
        else {
            // Damaged, or a newer program's: not ours to change.
            return Ok(None);
        };
        let decided = decide(&mut held);
        let Some(text) = held.encode().filter(|_| decided) else {
            member.change_reservations(|known| *known = held);
            return Ok(Some(decided));
        };
        match store.swap(key, reading.version(), Bytes::from(text), Reservation::LASTS).await {
            Ok(Swap::Conflict(stands)) => reading = stands,
            // It may have been applied, and to ask again is to be recognised.
            Err(error) if error.is_transient() => reading = store.read(key).await?,
            Err(error) => return Err(error),
            Ok(_) => {
                member.change_reservations(|known| *known = held);
                return Ok(Some(true));
            }
        }
    }
    Ok(None)
}

impl Member {
    /// What is left of a window, as far as that is known.
    fn left_of(&self, window: &quota_core::WindowId, now: jiff::Timestamp) -> Option<Percent> {
        let candidate = self.candidate();
        let window = candidate.snapshot().window(window)?;
        Some(window.used_at(now, candidate.fresh_for()).lower_bound()?.remaining())
    }
}
