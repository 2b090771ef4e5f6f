//! One account of a manager: how the user has set it up, its usage, and what providers answered to its requests.
//! What follows from an answer is decided in `outcome`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use quota_core::clock::is_from_future;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::provider::RejectionKind;
use quota_core::record::{Hold, HoldReason, Seed};
use quota_core::{Account, AccountId, QuotaError};

use crate::reservation::LocalReservations;
use crate::routing::Role;
use crate::routing::{Block, Candidate};
use crate::state::insert_or_extend;
use crate::{AccountConfig, AccountLimits};

/// One account.
#[derive(Debug)]
pub(super) struct AccountSlot {
    pub(super) id: AccountId,
    pub(super) role: Role,
    pub(super) disabled: bool,
    /// Boxed, because few accounts have limits: a choice among many accounts is as fast as memory.
    limits: Option<Box<AccountLimits>>,
    /// Its usage and its credential source, in the quota manager.
    pub(super) usage: Account,
    /// Whether there is any block: readers look no further if not.
    is_blocked: AtomicBool,
    blocks: Mutex<Blocks>,
    /// Whether anything is reserved: readers look no further if not.
    is_reserved: AtomicBool,
    /// Made for the first request that reserves anything.
    reservations: OnceLock<Box<ReservationState>>,
    /// When its credential was last checked for a change, in milliseconds.
    credential_checked_at: AtomicI64,
    /// When its credential source timed out last, in milliseconds; [`NEVER`] if it has answered since.
    credential_timeout_at: AtomicI64,
    /// Whether a background refresh is running.
    pub(super) refreshing: AtomicBool,
    /// The credential that was rejected last and replaced, until a request succeeds.
    last_rejected: Mutex<Option<Option<CredentialFingerprint>>>,
    /// What the state file has of it.
    pub(super) last_saved: Mutex<Option<Box<Seed>>>,
}

/// The expected use of requests in flight.
#[derive(Debug, Default)]
struct ReservationState {
    held: Mutex<LocalReservations>,
    /// One request syncs with the store for all. The value is the number of the last sync that succeeded.
    sync_lock: tokio::sync::Mutex<u64>,
    /// How many syncs have started.
    sync_seq: AtomicU64,
}

#[derive(Debug, Default)]
struct Blocks {
    active: Arc<[Block]>,
    /// Blocks that were cleared, until the state file has lost them too.
    removed: Vec<Block>,
    is_dirty: bool,
}

/// How often a rejected credential is checked for a change.
const RECHECK_INTERVAL_MS: u64 = 5_000;
/// No timestamp.
const NEVER: i64 = i64::MIN;

impl AccountSlot {
    pub(super) fn new(role: Role, account: &AccountConfig, usage: Account) -> Self {
        Self {
            id: account.id.clone(),
            role,
            disabled: account.disabled,
            limits: (account.limits != AccountLimits::none()).then(|| Box::new(account.limits.clone())),
            usage,
            is_blocked: AtomicBool::new(false),
            blocks: Mutex::default(),
            is_reserved: AtomicBool::new(false),
            reservations: OnceLock::new(),
            credential_checked_at: AtomicI64::new(NEVER),
            credential_timeout_at: AtomicI64::new(NEVER),
            refreshing: AtomicBool::new(false),
            last_rejected: Mutex::default(),
            last_saved: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let mut candidate =
            Candidate::from_usage(&self.id, self.role, self.usage.peek()).disabled(self.disabled);
        if let Some(limits) = &self.limits {
            candidate = candidate.limits(limits);
        }
        if !self.is_blocked.load(Ordering::Acquire) && !self.is_reserved.load(Ordering::Acquire) {
            return candidate;
        }
        let now = self.now();
        self.rebase_future_blocks(now);
        let candidate = candidate.blocks(self.own_blocks());
        if !self.is_reserved.load(Ordering::Acquire) {
            return candidate;
        }
        let reserved: Vec<_> = self.reservations().held.lock().live(now).collect();
        candidate.reserved(reserved)
    }

    /// What the time is by the clock that the usage is by.
    pub(super) fn now(&self) -> Timestamp {
        self.usage.peek().now()
    }

    /// Whether no call may be made now.
    pub(super) fn is_held(&self) -> bool {
        self.usage.peek().hold().is_some()
    }

    /// The login that the usage is of, where that was stated.
    pub(super) fn login_id(&self) -> Option<LoginId> {
        self.usage.peek().login_id().cloned()
    }

    /// Makes the usage fresh for a request of `model`, if it is not.
    pub(super) async fn refresh_if_stale(&self, model: Option<&str>) -> Result<(), QuotaError> {
        let answer = self.usage.get_for(model).await?;
        match answer.error() {
            Some(error) if answer.is_stale_for(model) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Calls the provider now, if the rules allow, whether or not the usage is fresh.
    pub(super) async fn refresh(&self) -> Result<(), QuotaError> {
        self.usage.refresh().await?.error.map_or(Ok(()), Err)
    }

    /// What to keep of its usage for the next run.
    pub(super) fn exported(&self) -> Seed {
        let answer = self.usage.peek();
        // A neighbour's quiet time is not this account's to keep.
        let own = |hold: &Hold| hold.reason != HoldReason::ProviderRateLimited;
        Seed::new(answer.snapshot().clone())
            .hold(answer.hold().filter(own))
            .login_id(answer.login_id().cloned())
    }

    /// The blocks, without those of another login than the numbers are of.
    fn own_blocks(&self) -> Arc<[Block]> {
        let live = Arc::clone(&self.blocks().active);
        let login_id = self.login_id();
        if !live.iter().any(|block| block.is_of_another(login_id.as_ref())) {
            return live;
        }
        live.iter().filter(|block| !block.is_of_another(login_id.as_ref())).cloned().collect()
    }

    /// Whether nothing was ever read of it.
    pub(super) fn has_no_readings(&self) -> bool {
        self.candidate().snapshot().is_empty()
    }

    pub(super) fn change_reservations<R>(&self, change: impl FnOnce(&mut LocalReservations) -> R) -> R {
        let mut held = self.reservations().held.lock();
        let result = change(&mut held);
        self.is_reserved.store(!held.is_empty(), Ordering::Release);
        result
    }

    /// Looks at what is reserved; `None` if nothing ever was.
    pub(super) fn with_reservations<R>(&self, look: impl FnOnce(&LocalReservations) -> R) -> Option<R> {
        self.reservations.get().map(|reservations| look(&reservations.held.lock()))
    }

    /// The right to bring reservations to the store.
    pub(super) async fn sync_lock(&self) -> tokio::sync::MutexGuard<'_, u64> {
        self.reservations().sync_lock.lock().await
    }

    /// How many conversations about reservations have begun by now.
    pub(super) fn sync_seq(&self) -> u64 {
        self.reservations().sync_seq.load(Ordering::Acquire)
    }

    /// Begins the next one, with the turn; its number.
    pub(super) fn start_sync(&self) -> u64 {
        self.reservations().sync_seq.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn reservations(&self) -> &ReservationState {
        self.reservations.get_or_init(Box::default)
    }

    pub(super) fn block(&self, block: Block, now: Timestamp) {
        self.change_blocks(|blocks| {
            blocks.retain(|known| known.is_live(now));
            insert_or_extend(blocks, block);
        });
    }

    /// Takes over what was kept of an earlier run, or what another process has written, as far as it is this login's.
    pub(super) fn load_blocks(&self, kept: &[Block], now: Timestamp) {
        let login_id = self.login_id();
        let counts = |block: &&Block| block.is_live(now) && !block.is_of_another(login_id.as_ref());
        self.change_blocks(|blocks| {
            for block in kept.iter().filter(counts) {
                insert_or_extend(blocks, block.clone());
            }
        });
        self.blocks().is_dirty = false;
        self.rebase_future_blocks(now);
    }

    /// Has blocks that a clock ahead of `now` has made begin now: once, and on disk too.
    fn rebase_future_blocks(&self, now: Timestamp) {
        if !self.blocks().active.iter().any(|block| is_from_future(block.since, now)) {
            return;
        }
        let mut gone = Vec::new();
        self.change_blocks(|blocks| {
            for block in blocks {
                if let Some(back) = block.rebased_to(now) {
                    gone.push(std::mem::replace(block, back));
                }
            }
        });
        self.blocks().removed.extend(gone);
    }

    /// Lifts what was answered to another credential or login than this one.
    pub(super) fn clear_for_login(&self, login: &LoginInfo) -> bool {
        let is_other = |block: &Block| {
            block.fingerprint.is_some()
                && login.fingerprint.is_some()
                && block.fingerprint != login.fingerprint
        };
        self.clear_blocks(|block| is_other(block) || block.is_of_another(login.login_id.as_ref()))
    }

    /// Lifts what was answered to another login than the numbers are of.
    pub(super) fn clear_foreign(&self) {
        if self.is_blocked.load(Ordering::Acquire) {
            let login_id = self.login_id();
            self.clear_blocks(|block| block.is_of_another(login_id.as_ref()));
        }
    }

    /// Whether to try another credential than the one that was refused: once, for a source may give another each time.
    pub(super) fn may_try_another(&self, refused: Option<CredentialFingerprint>) -> bool {
        let mut last_rejected = self.last_rejected.lock();
        // Of many requests with the one that was refused, all may go on with the next.
        *last_rejected.get_or_insert(refused) == refused
    }

    /// Lifts what a request that was served then has refuted: the login works.
    pub(super) fn clear_rejections(&self, served_at: Timestamp) -> bool {
        *self.last_rejected.lock() = None;
        self.clear_blocks(|block| {
            block.since <= served_at
                && matches!(block.kind, RejectionKind::Unauthorized | RejectionKind::Forbidden)
        })
    }

    fn clear_blocks(&self, is_removed: impl Fn(&Block) -> bool) -> bool {
        if !self.is_blocked.load(Ordering::Acquire) {
            return false;
        }
        let removed: Vec<Block> =
            self.blocks().active.iter().filter(|block| is_removed(block)).cloned().collect();
        if removed.is_empty() {
            return false;
        }
        self.change_blocks(|blocks| blocks.retain(|block| !is_removed(block)));
        self.blocks().removed.extend(removed);
        true
    }

    /// Whether the credential of an account that is of no use is worth a look: another one could end that, and it was not
    /// looked at a moment ago.
    pub(super) fn should_recheck_credential(&self, now: Timestamp) -> bool {
        let ends_with_its_login = |block: &Block| block.fingerprint.is_some() || block.login_id.is_some();
        let is_marked = || {
            self.is_blocked.load(Ordering::Acquire) && self.blocks().active.iter().any(ends_with_its_login)
        };
        if self.usage.peek().login_id().is_none() && !is_marked() {
            return false;
        }
        let now = now.as_millisecond();
        let last = self.credential_checked_at.load(Ordering::Relaxed);
        // By the distance: the clock may have been set back since.
        if now.abs_diff(last) < RECHECK_INTERVAL_MS {
            return false;
        }
        self.credential_checked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// When the source of credentials hung about it, if it has not answered since.
    pub(super) fn credential_timeout_at(&self) -> Option<Timestamp> {
        let since = self.credential_timeout_at.load(Ordering::Relaxed);
        if since == NEVER { None } else { Timestamp::from_millisecond(since).ok() }
    }

    pub(super) fn credential_timed_out(&self, now: Timestamp) {
        self.credential_timeout_at.store(now.as_millisecond(), Ordering::Relaxed);
    }

    pub(super) fn clear_credential_timeout(&self) {
        self.credential_timeout_at.store(NEVER, Ordering::Relaxed);
    }

    /// The blocks to write, and those to remove; `None` if nothing has changed since.
    pub(super) fn dirty_blocks(&self) -> Option<(Arc<[Block]>, Vec<Block>)> {
        let blocks = self.blocks();
        (blocks.is_dirty || !blocks.removed.is_empty())
            .then(|| (Arc::clone(&blocks.active), blocks.removed.clone()))
    }

    /// Says that these have been written, where the live ones were taken, and removed.
    pub(super) fn blocks_written(&self, live: Option<&Arc<[Block]>>, removed: &[Block]) {
        let mut blocks = self.blocks();
        if live.is_some_and(|live| Arc::ptr_eq(&blocks.active, live)) {
            blocks.is_dirty = false;
        }
        blocks.removed.retain(|block| !removed.contains(block));
    }

    fn change_blocks(&self, change: impl FnOnce(&mut Vec<Block>)) {
        let mut blocks = self.blocks();
        let mut changed = blocks.active.to_vec();
        change(&mut changed);
        self.is_blocked.store(!changed.is_empty(), Ordering::Release);
        blocks.active = changed.into();
        blocks.is_dirty = true;
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock()
    }
}

#[cfg(test)]
mod tests;
