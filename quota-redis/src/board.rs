//! All topics of one connection, and those who wait for them.
//! What is news is decided in `topic`; subscribing, looking up and giving up is done by a keeper, see `keeper`.

mod visits;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use quota_core::Version;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::failure::Failure;
use crate::key::Key;
use crate::script;
use crate::task::Task;
use crate::topic::Topic;

pub(crate) use self::visits::{Trip, Visit};

/// What one connection hears, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// Set under the lock, and read without it by every call.
    is_over: AtomicBool,
    out_of_step: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By channel.
    entries: HashMap<Arc<str>, Entry>,
    /// How many are shelved.
    shelved: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    topic: Topic,
    phase: Phase,
    /// Subscriptions that were sent and are not confirmed yet. A caller may have given up waiting for one that comes late.
    unconfirmed: usize,
    waiting: usize,
    /// How often somebody came, so that a keeper sees whether anybody did meanwhile.
    visits: u64,
    news: Arc<Notify>,
    left: Arc<Notify>,
    _keeper: Option<Task>,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Not subscribed, or not yet: what is known comes from answers alone.
    Deaf,
    /// Subscribed.
    Standing,
    /// Subscribed, but nobody has wanted it for long, and it has no keeper.
    Shelved,
    /// Being given up.
    Leaving,
    /// It could not be kept.
    Failed(Failure),
}

/// What a keeper has to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// There is no subscription.
    Anew,
    /// There is one.
    Standing,
}

/// More shelved subscriptions than this, and than half of all, are not worth their notices.
const MOST_SHELVED: usize = 256;

impl Board {
    /// Takes in what the server says unasked. Called by the connection in the order of the wire.
    pub(crate) fn hear(&self, push: &PushInfo) {
        let channel = match push.data.first() {
            Some(Value::BulkString(channel)) => str::from_utf8(channel).ok(),
            Some(Value::SimpleString(channel)) => Some(&**channel),
            _ => None,
        };
        match &push.kind {
            PushKind::Message | PushKind::SMessage => {
                if let (Some(channel), Some(Value::BulkString(digits))) = (channel, push.data.get(1)) {
                    // What cannot be read is a version that nobody knows, and so news to all.
                    self.heard(channel, script::version(digits).unwrap_or(Version::new(0)));
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => self.confirmed(channel, true),
            PushKind::Unsubscribe => self.confirmed(channel, false),
            // The client takes any such message for the answer to whatever was asked first, and from then on hands each
            // answer to the wrong one. We never ask for these. A cluster sends SUnsubscribe when a slot has moved.
            PushKind::SUnsubscribe | PushKind::PSubscribe | PushKind::PUnsubscribe => self.lose_step(),
            PushKind::Disconnection => self.end(),
            _ => {}
        }
    }

    fn heard(&self, channel: &str, version: Version) {
        if let Some(entry) = self.state().entries.get_mut(channel) {
            entry.topic.heard(version);
            entry.news.notify_waiters();
        }
    }

    fn confirmed(&self, channel: Option<&str>, subscribed: bool) {
        let is_ours = channel.is_some_and(|channel| {
            let mut state = self.state();
            match state.entries.get_mut(channel) {
                Some(entry) if subscribed && entry.unconfirmed > 0 => {
                    entry.unconfirmed -= 1;
                    if matches!(entry.phase, Phase::Deaf) {
                        entry.phase = Phase::Standing;
                        entry.topic.begin();
                    }
                    true
                }
                Some(entry) => !subscribed && matches!(entry.phase, Phase::Leaving),
                None => false,
            }
        });
        if !is_ours {
            self.lose_step();
        }
    }

    /// A subscription to the channel is about to be sent.
    pub(crate) fn subscribing(&self, channel: &str) {
        if let Some(entry) = self.state().entries.get_mut(channel) {
            entry.unconfirmed += 1;
        }
    }

    /// The server has refused it, so no confirmation follows.
    pub(crate) fn not_subscribed(&self, channel: &str) {
        if let Some(entry) = self.state().entries.get_mut(channel) {
            entry.unconfirmed = entry.unconfirmed.saturating_sub(1);
        }
    }

    /// Answers can no longer be told apart: whatever comes now is not to be believed.
    fn lose_step(&self) {
        self.out_of_step.store(true, Ordering::Release);
        self.end();
    }

    /// Whether an answer that has come may belong to another question.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.out_of_step.load(Ordering::Acquire)
    }

    /// The connection is lost, or to be given up: everybody is woken, for they may have missed something.
    pub(crate) fn end(&self) {
        let entries = {
            let mut state = self.state();
            self.is_over.store(true, Ordering::Release);
            std::mem::take(&mut state.entries)
        };
        for entry in entries.values() {
            entry.news.notify_waiters();
            entry.left.notify_waiters();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A question about the channel's document goes out, or with `writes` a write of that version.
    pub(crate) fn trip<'a>(&'a self, channel: &'a str, writes: Option<Version>) -> Trip<'a> {
        let mut trip = Trip { board: self, channel, asked: None, awaited: None };
        if let Some(entry) = self.state().entries.get_mut(channel) {
            trip.asked = Some(entry.topic.ask());
            // Only of a subscription that stands before the write is sent, the notice is certain to come.
            if let Some(version) = writes
                && matches!(entry.phase, Phase::Standing | Phase::Shelved)
            {
                entry.topic.writes(version);
                trip.awaited = Some(version);
            }
        }
        trip
    }

    /// Begins to wait; `keeper` makes a keeper if there is none. `None` if the connection is over.
    ///
    /// # Errors
    ///
    /// If no keeper could be made.
    pub(crate) fn visit(
        self: &Arc<Self>,
        key: &Key,
        keeper: impl FnOnce(Start) -> Result<Task, Failure>,
    ) -> Result<Option<Visit>, Failure> {
        let mut guard = self.state();
        let state = &mut *guard;
        let channel = &key.channel;
        if self.is_over() {
            return Ok(None);
        }
        let entry = match state.entries.get_mut(channel) {
            Some(entry) => {
                match entry.phase {
                    Phase::Deaf | Phase::Standing | Phase::Leaving => {}
                    Phase::Shelved => {
                        entry._keeper = Some(keeper(Start::Standing)?);
                        entry.phase = Phase::Standing;
                        state.shelved -= 1;
                    }
                    Phase::Failed(_) => {
                        entry._keeper = Some(keeper(Start::Anew)?);
                        entry.phase = Phase::Deaf;
                        entry.topic.begin();
                    }
                }
                entry
            }
            None => {
                let keeper = Some(keeper(Start::Anew)?);
                state
                    .entries
                    .entry(Arc::clone(channel))
                    .or_insert_with(|| Entry::kept_by(key.clone(), keeper))
            }
        };
        entry.waiting += 1;
        entry.visits += 1;
        let news = Arc::clone(&entry.news);
        Ok(Some(Visit { board: Arc::clone(self), channel: Arc::clone(channel), news }))
    }

    /// Something that somebody waits for: by turns, as far as chance will have it.
    pub(crate) fn somebody_waits(&self) -> Option<Key> {
        let state = self.state();
        let waited = || state.entries.values().filter(|entry| entry.waiting > 0);
        let some = fastrand::usize(..waited().count().max(1));
        waited().nth(some).map(|entry| entry.key.clone())
    }

    /// The subscription, or the look-up after it, has failed.
    pub(crate) fn fail(&self, channel: &str, failure: Failure) {
        if let Some(entry) = self.state().entries.get_mut(channel) {
            entry.phase = Phase::Failed(failure);
            entry.news.notify_waiters();
        }
    }

    /// Ready once nobody has waited during a whole pause; from then on the subscription is being given up.
    pub(crate) async fn deserted<F: Future<Output = ()>>(&self, channel: &str, pause: impl Fn() -> F) {
        loop {
            let Some(left) = self.state().entries.get(channel).map(|entry| Arc::clone(&entry.left)) else {
                return;
            };
            let mut gone = pin!(left.notified());
            gone.as_mut().enable();
            let visits = match self.state().entries.get(channel) {
                Some(entry) if entry.waiting == 0 => Some(entry.visits),
                Some(_) => None,
                None => return,
            };
            let Some(visits) = visits else {
                gone.await;
                continue;
            };
            pause().await;
            match self.state().entries.get_mut(channel) {
                Some(entry) if entry.waiting == 0 && entry.visits == visits => {
                    entry.phase = Phase::Leaving;
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Keeps a deserted subscription as it is, without a keeper.
    pub(crate) fn shelve(&self, channel: &str) -> Shelved {
        let mut guard = self.state();
        let state = &mut *guard;
        match state.entries.get_mut(channel) {
            // Somebody came in between.
            Some(entry) if entry.waiting > 0 => {
                entry.phase = Phase::Standing;
                return Shelved::Wanted;
            }
            Some(entry) => entry.phase = Phase::Shelved,
            None => return Shelved::Yes,
        }
        state.shelved += 1;
        if state.shelved > MOST_SHELVED && state.shelved * 2 > state.entries.len() {
            Shelved::TooMany
        } else {
            Shelved::Yes
        }
    }

    /// Takes the topic away if nobody waits; otherwise its keeper has to begin anew.
    pub(crate) fn remove(&self, channel: &str) -> bool {
        let mut state = self.state();
        let removed = match state.entries.get_mut(channel) {
            Some(entry) if entry.waiting > 0 => {
                entry.phase = Phase::Deaf;
                return false;
            }
            Some(_) => state.entries.remove(channel),
            None => None,
        };
        drop(state);
        // Dropped outside the lock: the keeper in it is the one who is asking.
        drop(removed);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// What became of a subscription that nobody wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelved {
    /// It is kept without a keeper.
    Yes,
    /// Somebody wants it again.
    Wanted,
    /// There are so many that the connection is better made anew.
    TooMany,
}

impl Entry {
    fn kept_by(key: Key, keeper: Option<Task>) -> Self {
        Self {
            key,
            topic: Topic::default(),
            phase: Phase::Deaf,
            unconfirmed: 0,
            waiting: 0,
            visits: 0,
            news: Arc::default(),
            left: Arc::default(),
            _keeper: keeper,
        }
    }
}

#[cfg(test)]
mod tests;
