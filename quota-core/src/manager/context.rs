//! The context of a manager's tasks: the spawner, the event sender, the records, the process's name and its deadline.

use std::sync::Arc;
use std::time::Duration;

use super::events::EventSender;
use super::records::Records;
use super::tasks::Tasks;
use crate::clock::Instant;

/// The handles and settings that the tasks of one manager share.
#[derive(Debug, Clone)]
pub(crate) struct TaskContext {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) events: EventSender,
    pub(crate) records: Arc<Records>,
    pub(crate) process_name: Arc<str>,
    /// When this program ends, if it set a deadline. No call outlasts it.
    pub(crate) deadline: Option<Instant>,
}

impl TaskContext {
    /// The time left at `now`; `None` without a deadline.
    pub(crate) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_since(now))
    }
}
