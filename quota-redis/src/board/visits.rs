//! Those who have to do with one topic of a board: a question on its way, and somebody who waits.
//! Both leave their mark on the board when they go, however they go.

use std::pin::pin;
use std::sync::Arc;

use quota_core::Version;
use tokio::sync::Notify;

use super::{Board, Entry, Phase};
use crate::failure::Failure;
use crate::topic::Asked;

/// A question on its way. Dropped without an answer, a write in it is awaited no longer.
#[derive(Debug)]
pub(crate) struct Trip<'a> {
    pub(super) board: &'a Board,
    pub(super) channel: &'a str,
    pub(super) asked: Option<Asked>,
    pub(super) awaited: Option<Version>,
}

impl Trip<'_> {
    /// The answer says which version stands.
    pub(crate) fn stands(self, version: Option<Version>) {
        if let Some(asked) = self.asked
            && let Some(entry) = self.board.state().entries.get_mut(self.channel)
            && entry.topic.told(asked, version)
        {
            entry.news.notify_waiters();
        }
    }

    /// The write was carried out; `told` if its notice comes here.
    pub(crate) fn wrote(mut self, version: Version, told: bool) {
        if told && self.awaited.is_some() {
            self.awaited = None;
        } else {
            self.stands(Some(version));
        }
    }
}

impl Drop for Trip<'_> {
    fn drop(&mut self) {
        if let Some(version) = self.awaited
            && let Some(entry) = self.board.state().entries.get_mut(self.channel)
        {
            entry.topic.gives_up(version);
            entry.news.notify_waiters();
        }
    }
}

/// Somebody who waits.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(super) board: Arc<Board>,
    pub(super) channel: Arc<str>,
    pub(super) news: Arc<Notify>,
}

impl Visit {
    /// Ready once the document may have moved past `seen`, or the connection is over.
    ///
    /// # Errors
    ///
    /// If there can be no notices and no look-ups.
    pub(crate) async fn news(&self, seen: Option<Version>) -> Result<(), Failure> {
        loop {
            let mut news = pin!(self.news.notified());
            // Registered before the look, so that what comes between the two is not missed.
            news.as_mut().enable();
            match self.board.state().entries.get(&self.channel) {
                None => return Ok(()),
                Some(Entry { phase: Phase::Failed(failure), .. }) => return Err(failure.clone()),
                Some(entry) if entry.topic.is_news_to(seen) => return Ok(()),
                Some(_) => {}
            }
            news.await;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(entry) = self.board.state().entries.get_mut(&self.channel) {
            // An entry that was taken away and came back knows nothing of this visit.
            entry.waiting = entry.waiting.saturating_sub(1);
            if entry.waiting == 0 {
                entry.left.notify_waiters();
            }
        }
    }
}
