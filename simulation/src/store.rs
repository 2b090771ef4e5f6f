//! The simulated store: one server, and one client for each process, with a network between them that delays and loses messages.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, Document, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};
use tokio::sync::Notify;

use crate::ledger::Caller;
use crate::older;
use crate::world::{Link, World, spawn};

/// The server: versioned documents, their history for failovers, and the faults in force.
#[derive(Debug)]
pub(crate) struct Server {
    world: Arc<World>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<StoreKey, Stored>,
    /// The document that each write replaced, newest last.
    history: Vec<Replaced>,
    last_version: u64,
    down_for_all: usize,
    down_for: BTreeMap<usize, usize>,
    down_keys: BTreeSet<String>,
    read_only: usize,
    ignores_versions: bool,
}

#[derive(Debug, Clone)]
struct Stored {
    document: Document,
    expires_at: Timestamp,
}

#[derive(Debug)]
struct Replaced {
    at: Timestamp,
    key: StoreKey,
    before: Option<Stored>,
}

impl Server {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, state: Mutex::default(), changed: Notify::new() })
    }

    fn read(&self, key: &StoreKey) -> StoreRead {
        let now = self.world.clock.now();
        let state = self.state.lock();
        let live = state.documents.get(key).filter(|stored| now < stored.expires_at);
        StoreRead::new(live.map(|stored| stored.document.clone()), now)
    }

    fn swap(
        &self,
        writer: Caller,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> CasOutcome {
        let found = self.read(key);
        if found.version() != expected && !self.state.lock().ignores_versions {
            return CasOutcome::Conflict(found);
        }
        let now = self.world.clock.now();
        let version = {
            let mut state = self.state.lock();
            state.last_version += 1;
            let version = Version::new(state.last_version);
            let document = Document::new(version, body.clone());
            let expires_at = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
            let before = state.documents.insert(key.clone(), Stored { document, expires_at });
            state.history.push(Replaced { at: now, key: key.clone(), before });
            version
        };
        let before = found.document.map(|document| document.body);
        self.world.check(|checker, now| checker.applied(now, writer, key, before.as_deref(), &body, version));
        self.changed.notify_waiters();
        CasOutcome::Applied(version)
    }

    /// The document that the last write of this key replaced.
    fn before_last_write(&self, key: &StoreKey) -> Option<Document> {
        let state = self.state.lock();
        let last = state.history.iter().rev().find(|replaced| replaced.key == *key)?;
        last.before.as_ref().map(|stored| stored.document.clone())
    }

    /// Whether requests of `process` for `key` get no response.
    fn is_down(&self, process: usize, key: &StoreKey) -> bool {
        let state = self.state.lock();
        state.down_for_all > 0
            || state.down_for.get(&process).is_some_and(|faults| *faults > 0)
            || state.down_keys.iter().any(|down| is_of_account(key, down))
    }

    fn is_read_only(&self) -> bool {
        self.state.lock().read_only > 0
    }

    /// Starts (`true`) or ends an outage for one process or for all.
    pub(crate) fn set_down(&self, process: Option<usize>, is_down: bool) {
        let mut state = self.state.lock();
        let count = match process {
            Some(process) => state.down_for.entry(process).or_default(),
            None => &mut state.down_for_all,
        };
        *count = if is_down { *count + 1 } else { count.saturating_sub(1) };
    }

    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        let mut state = self.state.lock();
        let count = &mut state.read_only;
        *count = if is_read_only { *count + 1 } else { count.saturating_sub(1) };
    }

    pub(crate) fn set_ignores_versions(&self, ignores_versions: bool) {
        self.state.lock().ignores_versions = ignores_versions;
    }

    pub(crate) fn set_account_down(&self, account: &str, is_down: bool) {
        let mut state = self.state.lock();
        match is_down {
            true => state.down_keys.insert(account.to_owned()),
            false => state.down_keys.remove(account),
        };
    }

    /// Loses the writes of the last `lost`, as a failover to a replica that lags.
    pub(crate) fn fail_over(&self, lost: Duration) {
        let since = self.world.clock.now().checked_sub(lost).unwrap_or(Timestamp::MIN);
        let mut lost_keys = BTreeSet::new();
        {
            let mut state = self.state.lock();
            while state.history.last().is_some_and(|replaced| replaced.at >= since) {
                let Some(Replaced { key, before, .. }) = state.history.pop() else { break };
                match before {
                    Some(before) => state.documents.insert(key.clone(), before),
                    None => state.documents.remove(&key),
                };
                lost_keys.insert(key);
            }
        }
        for key in lost_keys {
            self.world.check(|checker, now| checker.lost(now, &key, self.read(&key).document.as_ref()));
        }
        self.changed.notify_waiters();
    }

    /// Removes one document, as at the end of its TTL. No notice announces it.
    pub(crate) fn expire(&self, number: usize) {
        let expired = {
            let mut state = self.state.lock();
            let at = number % state.documents.len().max(1);
            let key = state.documents.keys().nth(at).cloned();
            key.inspect(|key| drop(state.documents.remove(key)))
        };
        if let Some(key) = expired {
            self.world.check(|checker, now| checker.lost(now, &key, None));
        }
    }

    /// Removes all documents.
    pub(crate) fn flush(&self) {
        let keys: Vec<StoreKey> = {
            let mut state = self.state.lock();
            state.history.clear();
            std::mem::take(&mut state.documents).into_keys().collect()
        };
        for key in keys {
            self.world.check(|checker, now| checker.lost(now, &key, None));
        }
        self.changed.notify_waiters();
    }
}

/// Whether a document belongs to this account, such as `example/1#login` to `example/1`.
fn is_of_account(key: &StoreKey, account: &str) -> bool {
    let key = key.as_str();
    key.strip_prefix(account).is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

/// The client of one process.
#[derive(Debug)]
pub(crate) struct Client {
    world: Arc<World>,
    server: Arc<Server>,
    link: Arc<Link>,
    /// The number of the manager that uses this client.
    manager: usize,
    rng: Mutex<Rng>,
    /// The last write of an older program to each key: what was stored, and what the program meant to store.
    written: Mutex<BTreeMap<StoreKey, (Bytes, Bytes)>>,
}

/// The effect of the network on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    RequestLost,
    RequestLate(Duration),
    ResponseLost,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, server: &Arc<Server>, link: &Arc<Link>, manager: usize) -> Self {
        let rng = Mutex::new(world.stream("network", manager));
        let (world, server, link) = (Arc::clone(world), Arc::clone(server), Arc::clone(link));
        Self { world, server, link, manager, rng, written: Mutex::default() }
    }

    fn fate(&self) -> Fate {
        let network = self.world.network();
        let mut rng = self.rng.lock();
        let drawn = rng.f64();
        let mut limit = network.lost_requests;
        if drawn < limit {
            return Fate::RequestLost;
        }
        limit += network.late_requests;
        if drawn < limit {
            return Fate::RequestLate(Duration::from_millis(rng.u64(300..20_000)));
        }
        limit += network.lost_responses;
        if drawn < limit { Fate::ResponseLost } else { Fate::Delivered }
    }

    async fn travel(&self) {
        let (shortest, longest) = self.world.network().delay_us;
        let delay = Duration::from_micros(self.rng.lock().u64(shortest..=longest));
        self.world.clock.sleep(delay).await;
        self.link.gate().await;
    }

    /// Sends a request; does not return if it is lost. The manager's timeout then ends the call.
    async fn send<T: Send + 'static>(
        &self,
        key: &StoreKey,
        serve: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.link.gate().await;
        let fate = self.fate();
        self.travel().await;
        if self.server.is_down(self.link.process, key) {
            // A host that is down drops the request, a server that is down refuses the connection.
            if self.rng.lock().bool() {
                pending::<()>().await;
            }
            return Err(StoreError::unavailable(WriteState::NotApplied, "a simulated outage"));
        }
        match fate {
            Fate::Delivered => {}
            Fate::RequestLost => pending::<()>().await,
            Fate::RequestLate(after) => {
                let server = Arc::clone(&self.server);
                spawn(async move {
                    server.world.clock.sleep(after).await;
                    serve(&server);
                });
                return pending().await;
            }
            Fate::ResponseLost => {
                serve(&self.server);
                return pending().await;
            }
        }
        let response = serve(&self.server);
        self.travel().await;
        Ok(response)
    }

    /// The part of a document that the process's version understands. It recognizes its own writes.
    fn understood(&self, key: &StoreKey, document: Document) -> Document {
        if !self.link.is_older {
            return document;
        }
        match self.written.lock().get(key) {
            Some((stored, own)) if *stored == document.body => Document::new(document.version, own.clone()),
            _ => older::read(document),
        }
    }

    fn understood_read(&self, key: &StoreKey, read: StoreRead) -> StoreRead {
        StoreRead::new(read.document.map(|document| self.understood(key, document)), read.now)
    }

    fn delivered(&self, key: &StoreKey, read: &StoreRead) {
        let manager = self.manager;
        self.world.check(|checker, now| checker.delivered(now, manager, key, read.document.as_ref()));
    }
}

#[async_trait]
impl QuotaStore for Client {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let wanted = key.clone();
        let read = self.send(key, move |server| server.read(&wanted)).await?;
        self.delivered(key, &read);
        Ok(self.understood_read(key, read))
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        if self.server.is_read_only() {
            self.send(key, |_| ()).await?;
            return Err(StoreError::rejected("a simulated replica is read-only"));
        }
        let writer = Caller { process: self.link.process, manager: self.manager };
        let body = match self.link.is_older {
            // An older program has read the document that it replaces.
            true => {
                let replaced = self.server.read(key).document.filter(|found| Some(found.version) == expected);
                let stored = older::write(&body, replaced.as_ref().map(|document| &*document.body));
                self.written.lock().insert(key.clone(), (stored.clone(), body));
                stored
            }
            false => body,
        };
        let (wanted, sent) = (key.clone(), body.clone());
        let outcome = self.send(key, move |server| server.swap(writer, &wanted, expected, sent, ttl)).await?;
        match outcome {
            CasOutcome::Applied(version) => {
                let document = Document::new(version, body);
                let manager = self.manager;
                self.world.check(|checker, now| checker.delivered(now, manager, key, Some(&document)));
                Ok(outcome)
            }
            CasOutcome::Conflict(read) => {
                self.delivered(key, &read);
                Ok(CasOutcome::Conflict(self.understood_read(key, read)))
            }
            _ => unreachable!("this store has no other outcome"),
        }
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        let network = self.world.network();
        loop {
            self.link.gate().await;
            let changed = self.server.changed.notified();
            let found = self.server.read(key).document;
            if found.as_ref().map(|document| document.version) != seen {
                if self.rng.lock().f64() < network.lost_notices || self.server.is_down(self.link.process, key)
                {
                    return pending().await;
                }
                let notice = self.notice(key, found);
                let delay_ms = self.rng.lock().u64(0..=network.notice_ms);
                // The document may change while its notice travels.
                self.world.clock.sleep(Duration::from_millis(delay_ms)).await;
                self.link.gate().await;
                return Ok(notice);
            }
            if self.rng.lock().f64() < network.spurious_notices {
                self.world.clock.sleep(Duration::from_millis(500)).await;
                return Ok(Notice::default());
            }
            // A store that loses notices cannot confirm that they arrive.
            if network.lost_notices > 0.0 {
                changed.await;
            } else if self.world.clock.bounded(CONFIRMATION, changed).await.is_none() {
                self.link.gate().await;
                if !self.server.is_down(self.link.process, key) {
                    return Ok(Notice::unchanged());
                }
            }
        }
    }
}

/// How long a wait lasts before the store confirms that changes still arrive.
const CONFIRMATION: Duration = Duration::from_secs(20);

impl Client {
    /// The notice of a change to `found`: with the document, with its version only, or of an earlier change that arrives late.
    fn notice(&self, key: &StoreKey, found: Option<Document>) -> Notice {
        let kind = self.rng.lock().u8(..8);
        let earlier = || self.server.before_last_write(key).map(Notice::of_document);
        match (kind, found) {
            (0, _) => earlier().unwrap_or_default(),
            (1 | 2, Some(document)) => Notice::of_version(document.version),
            (_, Some(document)) => {
                let manager = self.manager;
                self.world.check(|checker, now| checker.noticed(now, manager, key, &document));
                Notice::of_document(self.understood(key, document))
            }
            (_, None) => Notice::default(),
        }
    }
}
