//! Who waits for a change of which document, and what they know of it.
//! When it is looked for is decided in `reader`.

use std::collections::HashMap;

use quota_core::{StoreError, StoreKey, Version};
use tokio::sync::oneshot;

/// All who wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_key: HashMap<StoreKey, Vec<Waiter>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) seen: Option<Version>,
    pub(crate) answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Waiter {
    pub(crate) fn wake(self) {
        // Who has left need not be woken.
        let _ = self.answer.send(Ok(()));
    }
}

impl Waiters {
    pub(crate) fn add(&mut self, key: StoreKey, waiter: Waiter) {
        self.by_key.entry(key).or_default().push(waiter);
    }

    /// Whether somebody waits, without those who have left.
    pub(crate) fn are_there(&mut self) -> bool {
        self.by_key.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.answer.is_closed());
            !waiters.is_empty()
        });
        !self.by_key.is_empty()
    }

    /// What is waited for.
    pub(crate) fn keys(&self) -> Vec<StoreKey> {
        self.by_key.keys().cloned().collect()
    }

    /// Wakes those who know another version than the one that stands. Returns whether there were any.
    pub(crate) fn tell(&mut self, key: &StoreKey, stands: Option<Version>) -> bool {
        let Some(waiters) = self.by_key.get_mut(key) else { return false };
        let woken: Vec<_> = waiters.extract_if(.., |waiter| waiter.seen != stands).collect();
        if waiters.is_empty() {
            self.by_key.remove(key);
        }
        let any = !woken.is_empty();
        woken.into_iter().for_each(Waiter::wake);
        any
    }

    /// Tells all of them that it cannot be known.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        for waiter in self.by_key.drain().flat_map(|(_, waiters)| waiters) {
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }
}
