//! The claim to start a refresher: a lease in the store, with the reason why the last refresher failed.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota::model::RequestId;
use quota::store::{Acquire, DocumentBody, LeaseDoc, Start, StoreError, StoreKey, update};
use quota::{AccountId, QuotaStore};
use serde::{Deserialize, Serialize};

use crate::view::reason::Reason;

/// The TTL of a claim in the store. It is longer than the lease, to preserve the reason.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// The TTL of a released claim. Stores have no delete operation, so a short TTL removes it.
const RELEASED_TTL: Duration = Duration::from_millis(1);
/// The time limit of one store operation. The store of a statusline has a shorter limit.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Claim {
    #[serde(flatten)]
    lease: LeaseDoc,
    /// Why the last refresher failed, if the record does not contain the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Claim {
    fn reason(&self) -> Option<Reason> {
        let word = self.reason.as_deref()?;
        [Reason::NotLoggedIn, Reason::LoginUnreadable].into_iter().find(|reason| reason.word() == word)
    }

    /// Extends the claim to `duration` from now, and replaces the reason if there is a new one.
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
    /// Replaces a damaged claim, because a claim only limits the number of processes. A claim in a newer format is
    /// kept.
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(serde_json::from_slice(body)
            .unwrap_or_else(|_| Self { lease: LeaseDoc::decode(body).unwrap_or_default(), reason: None }))
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a claim has only string keys").into()
    }
}

fn key(account: &AccountId) -> StoreKey {
    StoreKey::account_extension(account, "refresher")
}

/// Claims the right to start a refresher. Returns the holder if no other process has the claim, and why the last refresher failed.
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
    let updated = update(store, &key(account), start, TTL, STORE_TIMEOUT, acquire).await?;
    let (acquired, reason) = updated.value;
    Ok(((acquired == Acquire::Acquired).then_some(holder), reason))
}

/// Extends the claim by `duration` after a refresher that failed. If the store fails, the claim expires.
pub(super) async fn renew(
    store: &dyn QuotaStore,
    account: &AccountId,
    holder: RequestId,
    duration: Duration,
    reason: Option<Reason>,
) {
    let renew = |claim: &mut Claim, now| claim.renew(holder, now, duration, reason);
    let _ = update(store, &key(account), Start::Read, TTL, STORE_TIMEOUT, renew).await;
}

/// Releases the claim after a successful refresher. If the store fails, the claim expires.
pub(super) async fn release(store: &dyn QuotaStore, account: &AccountId, holder: RequestId) {
    let release = |claim: &mut Claim, _| claim.release(holder);
    let _ = update(store, &key(account), Start::Read, RELEASED_TTL, STORE_TIMEOUT, release).await;
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
        Clock::virtual_at(Timestamp::from_second(1_800_000_000).unwrap())
    }

    async fn acquired(store: &MemoryStore, clock: &Clock) -> (Option<RequestId>, Option<Reason>) {
        acquire(store, &account(), clock.now(), DURATION).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_acquired_by_one_process_until_it_expires() {
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
    async fn a_failed_refresher_extends_its_claim_with_a_reason() {
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
        for newer in [r#"{"format":2}"#, r#"{"format":2,"holder":["07"],"reason":7}"#] {
            let store = MemoryStore::with_clock(clock.clone());
            let _ = store.compare_and_swap(&key(&account()), None, newer.into(), TTL).await.unwrap();

            assert_eq!(acquired(&store, &clock).await, (None, None), "{newer}");
            assert_eq!(store.read(&key(&account())).await.unwrap().document.unwrap().body, newer);
        }
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
