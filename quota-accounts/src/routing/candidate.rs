//! The input of the choice: an account with its readings, blocks and limits.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::record::LastFailureKind;
use quota_core::{AccountId, AccountUsage, Percent, QuotaError, Snapshot, WindowId};

use super::{AccountLimits, Block, Verdict};

/// Whether an account is the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The main account.
    Main,
    /// One of those that stand in for it.
    Fallback,
}

/// An account that a request could go to, with its readings and blocks.
#[derive(Debug)]
#[must_use]
pub struct Candidate<'a> {
    pub(super) id: &'a AccountId,
    pub(super) role: Role,
    readings: Readings<'a>,
    pub(super) fresh_for: Duration,
    pub(super) is_disabled: bool,
    pub(super) is_session_account: bool,
    pub(super) has_unknown_owner: bool,
    pub(super) login_rejected: bool,
    pub(super) limits: Option<&'a AccountLimits>,
    /// Boxed, for it is seldom there, and a choice among many accounts moves each of them.
    extra: Option<Box<Extra>>,
}

/// What few accounts have.
#[derive(Debug, Default)]
struct Extra {
    blocks: Arc<[Block]>,
    reserved: Arc<[(WindowId, Percent)]>,
    credential_verdict: Option<Verdict>,
}

/// Where the readings are: nothing is copied to choose.
enum Readings<'a> {
    Snapshot(&'a Snapshot),
    Answer(AccountUsage),
}

/// Shows where they are, and not what they say: they may be withheld.
impl fmt::Debug for Readings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot(_) => "Snapshot",
            Self::Answer(_) => "Answer",
        })
    }
}

impl Readings<'_> {
    /// The readings, even if the owner is unknown.
    fn known(&self) -> &Snapshot {
        match self {
            Self::Snapshot(snapshot) => snapshot,
            Self::Answer(answer) => answer.unattributed().unwrap_or_else(|| answer.snapshot()),
        }
    }
}

impl<'a> Candidate<'a> {
    /// An account with these readings, each of which counts as exact for `fresh_for`.
    pub fn new(id: &'a AccountId, role: Role, snapshot: &'a Snapshot, fresh_for: Duration) -> Self {
        Self::of(id, role, Readings::Snapshot(snapshot), fresh_for)
    }

    /// An account with what the quota manager says of it.
    pub fn from_usage(id: &'a AccountId, role: Role, answer: AccountUsage) -> Self {
        let fresh_for = answer.max_age();
        let login_rejected =
            answer.last_failure().is_some_and(|trouble| trouble.kind == LastFailureKind::Unauthorized);
        let has_unknown_owner = answer.unattributed().is_some();
        Self { login_rejected, has_unknown_owner, ..Self::of(id, role, Readings::Answer(answer), fresh_for) }
    }

    fn of(id: &'a AccountId, role: Role, readings: Readings<'a>, fresh_for: Duration) -> Self {
        Self {
            id,
            role,
            readings,
            fresh_for,
            is_disabled: false,
            is_session_account: false,
            has_unknown_owner: false,
            login_rejected: false,
            limits: None,
            extra: None,
        }
    }

    /// Says whether the user has switched it off.
    pub fn disabled(mut self, is_disabled: bool) -> Self {
        self.is_disabled = is_disabled;
        self
    }

    /// Says whether the request's session stays with it.
    pub fn session_account(mut self, is_session_account: bool) -> Self {
        self.is_session_account = is_session_account;
        self
    }

    /// Says that it cannot be told whose the account is: its numbers are not shown, and nothing but a refusal is made of them.
    pub fn owner_unknown(mut self, is_unknown: bool) -> Self {
        self.has_unknown_owner = is_unknown;
        self
    }

    /// Says that its login is refused.
    pub fn login_rejected(mut self, login_rejected: bool) -> Self {
        self.login_rejected = login_rejected;
        self
    }

    /// Excludes the account because of its credential.
    pub(crate) fn with_credential_verdict(mut self, verdict: Option<Verdict>) -> Self {
        if verdict.is_some() {
            self.extra.get_or_insert_default().credential_verdict = verdict;
        }
        self
    }

    /// Gives the account's own limits.
    pub fn limits(mut self, limits: &'a AccountLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Gives what the provider answered to requests.
    pub fn blocks(mut self, blocks: impl Into<Arc<[Block]>>) -> Self {
        self.extra.get_or_insert_default().blocks = blocks.into();
        self
    }

    /// Gives the shares of windows that requests under way have reserved.
    pub fn reserved(mut self, reserved: impl Into<Arc<[(WindowId, Percent)]>>) -> Self {
        self.extra.get_or_insert_default().reserved = reserved.into();
        self
    }

    pub(super) fn own_blocks(&self) -> &[Block] {
        self.extra.as_ref().map_or(&[], |extra| &extra.blocks)
    }

    /// How much of a window requests under way have reserved, in basis points.
    pub(super) fn reserved_of(&self, window: &WindowId) -> u64 {
        let reserved = self.extra.iter().flat_map(|extra| extra.reserved.iter());
        reserved.filter(|(id, _)| id == window).map(|(_, share)| u64::from(share.basis_points())).sum()
    }

    pub(super) fn credential_verdict(&self) -> Option<Verdict> {
        self.extra.as_ref()?.credential_verdict
    }

    /// The account's name.
    #[must_use]
    pub fn id(&self) -> &AccountId {
        self.id
    }

    /// When the quota manager refreshes it next for a request of `model`: after any hold, and when its readings are
    /// stale. `None` if that is now, or if the readings are a plain snapshot.
    pub(super) fn refreshed_from(&self, model: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let due = match &self.readings {
            Readings::Answer(answer) => answer.due_at(model).filter(|due| now < *due),
            _ => None,
        };
        self.held_until(now).max(due)
    }

    /// When the quota manager may refresh it, if the policy delays that although nothing else prevents it.
    pub(super) fn refresh_at(&self, model: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let Readings::Answer(usage) = &self.readings else { return None };
        let due = usage.due_at(model).filter(|due| now < *due)?;
        Some(self.held_until(now).map_or(due, |until| due.max(until)))
    }

    /// Why its readings are not newer, if a refresh failed or is not allowed.
    pub(super) fn not_refreshed(&self) -> Option<String> {
        let Readings::Answer(usage) = &self.readings else { return None };
        if let Some(error) = usage.error() {
            return Some(why(error));
        }
        let hold = usage.hold().map(|hold| hold.reason.to_string());
        let failure = usage.last_failure().map(|failure| failure.message.clone());
        match (hold, failure) {
            (Some(hold), Some(failure)) => Some(format!("{hold}, {failure}")),
            (hold, failure) => hold.or(failure),
        }
    }

    /// Whether the quota manager would refresh its readings for a request of `model`, if it may.
    pub(crate) fn is_stale_for(&self, model: Option<&str>) -> bool {
        match &self.readings {
            Readings::Snapshot(_) => false,
            Readings::Answer(answer) => answer.is_stale_for(model),
        }
    }

    /// The end of the hold, if there is one.
    fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.readings {
            Readings::Snapshot(_) => None,
            Readings::Answer(answer) => answer.hold().map(|hold| hold.until),
        }
        .filter(|until| now < *until)
    }

    /// Whether it is the main one.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What is known of its use; nothing, while it cannot be told whose that is.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        static NOTHING: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
        if self.has_unknown_owner { &NOTHING } else { self.readings.known() }
    }

    /// The same, even if the owner is unknown. These readings may only exclude the account.
    pub(super) fn raw_snapshot(&self) -> &Snapshot {
        self.readings.known()
    }
}

/// The cause of an error. The account is left out, because the reader sees it beside this.
fn why(error: &QuotaError) -> String {
    match error {
        QuotaError::Fetch { error, .. } => error.report(),
        QuotaError::CredentialRejected { failure: trouble, .. }
        | QuotaError::CalledRecently { failure: trouble, .. } => trouble.message.clone(),
        QuotaError::DeadlineExceeded { .. } => "no time was left for a call".to_owned(),
        QuotaError::InProgress { .. } => "another process is refreshing it, and has not finished".to_owned(),
        QuotaError::OnHold { hold, .. } => hold.reason.to_string(),
        _ => error.report(),
    }
}
