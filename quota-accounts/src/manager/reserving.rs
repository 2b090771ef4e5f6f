//! Reserving what a request is expected to use: here at once, and in the store for every host.
//! What fits is a pure rule in `reservation`. A store that does not answer holds no request up for long.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::store::{Start, update};
use quota_core::{QuotaStore, RequestId, StoreError, StoreKey, WriteState};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Inner;
use super::member::Member;
use crate::Request;
use crate::reservation::{Held, Reservation, Reservations};
use crate::routing::{Rule, Verdict, room};

/// How long a store that was in trouble is not asked: each request would wait for it.
const REST: Duration = Duration::from_secs(1);

/// Where reservations are shared, and whether that works.
#[derive(Debug)]
pub(super) struct SharedReservations {
    store: Arc<dyn QuotaStore>,
    /// When it was in trouble last, in milliseconds; never, if it worked since.
    in_trouble_at: AtomicI64,
    /// Tells what was given back while the store was in trouble. It ends with the manager, and nobody waits for it.
    teller: Mutex<JoinSet<()>>,
}

impl SharedReservations {
    const NEVER: i64 = i64::MIN;

    pub(super) fn on(store: Arc<dyn QuotaStore>) -> Self {
        Self { store, in_trouble_at: AtomicI64::new(Self::NEVER), teller: Mutex::default() }
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
    id: RequestId,
    is_kept: bool,
}

impl Reserved {
    /// Leaves it until the request is reported.
    pub(super) fn keep(mut self) -> RequestId {
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
        let left = room(&member.candidate(), window, now, &self.policy);
        let full = || Verdict::refused(Rule::Reserved, now.checked_add(self.policy.pause).ok());
        if !member.change_reservations(|held| held.reserve(&wanted, left, now)) {
            return Err(full());
        }
        let id = wanted.id;
        let reserved = Reserved { inner: Arc::clone(self), at, id, is_kept: false };
        match self.share(at, Some(id)).await {
            Some(false) => return Err(full()),
            Some(true) => {}
            None => member.change_reservations(|held| held.go_alone(id)),
        }
        Ok(Some(reserved))
    }

    /// Takes over what every host has reserved by now.
    pub(super) async fn read_reservations(&self, at: usize) {
        self.share(at, None).await;
    }

    /// Gives a reservation back when it is dropped, so that a sender that goes away leaves none behind.
    pub(super) fn pending(self: &Arc<Self>, at: usize, id: RequestId) -> Reserved {
        Reserved { inner: Arc::clone(self), at, id, is_kept: false }
    }

    /// Gives back what was reserved; doing it again changes nothing.
    pub(super) fn release(self: &Arc<Self>, at: usize, id: RequestId) {
        let is_to_be_told = self.members[at].change_reservations(|held| held.release(id));
        // Without a runtime the next who reserves or gives back tells it; or it ends by itself.
        if is_to_be_told && self.reservations.is_some() && Handle::try_current().is_ok() {
            let inner = Arc::clone(self);
            self.in_background(async move {
                inner.share(at, None).await;
                if inner.members[at].has_untold() {
                    inner.tell_later();
                }
            });
        }
    }

    /// Tells others what was given back as soon as the store can be used.
    fn tell_later(self: &Arc<Self>) {
        let Some(shared) = &self.reservations else { return };
        let mut teller = shared.teller.lock().unwrap_or_else(PoisonError::into_inner);
        while teller.try_join_next().is_some() {}
        if !teller.is_empty() {
            return;
        }
        // Weak, so that a manager nobody uses any more does not live on for this.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        teller.spawn(async move {
            loop {
                clock.sleep(REST).await;
                let Some(inner) = inner.upgrade() else { return };
                let untold = || inner.members.iter().enumerate().filter(|(_, member)| member.has_untold());
                for (at, _) in untold() {
                    inner.share(at, None).await;
                }
                if untold().next().is_none() {
                    return;
                }
            }
        });
    }

    /// Brings what this process wants, has reserved and has given back to the store, and takes over what stands then. Whether what
    /// was asked for fits; `None` if the store cannot be used.
    ///
    /// Whoever has the turn does it for all who wait, so that they do not wait for each other's trips.
    async fn share(&self, at: usize, asked: Option<RequestId>) -> Option<bool> {
        let shared = self.reservations.as_ref()?;
        let member = &self.members[at];
        if shared.rests(self.clock.now()) {
            return None;
        }
        let before = member.begun();
        let mut turn = member.turn_to_reserve().await;
        let answer = || asked.and_then(|id| member.change_reservations(|held| held.answer(id)));
        if let Some(answer) = answer() {
            return Some(answer);
        }
        if asked.is_none() && *turn > before {
            // Somebody has brought and read all of it since.
            return Some(true);
        }
        if shared.rests(self.clock.now()) {
            // Whoever had the turn before has waited long enough for all.
            return None;
        }
        let number = member.begin();
        let patience = self.policy.reserve_patience;
        let settled = self.clock.bounded(patience, settle(&*shared.store, member, patience)).await;
        let settled = settled.unwrap_or_else(|| {
            Err(StoreError::unavailable(
                WriteState::Unknown,
                format!("no answer within {} ms", patience.as_millis()),
            ))
        });
        shared.note(self.clock.now(), settled.as_ref().err());
        settled.ok()?;
        *turn = number;
        Some(answer().unwrap_or(true))
    }
}

/// Brings what this process knows to the store, and takes over what the store has then.
async fn settle(store: &dyn QuotaStore, member: &Member, timeout: Duration) -> Result<(), StoreError> {
    let key = StoreKey::account_extension(&member.id, "reservations");
    let (mut ahead, mut attempts) = (SignedDuration::ZERO, 0);
    let bring = |document: &mut Reservations, now: Timestamp| {
        ahead = now.duration_since(member.now());
        attempts += 1;
        member.change_reservations(|held| {
            if attempts > 1 {
                // The swap before conflicted. If it was applied all the same, the document shows it.
                held.lost();
            }
            held.bring(document, now, ahead);
        });
    };
    let updated = update(store, &key, Start::Read, Held::KEPT, timeout, bring).await?;
    member.change_reservations(|held| held.take_over(Arc::unwrap_or_clone(updated.document), ahead));
    Ok(())
}

impl Member {
    fn has_untold(&self) -> bool {
        self.see_reservations(Held::has_untold).unwrap_or(false)
    }
}
