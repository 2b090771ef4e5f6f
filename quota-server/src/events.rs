//! The events for clients that follow the accounts: journal events, and which account has changed.
//!
//! One broadcast channel carries the live events. Its capacity is the queue length of each client. A client that falls
//! behind is notified that it missed events. A client that reconnects gets the events after its cursor from memory, or
//! from the journals in the store.

mod cursor;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota::{AccountId, Clock, QuotaStore};
use quota_journal::{HookPayload, Journal, JournalEvent};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

pub(crate) use self::cursor::{Cursor, Mark};

/// The number of events that are queued for a slow client.
const QUEUE: usize = 256;
/// The number of events of each account in memory.
const RECENT: usize = 32;
/// The maximum number of events per account that are replayed. A client that was disconnected for longer has missed
/// events.
const MAX_REPLAY: usize = 500;
/// The number of clients that read events from the store at the same time.
const MAX_REPLAYS: usize = 4;
/// The number of journals that are read at the same time for one client.
const CONCURRENT_READS: usize = 8;
/// The timeout for reading one journal.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// A message for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The name of the event in the stream.
    pub(crate) name: &'static str,
    /// The cursor after the event; `None` if the event is not in a journal.
    pub(crate) id: Option<String>,
    /// JSON on one line.
    pub(crate) data: String,
}

/// The events of all accounts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<BTreeMap<AccountId, Known>>,
    live: broadcast::Sender<Arc<Message>>,
    replays: Arc<Semaphore>,
}

/// The known part of an account's journal.
#[derive(Debug, Default)]
struct Known {
    /// The end of the journal; `None` until it has been read.
    mark: Option<Mark>,
    /// Its last events, oldest first.
    recent: VecDeque<Recorded>,
}

/// An event of a journal.
#[derive(Debug, Clone)]
struct Recorded {
    mark: Mark,
    at: Timestamp,
    data: Arc<str>,
}

impl Recorded {
    fn new(account: &AccountId, number: u64, event: &JournalEvent) -> Self {
        let data = HookPayload::new(account, event).json().into();
        Self { mark: Mark::after(number, event), at: event.at, data }
    }
}

/// What a new client receives: the replay first, then the live messages.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The position before the replay.
    pub(crate) cursor: Cursor,
    /// The accounts whose events the client missed.
    pub(crate) missed: Vec<AccountId>,
    /// The events after the position of the client, oldest first.
    pub(crate) replay: VecDeque<Replayed>,
    pub(crate) live: broadcast::Receiver<Arc<Message>>,
    /// Limits the memory for replays. It is released with the last replayed event.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// A replayed event.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) account: AccountId,
    pub(crate) mark: Mark,
    pub(crate) data: Arc<str>,
    at: Timestamp,
}

/// The data of a `missed` event.
pub(crate) fn missed_json<'a>(reason: &str, accounts: impl IntoIterator<Item = &'a AccountId>) -> String {
    let accounts: Vec<_> = accounts.into_iter().map(AccountId::as_str).collect();
    json!({ "reason": reason, "accounts": accounts }).to_string()
}

impl Events {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            known: Mutex::default(),
            live: broadcast::Sender::new(QUEUE),
            replays: Arc::new(Semaphore::new(MAX_REPLAYS)),
        }))
    }

    /// Follows the journals of these accounts from now on.
    pub(crate) fn serve<'a>(&self, accounts: impl Iterator<Item = &'a AccountId>) {
        let mut known = self.0.known.lock();
        let mut previous = std::mem::take(&mut *known);
        *known = accounts.map(|id| (id.clone(), previous.remove(id).unwrap_or_default())).collect();
    }

    /// The names of all accounts.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        self.0.known.lock().keys().cloned().collect()
    }

    /// Reports that an account has changed.
    pub(crate) fn changed(&self, account: &AccountId) {
        self.send(|| Message {
            name: "changed",
            id: None,
            data: json!({ "account": account.as_str() }).to_string(),
        });
    }

    /// Sends the new events of a journal. A journal that was read before the last report has no effect.
    pub(crate) fn publish(&self, account: &AccountId, journal: &Journal) {
        let mut all = self.0.known.lock();
        let Some(known) = all.get_mut(account) else { return };
        let end = Mark::end_of(journal);
        let Some(mark) = known.mark else {
            let events = journal.events().rev().take(RECENT);
            known.recent = events.map(|(number, event)| Recorded::new(account, number, event)).collect();
            known.recent.make_contiguous().reverse();
            known.mark = Some(end);
            return;
        };
        if end == mark || known.recent.iter().any(|recorded| recorded.mark == end) {
            return;
        }
        let new = mark
            .rest(journal)
            .map(|new| new.map(|(number, event)| Recorded::new(account, number, event)).collect::<Vec<_>>());
        let Some(new) = new else {
            *known = Known::default();
            known.mark = Some(end);
            let cursor = cursor(&all);
            let data = || missed_json("journal_replaced", [account]);
            self.send(|| Message { name: "missed", id: Some(cursor.to_string()), data: data() });
            return;
        };
        for recorded in new {
            let data = Arc::clone(&recorded.data);
            let known = all.entry(account.clone()).or_default();
            known.mark = Some(recorded.mark);
            known.recent.push_back(recorded);
            if known.recent.len() > RECENT {
                known.recent.pop_front();
            }
            let cursor = || cursor(&all).to_string();
            self.send(|| Message { name: "journal", id: Some(cursor()), data: data.as_ref().to_owned() });
        }
    }

    /// Sends a message to all clients.
    fn send(&self, message: impl FnOnce() -> Message) {
        if self.0.live.receiver_count() > 0 {
            // The last client may have left.
            let _ = self.0.live.send(Arc::new(message()));
        }
    }

    /// Begins a stream of events after the client's cursor, or without a cursor, after the current end.
    ///
    /// For each account, the client gets all events after its cursor exactly once and in order, or the account is
    /// listed among those with missed events. For an account that the cursor does not contain, the stream begins with
    /// the next event.
    pub(crate) async fn subscribe(
        &self,
        last: Option<&Cursor>,
        store: Option<&Arc<dyn QuotaStore>>,
    ) -> Subscription {
        let (journals, permit) = match (last, store) {
            (Some(last), Some(store)) => self.read_missing(last, store).await,
            _ => (BTreeMap::new(), None),
        };
        let known = self.0.known.lock();
        let live = self.0.live.subscribe();
        let (mut position, mut missed, mut replay) = (cursor(&known), Vec::new(), Vec::new());
        for (account, known) in known.iter() {
            let Some(mark) = last.and_then(|last| last.get(account)) else { continue };
            if known.mark == Some(mark) {
                continue;
            }
            match known.after(account, mark, journals.get(account)) {
                Some(events) => {
                    position.set(account, mark);
                    replay.extend(events);
                }
                None => missed.push(account.clone()),
            }
        }
        // Stable, so that the events of one account keep their order.
        replay.sort_by_key(|replayed| replayed.at);
        let permit = permit.filter(|_| !replay.is_empty());
        Subscription { cursor: position, missed, replay: replay.into(), live, permit }
    }

    /// Reads the journals whose events after the cursor are not in memory, and those of which another gateway has read
    /// more.
    async fn read_missing(
        &self,
        last: &Cursor,
        store: &Arc<dyn QuotaStore>,
    ) -> (BTreeMap<AccountId, Journal>, Option<OwnedSemaphorePermit>) {
        let missing: Vec<_> = {
            let known = self.0.known.lock();
            let is_missing = |(account, known): &(&AccountId, &Known)| {
                let mark = last.get(account);
                mark.is_some_and(|mark| {
                    known.mark != Some(mark) && known.after(account, mark, None).is_none()
                })
            };
            known.iter().filter(is_missing).map(|(account, _)| account.clone()).collect()
        };
        if missing.is_empty() {
            return (BTreeMap::new(), None);
        }
        let replays = Arc::clone(&self.0.replays);
        let permit = replays.acquire_owned().await.expect("the semaphore is never closed");
        let clock = Clock::system();
        let reads = stream::iter(missing).map(|account| {
            let clock = &clock;
            async move {
                let journal = clock.bounded(READ_TIMEOUT, quota_journal::read(store, &account)).await;
                Some((account, journal?.ok()?))
            }
        });
        let journals: BTreeMap<_, _> =
            reads.buffer_unordered(CONCURRENT_READS).filter_map(std::future::ready).collect().await;
        for (account, journal) in &journals {
            self.publish(account, journal);
        }
        (journals, Some(permit))
    }
}

impl Known {
    /// The events after a position: from memory, or from a journal that was just read.
    fn after(&self, account: &AccountId, mark: Mark, journal: Option<&Journal>) -> Option<Vec<Replayed>> {
        let end = self.mark?;
        let mut events: Vec<Recorded> = match self.recent.iter().position(|recorded| recorded.mark == mark) {
            Some(at) => self.recent.iter().skip(at + 1).cloned().collect(),
            None => {
                let rest = mark.rest(journal?)?.filter(|(number, _)| *number < end.next);
                rest.map(|(number, event)| Recorded::new(account, number, event)).collect()
            }
        };
        let is_complete = events.last().is_some_and(|last| last.mark == end) && events.len() <= MAX_REPLAY;
        // An event, such as a reset, may have an earlier time than its predecessor.
        let mut latest = Timestamp::MIN;
        for event in &mut events {
            latest = latest.max(event.at);
            event.at = latest;
        }
        let replayed = |event: Recorded| Replayed {
            account: account.clone(),
            mark: event.mark,
            data: event.data,
            at: event.at,
        };
        is_complete.then(|| events.into_iter().map(replayed).collect())
    }
}

/// The position at the end of all journals.
fn cursor(known: &BTreeMap<AccountId, Known>) -> Cursor {
    let mut cursor = Cursor::default();
    for (account, known) in known {
        if let Some(mark) = known.mark {
            cursor.set(account, mark);
        }
    }
    cursor
}

#[cfg(test)]
mod tests {
    use quota::MemoryStore;
    use quota::store::StoreKey;

    use super::*;

    fn main() -> AccountId {
        "anthropic/main".parse().unwrap()
    }

    /// A journal with the events `first..next`.
    fn journal(first: u64, next: u64) -> Journal {
        let event = |number| json!({ "at_ms": 1_800_000_000_000_u64 + number, "kind": "refreshed" });
        let events: Vec<_> = (first..next).map(event).collect();
        serde_json::from_value(json!({ "format": 3, "next_number": next, "events": events })).unwrap()
    }

    fn events_of(journal: &Journal) -> Events {
        let events = Events::new();
        events.serve([main()].iter());
        events.publish(&main(), journal);
        events
    }

    /// The stream of a client whose cursor is after this event, if the store has this journal.
    async fn resumed(after: u64, stored: &Journal) -> Subscription {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let body = serde_json::to_vec(stored).unwrap().into();
        let key = StoreKey::account_extension(&main(), "journal");
        let _ = store.compare_and_swap(&key, None, body, Duration::from_secs(60)).await.unwrap();
        let mut cursor = Cursor::default();
        let all = journal(0, after + 1);
        cursor.set(&main(), Mark::end_of(&all));
        events_of(stored).subscribe(Some(&cursor), Some(&store)).await
    }

    #[tokio::test(start_paused = true)]
    async fn older_events_come_from_the_store() {
        let subscription = resumed(99, &journal(0, 600)).await;

        assert_eq!((subscription.replay.len(), subscription.missed.len()), (500, 0));
        assert!(subscription.permit.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn recent_events_come_from_memory() {
        let subscription = resumed(590, &journal(0, 600)).await;

        assert_eq!((subscription.replay.len(), subscription.missed.len()), (9, 0));
        assert!(subscription.permit.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_away_for_too_long_missed_events() {
        // More events than are replayed, and events that the journal has dropped.
        for subscription in [resumed(98, &journal(0, 600)).await, resumed(98, &journal(200, 300)).await] {
            assert_eq!((subscription.replay.len(), subscription.missed), (0, vec![main()]));
            // It goes on from here.
            assert_ne!(subscription.cursor, Cursor::default());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_that_was_read_before_changes_nothing() {
        let events = events_of(&journal(0, 10));
        let mut live = events.subscribe(None, None).await.live;

        events.publish(&main(), &journal(0, 8));
        events.publish(&main(), &journal(0, 10));
        assert!(live.try_recv().is_err());
        events.publish(&main(), &journal(0, 11));

        assert_eq!(live.try_recv().unwrap().name, "journal");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_ahead_of_this_gateway_loses_and_repeats_nothing() {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let (seen, stored) = (journal(0, 12), journal(0, 14));
        let body = serde_json::to_vec(&stored).unwrap().into();
        let key = StoreKey::account_extension(&main(), "journal");
        let _ = store.compare_and_swap(&key, None, body, Duration::from_secs(60)).await.unwrap();
        let events = events_of(&journal(0, 10));
        let mut cursor = Cursor::default();
        cursor.set(&main(), Mark::end_of(&seen));

        let mut subscription = events.subscribe(Some(&cursor), Some(&store)).await;
        events.publish(&main(), &journal(0, 15));

        let replayed: Vec<_> = subscription.replay.iter().map(|event| event.mark.next).collect();
        assert_eq!((replayed, subscription.missed), (vec![13, 14], Vec::new()));
        assert!(subscription.live.try_recv().unwrap().data.contains("refreshed"));
        assert!(subscription.live.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_account_sends_no_events() {
        let events = events_of(&journal(0, 10));
        let mut live = events.subscribe(None, None).await.live;

        events.serve(std::iter::empty());
        events.publish(&main(), &journal(0, 11));

        assert!(live.try_recv().is_err());
        assert_eq!(events.subscribe(None, None).await.cursor, Cursor::default());
    }
}
