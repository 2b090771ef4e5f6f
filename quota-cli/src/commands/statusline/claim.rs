//! The claim to start a refresher: a lease in the store, with the reason that the last refresher found nothing.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota::model::RequestId;
use quota::store::{Acquire, DocumentBody, LeaseDoc, Start, StoreError, StoreKey, update};
use quota::{AccountId, QuotaStore};
use serde::{Deserialize, Serialize};

use crate::view::reason::Reason;

/// How long the store keeps a claim, for its reason.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// The TTL of a released claim, because stores cannot delete.
const RELEASED_TTL: Duration = Duration::from_millis(1);
/// The time limit of one store operation. A statusline's store has a shorter one of its own.
const TRIP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Claim {
    #[serde(flatten)]
    lease: LeaseDoc,
    /// Why the last refresher found nothing, if the record does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Claim {
    fn reason(&self) -> Option<Reason> {
        let word = self.reason.as_deref()?;
        [Reason::NotLoggedIn, Reason::LoginUnreadable].into_iter().find(|reason| reason.word() == word)
    }

    /// Extends the claim to `duration` from now, with a new reason if there is one.
    fn renew(&mut self, holder: RequestId, now: Timestamp, duration: Duration, reason: Option<Reason>) {
        if self.lease.release(holder) {
            let _ = self.lease.acquire(holder, now, duration);
            self.reason = reason.map(Reason::word).or_else(|| self.reason.take());
        }
    }

    fn release(&mut self, holder: RequestId) {
        if self.lease.release(holder) {
            self.reason = None;
        }
    }
}

impl DocumentBody for Claim {
    /// A damaged claim is replaced: it only keeps this machine from starting too many processes.
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(serde_json::from_slice(body).unwrap_or_default())
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a claim has only string keys").into()
    }
}

fn key(account: &AccountId) -> StoreKey {
    StoreKey::account_extension(account, "refresher")
}

/// Claims the right to start a refresher: its holder if no other process has the claim, and why the last refresher found
/// nothing.
///
/// # Errors
///
/// Any [`StoreError`].
pub(super) async fn acquire(
    store: &dyn QuotaStore,
    account: &AccountId,
    now: Timestamp,
    duration: Duration,
) -> Result<(Option<RequestId>, Option<Reason>), StoreError> {
    let holder = RequestId::random();
    let acquire = |claim: &mut Claim, now| (claim.lease.acquire(holder, now, duration), claim.reason());
    let start = Start::AssumeAbsent { now };
    let updated = update(store, &key(account), start, TTL, TRIP_TIMEOUT, acquire).await?;
    let (acquired, reason) = updated.value;
    Ok(((acquired == Acquire::Acquired).then_some(holder), reason))
}

/// Extends the claim by `duration`, after a refresher that found nothing. If that fails, the claim expires by itself.
pub(super) async fn renew(
    store: &dyn QuotaStore,
    account: &AccountId,
    holder: RequestId,
    duration: Duration,
    reason: Option<Reason>,
) {
    let renew = |claim: &mut Claim, now| claim.renew(holder, now, duration, reason);
    let _ = update(store, &key(account), Start::Read, TTL, TRIP_TIMEOUT, renew).await;
}

/// Releases the claim, after a refresher with a result. If that fails, the claim expires by itself.
pub(super) async fn release(store: &dyn QuotaStore, account: &AccountId, holder: RequestId) {
    let release = |claim: &mut Claim, _| claim.release(holder);
    let _ = update(store, &key(account), Start::Read, RELEASED_TTL, TRIP_TIMEOUT, release).await;
}

#[cfg(test)]
mod tests {
    use quota::{Clock, MemoryStore};

    use super::*;

    const DURATION: Duration = Duration::from_secs(12);

    fn account() -> AccountId {
        "anthropic/main".parse().unwrap()
    }

    fn clock() -> Clock {
        Clock::anchored(Timestamp::from_second(1_800_000_000).unwrap())
    }

    async fn acquired(store: &MemoryStore, clock: &Clock) -> (Option<RequestId>, Option<Reason>) {
        acquire(store, &account(), clock.now(), DURATION).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_claim_is_acquired_until_it_expires() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());

        assert!(acquired(&store, &clock).await.0.is_some());
        assert_eq!(acquired(&store, &clock).await, (None, None));

        clock.sleep(DURATION).await;
        assert!(acquired(&store, &clock).await.0.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_claim_is_acquired_at_once() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());
        let holder = acquired(&store, &clock).await.0.unwrap();

        release(&store, &account(), holder).await;

        assert!(acquired(&store, &clock).await.0.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresher_without_result_extends_its_claim_with_a_reason() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());
        let holder = acquired(&store, &clock).await.0.unwrap();
        clock.sleep(DURATION * 5).await;

        renew(&store, &account(), holder, DURATION, Some(Reason::NotLoggedIn)).await;

        assert_eq!(acquired(&store, &clock).await, (None, Some(Reason::NotLoggedIn)));
        clock.sleep(DURATION).await;
        let (next, reason) = acquired(&store, &clock).await;
        assert_eq!((next.is_some(), reason), (true, Some(Reason::NotLoggedIn)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresher_with_an_expired_claim_changes_nothing() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());
        let late = acquired(&store, &clock).await.0.unwrap();
        clock.sleep(DURATION).await;
        assert!(acquired(&store, &clock).await.0.is_some());

        renew(&store, &account(), late, DURATION * 9, Some(Reason::NotLoggedIn)).await;
        release(&store, &account(), late).await;

        assert_eq!(acquired(&store, &clock).await, (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_claim_is_replaced() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());
        let _ = store.compare_and_swap(&key(&account()), None, "damaged".into(), TTL).await.unwrap();

        assert!(acquired(&store, &clock).await.0.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_a_newer_program_is_unchanged() {
        let clock = clock();
        let store = MemoryStore::with_clock(clock.clone());
        let newer = Bytes::from_static(br#"{"format":2}"#);
        let _ = store.compare_and_swap(&key(&account()), None, newer.clone(), TTL).await.unwrap();

        assert_eq!(acquired(&store, &clock).await, (None, None));
        assert_eq!(store.read(&key(&account())).await.unwrap().document.unwrap().body, newer);
    }

    #[test]
    fn an_unknown_reason_is_hidden_and_preserved() {
        let mut claim = Claim::decode(br#"{"format":1,"reason":"\u001b[2J"}"#).unwrap();

        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let _ = claim.lease.acquire(RequestId::random(), now, DURATION);

        assert_eq!(claim.reason(), None);
        assert!(String::from_utf8_lossy(&claim.encode()).contains(r#""reason":"\u001b[2J""#));
    }
}
