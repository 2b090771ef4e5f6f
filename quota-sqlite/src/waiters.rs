//! The callers that wait for a change of a document.
//! `reader` decides when to poll.

use std::collections::HashMap;

use quota_core::store::{Notice, StoreError, StoreKey, Version};
use tokio::sync::oneshot;

/// All waiters, by document.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_key: HashMap<StoreKey, Vec<Waiter>>,
}

/// A caller that waits for a version other than `seen`.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) seen: Option<Version>,
    pub(crate) reply: oneshot::Sender<Result<Notice, StoreError>>,
}

impl Waiter {
    /// Wakes the caller with the current version.
    pub(crate) fn wake(self, current: Option<Version>) {
        // The caller may be cancelled.
        let _ = self.reply.send(Ok(Notice::of_version(current)));
    }
}

impl Waiters {
    pub(crate) fn add(&mut self, key: StoreKey, waiter: Waiter) {
        let waiters = self.by_key.entry(key).or_default();
        // A caller that waits again has cancelled its earlier wait.
        waiters.retain(|waiter| !waiter.reply.is_closed());
        waiters.push(waiter);
    }

    /// Whether there are no waiters. A cancelled one counts until it is removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Removes cancelled waiters. It visits all waiters.
    pub(crate) fn remove_closed(&mut self) {
        self.by_key.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.reply.is_closed());
            !waiters.is_empty()
        });
    }

    /// The awaited keys.
    pub(crate) fn keys(&self) -> Vec<StoreKey> {
        self.by_key.keys().cloned().collect()
    }

    /// Wakes the waiters whose version is not the current one. Returns whether there were any.
    pub(crate) fn notify(&mut self, key: &StoreKey, current: Option<Version>) -> bool {
        let Some(waiters) = self.by_key.get_mut(key) else { return false };
        let woken: Vec<_> = waiters.extract_if(.., |waiter| waiter.seen != current).collect();
        if waiters.is_empty() {
            self.by_key.remove(key);
        }
        let any = !woken.is_empty();
        woken.into_iter().for_each(|waiter| waiter.wake(current));
        any
    }

    /// Fails all waiters.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        for waiter in self.by_key.drain().flat_map(|(_, waiters)| waiters) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use quota_core::AccountId;

    use super::*;

    const ONE: Option<Version> = Some(Version::new(1));
    const TWO: Option<Version> = Some(Version::new(2));

    fn waiter(seen: Option<Version>) -> (Waiter, oneshot::Receiver<Result<Notice, StoreError>>) {
        let (reply, response) = oneshot::channel();
        (Waiter { seen, reply }, response)
    }

    fn key() -> StoreKey {
        StoreKey::account(&"anthropic/main".parse::<AccountId>().unwrap())
    }

    #[test]
    fn a_waiter_is_woken_by_another_version_of_its_document() {
        let mut waiters = Waiters::default();
        let (first, mut response) = waiter(ONE);
        waiters.add(key(), first);

        assert!(!waiters.notify(&StoreKey::probe(), TWO));
        assert!(!waiters.notify(&key(), ONE));
        assert!(response.try_recv().is_err());
        assert!(waiters.notify(&key(), TWO));

        assert_eq!(response.try_recv().unwrap().unwrap(), Notice::of_version(TWO));
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_cancelled_waiter_is_removed_by_the_next_wait_or_sweep() {
        let mut waiters = Waiters::default();
        for _ in 0..3 {
            let (waiter, left) = waiter(ONE);
            waiters.add(key(), waiter);
            drop(left);
        }
        assert_eq!(waiters.by_key[&key()].len(), 1);

        waiters.remove_closed();

        assert!(waiters.is_empty());
    }
}
