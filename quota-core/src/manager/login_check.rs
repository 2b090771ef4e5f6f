//! Checks which login an account holds, and makes the account show the record of that login.
//! `records` selects the record; a refresh applies the login of the credential that it reads in the same way.

use std::sync::Arc;
use std::time::Duration;

use super::account_state::Selection;
use super::context::TaskContext;
use super::credential_cache::Caller;
use super::credential_reuse::Demand;
use super::entry::AccountEntry;
use super::follower;
use super::tasks::OnPanic;
use super::view_table::CHECK_INTERVAL;
use crate::model::LoginId;
use crate::provider::CredentialError;
use crate::store::update::update_through;
use crate::store::{DocumentBody, LoginAlias, Start, StoreError};

/// A check of the login that has begun.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginCheck(u16);

impl LoginCheck {
    /// Begins a check. Call this before the credential is read.
    pub(crate) fn begin(entry: &AccountEntry) -> Self {
        entry.view_handle.login_check_begins(entry.provider.clock.recent_ms());
        Self(entry.state().begin_check())
    }

    /// Makes the account show the record of the login that its credential states. Returns whether it showed another record.
    ///
    /// Has no effect if a later check was applied, or if the program has set the login.
    pub(crate) fn apply(
        self,
        entry: &Arc<AccountEntry>,
        login: Option<&LoginId>,
        context: &TaskContext,
    ) -> bool {
        self.select(entry, login, Selection::Source, context)
    }

    fn select(
        self,
        entry: &Arc<AccountEntry>,
        login: Option<&LoginId>,
        selection: Selection,
        context: &TaskContext,
    ) -> bool {
        let is_switched = context.records.select(entry, login, selection, Some(self.0));
        let can_change = match entry.selection() {
            Selection::Source => entry.provider.credentials.has(&entry.id),
            Selection::Alias | Selection::Unchecked => true,
            Selection::Program => false,
        };
        // A short-lived program checks only once.
        entry.view_handle.set_checks_login(can_change && context.deadline.is_none());
        is_switched
    }
}

/// Checks which login the account holds. Returns whether it showed the record of another one.
///
/// # Errors
///
/// The error of the credential source. The account then keeps its record.
pub(crate) async fn check(
    entry: &Arc<AccountEntry>,
    demand: Demand,
    context: &TaskContext,
) -> Result<bool, CredentialError> {
    if entry.selection() == Selection::Program {
        return Ok(false);
    }
    let check = LoginCheck::begin(entry);
    let AccountEntry { id: account, provider, .. } = &**entry;
    let (timeout, clock, tasks) = (time_limit(entry, context), &provider.clock, &context.tasks);
    let read = provider.credentials.credential(&Caller { account, demand, timeout, clock, tasks }).await;
    let login = match read {
        Some(Ok(credential)) => credential.login.login_id,
        // This process could not make calls with another login either.
        None if provider.fetcher.is_some() => None,
        None => return check_alias(check, entry, context).await,
        Some(Err(failure)) => match CredentialError::from(failure) {
            // An account that was logged in here keeps its record. On another host it may still be logged in.
            error @ CredentialError::NotLoggedIn { .. } if entry.selection() == Selection::Source => {
                return Err(error);
            }
            CredentialError::NotLoggedIn { .. } => return check_alias(check, entry, context).await,
            error => return Err(error),
        },
    };
    Ok(check.apply(entry, login.as_ref(), context))
}

/// Makes the account show the record of the login that its alias states. If the alias cannot be read, the account keeps its record.
async fn check_alias(
    check: LoginCheck,
    entry: &Arc<AccountEntry>,
    context: &TaskContext,
) -> Result<bool, CredentialError> {
    let read = entry.provider.store_client.read(&LoginAlias::key(&entry.id)).await;
    let alias = match read.map(|read| read.document.map(|document| LoginAlias::decode(&document.body))) {
        Ok(Some(Ok(alias))) => alias,
        Ok(None) => LoginAlias::default(),
        Ok(Some(Err(error))) | Err(error) => {
            tracing::debug!(account = %entry.id, %error, "could not read which login the account holds");
            return Ok(false);
        }
    };
    Ok(check.select(entry, alias.login_id(), Selection::Alias, context))
}

/// Checks the login before a read or a change of the record, if it was never checked, or only by the alias. It ignores
/// errors, because the next refresh reports them.
pub(crate) async fn ensure_checked(entry: &Arc<AccountEntry>, context: &TaskContext) {
    if matches!(entry.selection(), Selection::Unchecked | Selection::Alias) {
        let _ = check(entry, Demand::Current, context).await;
    }
}

/// The time between two checks. The alias is in the store, so it is read as seldom as a record without a notice.
pub(crate) fn interval(entry: &AccountEntry) -> Duration {
    match entry.selection() {
        Selection::Alias => entry.provider.policy.poll_interval.max(CHECK_INTERVAL),
        _ => CHECK_INTERVAL,
    }
}

/// Checks the login in a task, unless the last check is too recent. If the account then shows another record, that
/// record is read and followed like the previous one.
pub(crate) fn check_in_background(entry: &Arc<AccountEntry>, context: &TaskContext) {
    if !entry.view_handle.claim_login_check(entry.provider.clock.recent_ms(), interval(entry)) {
        return;
    }
    // If the runtime shuts down, the next read starts another check.
    let check_ended = OnPanic(Arc::downgrade(entry), |entry| {
        entry.view_handle.require_login_check(entry.provider.clock.recent_ms());
    });
    let (entry, task_context) = (Arc::clone(entry), context.clone());
    context.tasks.spawn(async move {
        let was_unchecked = entry.is_unchecked();
        let is_followed = entry.view_handle.is_followed();
        let checked = task_context.tasks.until_closing(check(&entry, Demand::Current, &task_context)).await;
        check_ended.ended();
        let Some(Ok(is_switched)) = checked else { return };
        if is_switched {
            entry.record().ensure_synced().await;
        }
        if is_switched && is_followed || was_unchecked {
            follow(&entry, &task_context);
        }
    });
}

/// Follows the record of an account and writes its pending changes. Before the first check of the login, starts the check, which
/// does that.
pub(crate) fn follow(entry: &Arc<AccountEntry>, context: &TaskContext) {
    if entry.is_unchecked() {
        check_in_background(entry, context);
    } else {
        follower::follow(entry, context);
        follower::schedule_flush(&entry.record(), context);
    }
}

/// Removes the alias of a removed account.
pub(crate) async fn remove_alias(entry: &AccountEntry) -> Result<(), StoreError> {
    let key = LoginAlias::key(&entry.id);
    // A store has no delete operation, so an empty alias expires soon.
    let remove = |alias: &mut LoginAlias, now| alias.set(None, now, REMOVED_TTL);
    update_through(&entry.provider.store_client, &key, Start::Read, REMOVED_TTL, remove).await.map(drop)
}

/// How long an empty alias stays in the store.
const REMOVED_TTL: Duration = Duration::from_secs(60);

/// The maximum time for a read of the credential.
fn time_limit(entry: &AccountEntry, context: &TaskContext) -> Duration {
    let timeout = entry.provider.policy.fetch_timeout;
    context.time_left(entry.provider.clock.instant()).map_or(timeout, |left| left.min(timeout))
}
