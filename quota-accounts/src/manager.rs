//! The router: it chooses an account for each request, classifies outcomes, and saves its state.

mod builder;
mod fallbacks;
mod login_index;
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

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use quota_core::file::FileError;
use quota_core::model::LoginId;
use quota_core::provider::ResponseParser;
use quota_core::{AccountId, AccountUsage, Clock, ProviderId};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

pub use builder::{BuildError, FallbackAccountManagerBuilder};
use login_index::BlockedLogins;
pub use maintenance::RefreshReport;
use persistence::StateFile;
pub use report::{Classification, ReportError};
use reservations::{ReservationTable, SharedReservations};
pub use retry::Idempotency;
pub use route::{Route, RouteError};
use sessions::SessionTable;
use slot::AccountSlot;

use crate::routing::{Block, Candidate, Decision, Verdict, choose};
use crate::state::AccountState;
use crate::{AccountsConfig, Request, RoutingPolicy};

/// Assigns each request to an available account, the main one or a fallback, and explains the choice.
///
/// All readings come from a quota manager, which decides which readings are stale and when to call the provider. If the
/// caller [supplies one](FallbackAccountManagerBuilder::quota_manager), all processes on its store share the readings.
/// Otherwise the router builds its own manager on a memory store, with the builder's
/// [fetchers](FallbackAccountManagerBuilder::fetcher). The [state file](FallbackAccountManagerBuilder::state_file)
/// preserves the readings across restarts.
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
/// // Send the request with `route.credential()`, then report the status and headers of the response.
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
/// Clones are cheap and share their state. Call [`flush`](Self::flush) before the last clone is dropped, or recent changes may be
/// lost.
#[derive(Clone)]
pub struct FallbackAccountManager {
    inner: Arc<Inner>,
}

/// The state that all clones share.
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
    reserved: ReservationTable,
    /// The accounts that have or had blocks of a login.
    blocked: BlockedLogins,
    /// The state of each login in the state file when it was loaded, by the key of its record, without the blocks that
    /// accounts have. Unset if there is no state file. Saves share this value.
    stored_logins: OnceLock<Mutex<Arc<BTreeMap<String, AccountState>>>>,
    loaded: OnceCell<Result<(), FileError>>,
    tasks: Mutex<JoinSet<()>>,
    /// The tasks that [`flush`](FallbackAccountManager::flush) waits for.
    flushing: tokio::sync::Mutex<JoinSet<()>>,
    /// Whether a refresh of all accounts must make one call at a time, because the router's own quota manager does not
    /// limit calls.
    calls_in_turn: bool,
    /// Whether the quota manager reported that no time is left for a call.
    out_of_time: AtomicBool,
}

impl FallbackAccountManager {
    /// Creates a builder for these accounts, the main one first.
    pub fn builder(config: AccountsConfig) -> FallbackAccountManagerBuilder {
        FallbackAccountManagerBuilder::of(config)
    }

    /// Seeds the quota manager from the state file, once.
    ///
    /// Every other async method does this first, before it checks for stale readings. If the file cannot be read, the
    /// other methods continue without it, and only this method returns the error. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file could not be read; the file is unchanged.
    pub async fn load(&self) -> Result<(), FileError> {
        self.inner.load().await.clone()
    }

    /// The decision that [`route`](Self::route) would make on the cached readings: every account, its readings, and the reason
    /// that selected or excluded it. It does no I/O and changes nothing.
    pub fn explain(&self, request: &Request) -> Decision {
        self.inner.decision(request, &[])
    }

    /// The decision after the same refreshes and credential reads that [`route`](Self::route) makes. An account without a usable
    /// credential is ineligible, with the reason. It makes no reservation and remembers no session.
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

    /// Waits for background tasks, and writes pending changes to the state file.
    ///
    /// If the future is dropped, the tasks continue, and the next flush waits for them.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file could not be written.
    pub async fn flush(&self) -> Result<(), FileError> {
        let mut flushing = self.inner.flushing.lock().await;
        self.inner.flush_now();
        // First wait for the tasks of a cancelled flush, because two `JoinSet`s cannot be merged.
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

    /// The current time according to the clock of the readings.
    fn now(&self) -> Timestamp {
        self.slots.first().map_or_else(|| self.clock.now(), AccountSlot::now)
    }

    /// The decision on cached readings. `found` are verdicts that only a request can determine. All of them apply.
    fn decision(&self, request: &Request, found: &[(usize, Verdict)]) -> Decision {
        let session_account = self.session_account(request);
        let candidates = self.slots.iter().enumerate().map(|(at, slot)| {
            let found = found.iter().find(|(other, _)| *other == at);
            let mut candidate = self.candidate(at, slot, session_account);
            if let Some((_, verdict)) = found {
                // The index of the window may be invalid by now.
                candidate.extra_mut().credential_verdict = Some(verdict.without_window());
            }
            candidate
        });
        choose(candidates, request, self.now(), &self.policy)
    }

    fn candidate<'a>(
        &'a self,
        at: usize,
        slot: &'a AccountSlot,
        session_account: Option<usize>,
    ) -> Candidate<'a> {
        let usage = self.with_restored_login(at, slot.usage.peek());
        let mut candidate = Candidate::from_usage(&slot.id, slot.role, usage);
        self.complete(&mut candidate, at, session_account);
        candidate
    }

    /// The usage of an account, including the stored state of its login.
    #[inline]
    fn with_restored_login(&self, at: usize, usage: AccountUsage) -> AccountUsage {
        let slot = &self.slots[at];
        match usage.login_id() {
            Some(login) if self.stored_logins.get().is_some() && !slot.has_restored(login) => {
                self.restore_login(at);
                slot.usage.peek()
            }
            _ => usage,
        }
    }

    /// Adds the parts of a candidate that its usage lacks.
    ///
    /// It changes the candidate in place, because a request considers up to ten thousand candidates, and moving one
    /// costs more than evaluating it.
    #[inline]
    fn complete<'a>(&'a self, candidate: &mut Candidate<'a>, at: usize, session_account: Option<usize>) {
        let slot = &self.slots[at];
        slot.complete(candidate);
        let is_login_shared = candidate.is_login_shared();
        candidate.is_session_account =
            session_account.is_some_and(|own| own == at || is_login_shared && self.have_one_login(own, at));
        if let Some(verdict) = self.credential_cooldown(slot) {
            candidate.extra_mut().credential_verdict = Some(verdict);
        }
        // The login's rejected credential may belong to another name.
        if candidate.login_rejected
            && is_login_shared
            && let Some(failure) = candidate.usage().and_then(AccountUsage::last_failure)
            && slot.has_other_credential(failure.fingerprint)
        {
            candidate.login_rejected = false;
        }
        // Look these up by login, because the account with the block or reservation may have left the login since.
        let login = candidate.login_id();
        let others = login.map(|login| self.other_blocked(at, login)).unwrap_or_default();
        let may_be_reserved = slot.is_reserved.load(Ordering::Acquire)
            || login.is_some_and(|login| self.reserved.may_have_of(login));
        if may_be_reserved && let Some(usage) = candidate.usage() {
            let reserved = self.reserved.live(&slot.id, usage);
            if !reserved.is_empty() {
                candidate.extra_mut().reserved = reserved.into();
            }
        }
        if !others.is_empty() {
            self.add_blocks_of_login(candidate, at, &others);
        }
    }

    /// Adds the blocks of the login that the `others` have received, except those of one credential.
    #[cold]
    fn add_blocks_of_login(&self, candidate: &mut Candidate<'_>, at: usize, others: &[usize]) {
        let slot = &self.slots[at];
        let Some(login) = slot.login_id() else { return };
        let blocks: Vec<Block> =
            others.iter().flat_map(|other| self.slots[*other].blocks_of_login(&login)).collect();
        if !blocks.is_empty() {
            candidate.extra_mut().blocks = slot.own_blocks().iter().cloned().chain(blocks).collect();
        }
    }

    /// The provider's other accounts that have received blocks of this login, regardless of their current login.
    #[inline]
    fn other_blocked(&self, at: usize, login: &LoginId) -> Vec<usize> {
        let mut others = self.blocked.others(login, at);
        others.retain(|other| self.slots[*other].id.provider() == self.slots[at].id.provider());
        others
    }

    /// Records the logins of the blocks that an account has.
    fn mark_blocked(&self, at: usize) {
        let now = self.now();
        for login in self.slots[at].active_blocks().iter().filter_map(|block| block.login_id.as_ref()) {
            self.blocked.insert(login, at, |other, login| self.slots[other].has_block_of(login, now));
        }
    }

    fn session_account(&self, request: &Request) -> Option<usize> {
        self.sessions.get(request.session()?, self.now())
    }

    /// Whether two accounts hold the same login. A session stays with its login, even under another account name.
    pub(crate) fn have_one_login(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.slots[one], &self.slots[other]);
        let login = one.login_id();
        one.id.provider() == other.id.provider() && login.is_some() && login == other.login_id()
    }

    /// Runs a task in the background. Dropping the manager aborts it.
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
