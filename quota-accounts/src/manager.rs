//! The router: it chooses an account for each request, classifies outcomes, and saves what it learned.

mod builder;
mod maintenance;
mod persistence;
mod report;
mod reservations;
mod retry;
mod route;
mod scan;
mod sessions;
mod slot;
mod source;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use quota_core::file::FileError;
use quota_core::provider::ResponseParser;
use quota_core::{AccountId, Clock, ProviderId};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

pub use builder::{BuildError, FallbackAccountManagerBuilder};
pub use maintenance::RefreshReport;
use persistence::StateFile;
pub use report::{Classification, ReportError};
use reservations::SharedReservations;
pub use retry::Idempotency;
pub use route::{Route, RouteError};
use sessions::SessionTable;
use slot::AccountSlot;

use crate::routing::{Candidate, Decision, Verdict, choose};
use crate::{AccountsConfig, Request, RoutingPolicy};

/// A main account and those that stand in for it: gives each request an account that has room, and says why.
///
/// All numbers are those of a quota manager: it decides what is stale and when to call the provider. With a
/// [given one](FallbackAccountManagerBuilder::quota_manager) they are shared with every process on its store. Without one, the router
/// makes its own, on a store in memory, from its [fetchers](FallbackAccountManagerBuilder::fetcher). The
/// [state file](FallbackAccountManagerBuilder::state_file) is a copy to start from.
///
/// ```
/// use quota_accounts::{AccountsConfig, FallbackAccountManager, RequestOutcome, Request};
/// use quota_core::Secret;
/// use quota_credentials::StaticCredential;
/// use quota_core::{MemoryStore, QuotaManager, testing::FakeProvider};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let provider = FakeProvider::answering("example", 40.0);
/// let token = StaticCredential::new(Secret::new("a-token"));
/// let quota = QuotaManager::builder(MemoryStore::new()).provider(provider, token).build()?;
/// let config = AccountsConfig::new("example/main".parse()?).fallback("example/work".parse()?);
///
/// let accounts = FallbackAccountManager::builder(config).quota_manager(quota.clone()).build()?;
///
/// let route = accounts.route(Request::new().with_model("a-model").with_session("a-session")).await?;
/// assert_eq!(route.account().as_str(), "example/main");
///
/// // The request is sent with `route.credential()`; here is what came back.
/// let headers = [("retry-after", "30")];
/// accounts.report(&route, RequestOutcome::from_response(429, headers)).await?;
///
/// let next = accounts.route(Request::new()).await?;
/// assert_eq!(next.account().as_str(), "example/work");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Cheap to clone; all clones are one. Call [`flush`](Self::flush) before the last one goes, so that what was learned last
/// is kept.
#[derive(Clone)]
pub struct FallbackAccountManager {
    inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    slots: Vec<AccountSlot>,
    index_of: HashMap<AccountId, usize>,
    policy: RoutingPolicy,
    clock: Clock,
    parsers: HashMap<ProviderId, Arc<dyn ResponseParser>>,
    /// The providers and statuses whose parser has panicked. The router logs each pair once.
    panicked: Mutex<HashSet<(ProviderId, Option<u16>)>>,
    state_file: Option<StateFile>,
    sessions: SessionTable,
    reservations: Option<SharedReservations>,
    loaded: OnceCell<Result<(), FileError>>,
    tasks: Mutex<JoinSet<()>>,
    /// Those that [`flush`](FallbackAccountManager::flush) waits for.
    flushing: tokio::sync::Mutex<JoinSet<()>>,
    /// Whether a refresh of all accounts makes one call after another: the quota manager does not queue calls.
    calls_in_turn: bool,
    /// Whether the quota manager had no time left for a call.
    out_of_time: AtomicBool,
}

impl FallbackAccountManager {
    /// Begins a manager of these accounts, the main one first.
    pub fn builder(config: AccountsConfig) -> FallbackAccountManagerBuilder {
        FallbackAccountManagerBuilder::of(config)
    }

    /// Reads what was kept from earlier runs and gives it to the quota manager, if that has not been done yet.
    ///
    /// The first use of any other method does it as well, before it asks what is stale; if the file is damaged, they go
    /// on without it, and this says so. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file could not be read; it stays as it is.
    pub async fn load(&self) -> Result<(), FileError> {
        self.inner.load().await.clone()
    }

    /// The decision that [`route`](Self::route) would take now, with every account, its readings, and the rule that took or
    /// refused it. No I/O, and nothing changes.
    pub fn explain(&self, request: &Request) -> Decision {
        self.inner.decision(request, &[])
    }

    /// The same after all that [`route`](Self::route) does to decide: numbers are refreshed, as far as one may ask, and an
    /// account whose credential cannot be had counts as refused, by the rule that says why. Nothing is reserved, and no session
    /// remembered.
    ///
    /// Dropping the future is safe.
    pub async fn decide(&self, request: &Request) -> Decision {
        self.inner.load().await;
        let unusable = self.inner.dry_run(request).await;
        self.inner.decision(request, &unusable)
    }

    /// The accounts, the main one first.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        self.inner.slots.iter().map(|slot| &slot.id)
    }

    /// Writes what was learned and not written yet, and waits for what is under way in the background.
    ///
    /// Dropping the future gives up waiting: what is under way goes on, and the next flush waits for it.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it could not be written.
    pub async fn flush(&self) -> Result<(), FileError> {
        let mut flushing = self.inner.flushing.lock().await;
        self.inner.flush_now();
        // Those of a flush that was given up come first: two sets cannot be made one.
        while flushing.join_next().await.is_some() {}
        *flushing = std::mem::take(&mut *self.inner.tasks());
        self.inner.flush_now();
        while flushing.join_next().await.is_some() {}
        drop(flushing);
        self.inner.save().await
    }
}

impl Inner {
    async fn load(&self) -> &Result<(), FileError> {
        self.loaded.get_or_init(|| self.seed()).await
    }

    /// What the time is by the clock that the readings are by.
    fn now(&self) -> Timestamp {
        self.slots.first().map_or_else(|| self.clock.now(), AccountSlot::now)
    }

    /// The choice on what is known now, where this was found of the credentials of accounts.
    fn decision(&self, request: &Request, found: &[(usize, Verdict)]) -> Decision {
        let session_account = self.session_account(request);
        let candidates = self.slots.iter().enumerate().map(|(at, slot)| {
            let found = found.iter().find(|(other, verdict)| *other == at && verdict.is_credential_verdict());
            let candidate = self.candidate(at, slot, session_account);
            match found {
                Some((_, verdict)) => candidate.with_credential_verdict(Some(*verdict)),
                None => candidate,
            }
        });
        choose(candidates, request, self.now(), &self.policy)
    }

    /// In line, as what it is made of: of ten thousand accounts each is made anew for every request.
    #[inline]
    fn candidate<'a>(
        &'a self,
        at: usize,
        slot: &'a AccountSlot,
        session_account: Option<usize>,
    ) -> Candidate<'a> {
        slot.candidate()
            .session_account(session_account == Some(at))
            .with_credential_verdict(self.credential_cooldown(slot))
    }

    fn session_account(&self, request: &Request) -> Option<usize> {
        self.sessions.get(request.session()?, self.now())
    }

    /// Runs a task in the background. It ends with the manager.
    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock()
    }
}

impl fmt::Debug for FallbackAccountManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.accounts().collect();
        f.debug_struct("FallbackAccountManager").field("accounts", &ids).finish_non_exhaustive()
    }
}
