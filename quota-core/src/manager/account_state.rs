//! The state of an account outside its record: why it shows that record, and the last check of its credential. `entry`
//! has the account and its record.

use std::sync::Arc;
use std::time::Duration;

use super::error::QuotaError;
use super::view::CredentialCheck;
use crate::model::LoginInfo;

/// The state of an account that is not in its record.
#[derive(Debug)]
pub(crate) struct AccountState {
    pub(super) selection: Selection,
    /// Whether it is unknown which login the readings belong to.
    pub(crate) unattributed: bool,
    /// Why this process's last refresh failed; `None` if another process has refreshed the account since.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// The last check of the credential; `None` if the login or the source has changed since.
    pub(crate) checked: Option<Arc<CredentialCheck>>,
    /// Counts the checks of the login that have begun, and the last of them whose result was applied.
    checks_begun: u16,
    check_applied: u16,
    /// When a refresh last confirmed the alias of the account, in hours by the wall clock. It wraps, which costs one read.
    alias_confirmed_h: u16,
}

/// Why an account shows its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Selection {
    /// The login was never checked. The record is empty, except for what this process seeded or observed, and is not in the store.
    Unchecked,
    /// The credential source states this login or none, or the account has no source.
    Source,
    /// The account has no credential here, so its alias in the store states the login.
    Alias,
    /// The program has set the login.
    Program,
}

impl AccountState {
    /// Creates the state of an account that has just been created.
    pub(crate) fn new(selection: Selection, now_ms: i64) -> Self {
        Self {
            selection,
            unattributed: false,
            failed: None,
            checked: None,
            checks_begun: 0,
            check_applied: 0,
            // Most accounts have no login and never had one, and for them no refresh may read the alias.
            alias_confirmed_h: hours(now_ms),
        }
    }

    /// Records that the account shows another record, for this reason.
    pub(crate) fn record_selected(&mut self, selection: Selection) {
        (self.selection, self.unattributed) = (selection, false);
        (self.failed, self.checked) = (None, None);
        self.require_alias_check();
    }

    /// Stores the result of a check of the credential.
    pub(crate) fn credential_checked(&mut self, at_ms: i64, login: Result<LoginInfo, QuotaError>) {
        self.checked = Some(Arc::new(CredentialCheck { at_ms, login }));
    }

    /// Claims the next check of the credential; `false` if another reader has claimed it.
    pub(crate) fn claim_check(&mut self, now_ms: i64) -> bool {
        let is_old = |checked: &&mut Arc<CredentialCheck>| now_ms >= checked.next_ms();
        let Some(checked) = self.checked.as_mut().filter(is_old) else { return false };
        Arc::make_mut(checked).at_ms = now_ms;
        true
    }

    /// Stores the error of a refresh.
    pub(crate) fn refresh_failed(&mut self, error: QuotaError) {
        // The error of the recent call is more specific than `CalledRecently`.
        if !matches!(error, QuotaError::CalledRecently { .. }) || self.failed.is_none() {
            self.failed = Some(Arc::new(error));
        }
    }

    /// Whether a refresh must confirm the alias, because none has within `max_age`. If it returns `true`, the next call
    /// returns `false`.
    pub(crate) fn claim_alias_check(&mut self, now_ms: i64, max_age: Duration) -> bool {
        let now_h = hours(now_ms);
        let age_h = now_h.wrapping_sub(self.alias_confirmed_h);
        let is_due = Duration::from_secs(u64::from(age_h) * 3_600) >= max_age;
        if is_due {
            self.alias_confirmed_h = now_h;
        }
        is_due
    }

    /// Requires the next refresh to confirm the alias, because its content is unknown.
    pub(crate) fn require_alias_check(&mut self) {
        self.alias_confirmed_h = self.alias_confirmed_h.wrapping_add(u16::MAX / 2);
    }

    /// Begins a check of the login. Its number orders its result among those of other checks.
    pub(crate) fn begin_check(&mut self) -> u16 {
        self.checks_begun = self.checks_begun.wrapping_add(1);
        self.checks_begun
    }

    /// Whether the result of a check is newer than the last applied one, and counts. Otherwise a slow check could select the
    /// previous login.
    pub(crate) fn accept_check(&mut self, check: u16) -> bool {
        // The numbers may wrap, because few checks run at the same time.
        let is_newer = (1..u16::MAX / 2).contains(&check.wrapping_sub(self.check_applied));
        if is_newer {
            self.check_applied = check;
        }
        is_newer && self.selection != Selection::Program
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only differences matter")]
fn hours(now_ms: i64) -> u16 {
    (now_ms / 3_600_000) as u16
}
