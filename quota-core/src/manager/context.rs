//! The handles that every task of a manager needs: spawning, events, its name and its deadline.

use std::sync::Arc;
use std::time::Duration;

use super::events::EventSender;
use super::tasks::Tasks;
use crate::clock::Instant;

/// The handles that tasks of one manager share.
#[derive(Debug, Clone)]
pub(crate) struct TaskContext {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) events: EventSender,
    pub(crate) by: Arc<str>,
    /// When this program ends, if that is known: no call outlasts it.
    pub(crate) deadline: Option<Instant>,
}

impl TaskContext {
    /// How much time is left at `now`; `None` if there is no deadline.
    pub(crate) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_since(now))
    }
}
