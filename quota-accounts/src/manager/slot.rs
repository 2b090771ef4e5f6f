//! One account of the router: its configuration, usage, blocks and reservations.
//! `outcome` decides which blocks a response causes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use quota_core::clock::is_from_future;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::provider::RejectionKind;
use quota_core::record::{Hold, HoldReason, Seed};
use quota_core::{Account, AccountId, QuotaError};

use crate::routing::{Block, Candidate, Reason, Role};
use crate::state::insert_or_extend;
use crate::{AccountConfig, AccountLimits};

/// One account.
#[derive(Debug)]
pub(super) struct AccountSlot {
    pub(super) id: AccountId,
    pub(super) role: Role,
    pub(super) disabled: bool,
    /// Boxed because few accounts have limits, and small slots make a scan of many accounts faster.
    limits: Option<Box<AccountLimits>>,
    /// The handle to the usage and the credential source in the quota manager.
    pub(super) usage: Account,
    /// Whether there is any block. Readers check this before they take the lock.
    is_blocked: AtomicBool,
    blocks: Mutex<Blocks>,
    /// Whether there has ever been a reservation. Readers check this before they look for one.
    pub(super) is_reserved: AtomicBool,
    /// When the credential was last checked for a change, in milliseconds.
    credential_checked_at: AtomicI64,
    /// When the credential source last timed out, in milliseconds; [`NEVER`] if it has succeeded since.
    credential_timeout_at: AtomicI64,
    /// Whether a background refresh is running.
    pub(super) refreshing: AtomicBool,
    /// The fingerprint for which a retry with another credential was allowed, until a request succeeds with a credential of this
    /// account.
    last_rejected: Mutex<Option<Option<CredentialFingerprint>>>,
    /// The fingerprint of the credential that was read last.
    last_read: Mutex<Option<CredentialFingerprint>>,
    /// The last login whose state was restored from the state file.
    restored: Mutex<Option<LoginId>>,
    restored_address: AtomicUsize,
    /// The readings in the state file.
    pub(super) last_saved: Mutex<Option<Box<Seed>>>,
}

#[derive(Debug, Default)]
struct Blocks {
    active: Arc<[Block]>,
    /// Blocks that were cleared here, but not yet in the state file.
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
            credential_checked_at: AtomicI64::new(NEVER),
            credential_timeout_at: AtomicI64::new(NEVER),
            refreshing: AtomicBool::new(false),
            last_rejected: Mutex::default(),
            last_read: Mutex::default(),
            restored: Mutex::default(),
            restored_address: AtomicUsize::new(0),
            last_saved: Mutex::default(),
        }
    }

    /// The candidate with the current usage. It lacks the state that accounts with its login share.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let mut candidate = Candidate::from_usage(&self.id, self.role, self.usage.peek());
        self.complete(&mut candidate);
        candidate
    }

    /// Adds the account's own settings and blocks to its candidate.
    #[inline]
    pub(super) fn complete<'a>(&'a self, candidate: &mut Candidate<'a>) {
        candidate.is_disabled = self.disabled;
        candidate.limits = self.limits.as_deref();
        if self.is_blocked.load(Ordering::Acquire) {
            self.rebase_future_blocks(self.now());
            candidate.extra_mut().blocks = self.own_blocks();
        }
    }

    /// The current time according to the clock of the readings.
    pub(super) fn now(&self) -> Timestamp {
        self.usage.peek().now()
    }

    /// Whether a hold forbids a refresh now.
    pub(super) fn is_held(&self) -> bool {
        self.usage.peek().hold().is_some()
    }

    /// Whether no refresh can succeed now: because of a hold, the budget, or the credential.
    pub(super) fn is_refused(&self) -> bool {
        let usage = self.usage.peek();
        usage.hold().is_some() || usage.next_attempt_at().is_some()
    }

    /// The login that the usage belongs to, if stated.
    pub(super) fn login_id(&self) -> Option<LoginId> {
        self.usage.peek().login_id().cloned()
    }

    /// Refreshes the usage if it is stale for a request of `model`, and waits for at most `timeout`.
    pub(super) async fn refresh_if_stale(
        &self,
        model: Option<&str>,
        timeout: Duration,
    ) -> Result<(), QuotaError> {
        let usage = self.usage.get_for_within(model, timeout).await?;
        match usage.error() {
            Some(error) if usage.is_stale_for(model) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Refreshes the usage even if it is fresh, unless a hold or the budget forbids it.
    pub(super) async fn refresh(&self) -> Result<(), QuotaError> {
        self.usage.refresh().await?.error.map_or(Ok(()), Err)
    }

    /// The usage to save in the state file.
    pub(super) fn exported(&self) -> Seed {
        let usage = self.usage.peek();
        // A cooldown of the whole provider is not a hold of this account.
        let own = |hold: &Hold| hold.reason != HoldReason::ProviderRateLimited;
        Seed::new(usage.snapshot().clone()).hold(usage.hold().filter(own)).login_id(usage.login_id().cloned())
    }

    /// The blocks, without those of a login other than that of the readings.
    pub(super) fn own_blocks(&self) -> Arc<[Block]> {
        let active = Arc::clone(&self.blocks().active);
        let login_id = self.login_id();
        if !active.iter().any(|block| block.is_of_another(login_id.as_ref())) {
            return active;
        }
        active.iter().filter(|block| !block.is_of_another(login_id.as_ref())).cloned().collect()
    }

    /// Whether the account has no readings.
    pub(super) fn has_no_readings(&self) -> bool {
        self.candidate().snapshot().is_empty()
    }

    pub(super) fn block(&self, block: Block, now: Timestamp) {
        self.change(&mut self.blocks(), |blocks| {
            blocks.retain(|block| block.is_live(now));
            insert_or_extend(blocks, block);
        });
    }

    /// Adds blocks from the state file.
    pub(super) fn load_blocks(&self, stored: &[Block], now: Timestamp) {
        let mut blocks = self.blocks();
        // One lock covers the load. Otherwise a block that `report` adds during the load would not be saved.
        let was_dirty = blocks.is_dirty;
        self.change(&mut blocks, |blocks| {
            for block in stored.iter().filter(|block| block.is_live(now)) {
                insert_or_extend(blocks, block.clone());
            }
        });
        blocks.is_dirty = was_dirty;
        drop(blocks);
        self.rebase_future_blocks(now);
    }

    /// Sets the start of blocks that lie in the future to `now`, also in the state file.
    fn rebase_future_blocks(&self, now: Timestamp) {
        if !self.blocks().active.iter().any(|block| is_from_future(block.since, now)) {
            return;
        }
        let mut replaced = Vec::new();
        let mut blocks = self.blocks();
        self.change(&mut blocks, |blocks| {
            for block in blocks {
                if let Some(rebased) = block.rebased_to(now) {
                    replaced.push(std::mem::replace(block, rebased));
                }
            }
        });
        blocks.removed.extend(replaced);
    }

    /// Whether the last credential that was read differs from this one; false if unknown.
    pub(super) fn has_other_credential(&self, fingerprint: Option<CredentialFingerprint>) -> bool {
        let last_read = *self.last_read.lock();
        matches!((last_read, fingerprint), (Some(own), Some(other)) if own != other)
    }

    /// Records the credential that was read. Returns whether it differs from the previous one.
    pub(super) fn record_read(&self, login: &LoginInfo) -> bool {
        std::mem::replace(&mut *self.last_read.lock(), login.fingerprint) != login.fingerprint
    }

    /// Clears the blocks of other credentials of this login. Returns whether there were any. Blocks of other logins stay, because the
    /// account may hold them again.
    pub(super) fn clear_for_login(&self, login: &LoginInfo) -> bool {
        self.clear_blocks(|block| {
            block.fingerprint.is_some()
                && login.fingerprint.is_some()
                && block.fingerprint != login.fingerprint
                && !block.is_of_another(login.login_id.as_ref())
        })
    }

    /// Whether this login's state was restored from the state file. Compares the addresses, because each request checks this.
    #[inline]
    pub(super) fn has_restored(&self, login: &LoginId) -> bool {
        self.restored_address.load(Ordering::Relaxed) == login.as_str().as_ptr().addr()
    }

    /// The login that the account holds, if it differs from the last one that was restored.
    pub(super) fn new_login(&self) -> Option<LoginId> {
        let login = self.login_id()?;
        let is_new = self.restored.lock().as_ref() != Some(&login);
        if !is_new {
            self.set_restored(login);
            return None;
        }
        Some(login)
    }

    /// Records that the state of this login was restored.
    pub(super) fn set_restored(&self, login: LoginId) {
        let mut restored = self.restored.lock();
        // `restored` keeps the login alive, so that no other login gets its address.
        self.restored_address.store(login.as_str().as_ptr().addr(), Ordering::Relaxed);
        *restored = Some(login);
    }

    /// Whether the account has a live block of this login.
    pub(super) fn has_block_of(&self, login: &LoginId, now: Timestamp) -> bool {
        self.active_blocks().iter().any(|block| block.login_id.as_ref() == Some(login) && block.is_live(now))
    }

    /// The blocks that count for every account with this login.
    pub(super) fn blocks_of_login(&self, login: &LoginId) -> impl Iterator<Item = Block> + use<> {
        let is_blocked = self.is_blocked.load(Ordering::Acquire);
        let active = if is_blocked { self.active_blocks() } else { Arc::default() };
        let login = login.clone();
        (0..active.len()).filter_map(move |at| {
            let block = &active[at];
            (block.fingerprint.is_none() && block.login_id.as_ref() == Some(&login)).then(|| block.clone())
        })
    }

    /// The block of this credential that applies now.
    pub(super) fn block_of_credential(
        &self,
        login: &LoginInfo,
        model: Option<&str>,
        now: Timestamp,
    ) -> Option<Block> {
        if !self.is_blocked.load(Ordering::Acquire) {
            return None;
        }
        let applies = |block: &&Block| {
            block.fingerprint.is_some()
                && block.fingerprint == login.fingerprint
                && !block.is_of_another(login.login_id.as_ref())
                && block.is_live(now)
                && block.counts_for(model)
        };
        self.active_blocks().iter().find(applies).cloned()
    }

    /// Whether a request may retry with a credential other than the rejected one. This is allowed for one rejected
    /// credential only, because a source may return a different credential each time.
    pub(super) fn may_try_another(&self, rejected: Option<CredentialFingerprint>) -> bool {
        // All requests that used the same rejected credential may retry.
        *self.last_rejected.lock().get_or_insert(rejected) == rejected
    }

    /// Allows the next retry, because the provider has accepted a credential of this account.
    pub(super) fn credential_accepted(&self) {
        *self.last_rejected.lock() = None;
    }

    /// Clears the login's rejections that are no later than `served_at` and that `is_cleared` selects. Returns whether there
    /// were any.
    pub(super) fn clear_rejections(
        &self,
        login: Option<&LoginId>,
        served_at: Timestamp,
        is_cleared: impl Fn(&Block) -> bool,
    ) -> bool {
        self.clear_blocks(|block| {
            block.since <= served_at
                && !block.is_of_another(login)
                && is_cleared(block)
                && matches!(block.kind, RejectionKind::Unauthorized | RejectionKind::Forbidden)
        })
    }

    fn clear_blocks(&self, is_removed: impl Fn(&Block) -> bool) -> bool {
        if !self.is_blocked.load(Ordering::Acquire) {
            return false;
        }
        let mut blocks = self.blocks();
        let removed: Vec<Block> = blocks.active.iter().filter(|block| is_removed(block)).cloned().collect();
        if removed.is_empty() {
            return false;
        }
        self.change(&mut blocks, |blocks| blocks.retain(|block| !is_removed(block)));
        blocks.removed.extend(removed);
        true
    }

    /// Whether to read the credential of an ineligible account with this login again: another credential could make it eligible, and
    /// the last check is at least [`RECHECK_INTERVAL_MS`] old.
    pub(super) fn should_recheck_credential(&self, login: Option<&LoginId>, now: Timestamp) -> bool {
        let belongs_to_login = |block: &Block| block.fingerprint.is_some() || block.login_id.is_some();
        let has_login_block =
            || self.is_blocked.load(Ordering::Acquire) && self.blocks().active.iter().any(belongs_to_login);
        if login.is_none() && !has_login_block() {
            return false;
        }
        let now = now.as_millisecond();
        let last = self.credential_checked_at.load(Ordering::Relaxed);
        // The absolute difference, because the clock may have been set back since.
        if now.abs_diff(last) < RECHECK_INTERVAL_MS {
            return false;
        }
        self.credential_checked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether to read the credential of an account that is ineligible for this reason.
    pub(super) fn should_recheck_credential_after(
        &self,
        reason: Reason,
        login: Option<&LoginId>,
        now: Timestamp,
    ) -> bool {
        use Reason::{CredentialUnavailable, Disabled, Reserved, SameLogin};
        !matches!(reason, Disabled | Reserved | SameLogin | CredentialUnavailable)
            && self.should_recheck_credential(login, now)
            && self.usage.has_credentials()
    }

    /// When the credential source last timed out, if it has not succeeded since.
    pub(super) fn credential_timeout_at(&self) -> Option<Timestamp> {
        let at = self.credential_timeout_at.load(Ordering::Relaxed);
        if at == NEVER { None } else { Timestamp::from_millisecond(at).ok() }
    }

    pub(super) fn credential_timed_out(&self, now: Timestamp) {
        self.credential_timeout_at.store(now.as_millisecond(), Ordering::Relaxed);
    }

    pub(super) fn clear_credential_timeout(&self) {
        self.credential_timeout_at.store(NEVER, Ordering::Relaxed);
    }

    /// The active and removed blocks; `None` if the state file is up to date.
    pub(super) fn dirty_blocks(&self) -> Option<(Arc<[Block]>, Vec<Block>)> {
        let blocks = self.blocks();
        (blocks.is_dirty || !blocks.removed.is_empty())
            .then(|| (Arc::clone(&blocks.active), blocks.removed.clone()))
    }

    /// The active blocks.
    pub(super) fn active_blocks(&self) -> Arc<[Block]> {
        Arc::clone(&self.blocks().active)
    }

    /// Records a save. `active` are the blocks in the file, `removed` those that are no longer in it.
    pub(super) fn blocks_written(&self, active: &Arc<[Block]>, removed: &[Block]) {
        let mut blocks = self.blocks();
        if Arc::ptr_eq(&blocks.active, active) {
            blocks.is_dirty = false;
        }
        blocks.removed.retain(|block| !removed.contains(block));
    }

    fn change(&self, blocks: &mut Blocks, change: impl FnOnce(&mut Vec<Block>)) {
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
