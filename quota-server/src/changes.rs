//! The changes of accounts, numbered, for clients that wait for the next one.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::events::Events;
use crate::served::Served;

/// The number of each account's last change. Numbers rise, and each process starts at 1.
#[derive(Debug, Clone)]
pub(crate) struct Changes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Distinguishes the numbers of this process from those of other processes.
    instance: String,
    last: watch::Sender<u64>,
}

/// A position in the changes: an instance, and a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    instance: String,
    number: u64,
}

impl Position {
    /// Parses a position that a client received earlier; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (instance, number) = text.rsplit_once('-')?;
        Some(Self { instance: instance.to_owned(), number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.instance, self.number)
    }
}

impl Changes {
    pub(crate) fn new() -> Self {
        let instance = quota::model::RequestId::random().to_string();
        Self(Arc::new(Inner { instance, last: watch::Sender::new(1) }))
    }

    /// The position after all changes so far.
    pub(crate) fn position(&self) -> Position {
        Position { instance: self.0.instance.clone(), number: *self.0.last.borrow() }
    }

    /// Numbers the changes of these accounts until the returned tasks are dropped.
    pub(crate) fn follow(&self, accounts: &[Arc<Served>], events: &Events) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for served in accounts {
            let (changes, served, events) = (self.clone(), Arc::clone(served), events.clone());
            tasks.spawn(async move {
                let mut watch = served.account.watch();
                while watch.next().await.is_some() {
                    changes.record(&served);
                    events.changed(served.id());
                }
            });
        }
        // Any account may differ from the copy that a client has.
        for served in accounts {
            self.record(served);
            events.changed(served.id());
        }
        tasks
    }

    fn record(&self, served: &Served) {
        self.0.last.send_modify(|last| {
            *last += 1;
            *served.changed.lock() = *last;
        });
    }

    /// The accounts that have changed since a position; all of them for a position of another process.
    pub(crate) fn since<'a>(
        &self,
        position: Option<&Position>,
        accounts: &'a [Arc<Served>],
    ) -> impl Iterator<Item = &'a Served> {
        let number = position.filter(|position| position.instance == self.0.instance);
        let number = number.map_or(0, |position| position.number);
        accounts.iter().map(|served| &**served).filter(move |served| *served.changed.lock() > number)
    }

    /// Waits until there is a change after a position. Dropping the future is safe.
    pub(crate) async fn wait(&self, position: &Position) {
        let is_later = |last: &u64| position.instance != self.0.instance || *last > position.number;
        // The sender lives as long as this value.
        let _ = self.0.last.subscribe().wait_for(is_later).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back() {
        let position = Changes::new().position();

        assert_eq!(Position::parse(&position.to_string()), Some(position));
        for text in ["", "1", "a-", "a-b", "a-1.5"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
