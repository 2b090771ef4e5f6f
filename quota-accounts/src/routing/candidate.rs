//! The input of the choice: an account with its readings, blocks and limits.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::LoginId;
use quota_core::record::LastFailureKind;
use quota_core::{AccountId, AccountUsage, Percent, Snapshot, WindowId};

use super::{AccountLimits, Block, Verdict};

/// Whether an account is the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The main account.
    Main,
    /// A fallback account.
    Fallback,
}

/// An account that a request could go to, with its readings and blocks.
#[derive(Debug)]
#[must_use]
pub struct Candidate<'a> {
    pub(super) id: &'a AccountId,
    pub(super) role: Role,
    readings: Readings<'a>,
    pub(super) max_age: Duration,
    pub(crate) is_disabled: bool,
    pub(crate) is_session_account: bool,
    pub(super) has_unknown_owner: bool,
    pub(crate) login_rejected: bool,
    pub(crate) limits: Option<&'a AccountLimits>,
    /// Boxed because few accounts have one, and a choice moves every candidate.
    extra: Option<Box<Extra>>,
}

/// The parts of a candidate that few accounts have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) blocks: Arc<[Block]>,
    pub(crate) reserved: Arc<[(WindowId, Percent)]>,
    login: Option<LoginId>,
    /// Excludes the account because of its credential.
    pub(crate) credential_verdict: Option<Verdict>,
}

/// The source of the readings, so that a choice need not copy them.
enum Readings<'a> {
    Snapshot(&'a Snapshot),
    Usage(AccountUsage),
}

/// Shows only the kind, because readings of an unknown owner must not be shown.
impl fmt::Debug for Readings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot(_) => "Snapshot",
            Self::Usage(_) => "Usage",
        })
    }
}

impl Readings<'_> {
    /// The readings, even if the owner is unknown.
    fn snapshot(&self) -> &Snapshot {
        match self {
            Self::Snapshot(snapshot) => snapshot,
            Self::Usage(usage) => usage.unattributed().unwrap_or_else(|| usage.snapshot()),
        }
    }
}

impl<'a> Candidate<'a> {
    /// Creates a candidate with these readings, each of which counts as exact for `max_age`.
    pub fn new(id: &'a AccountId, role: Role, snapshot: &'a Snapshot, max_age: Duration) -> Self {
        Self {
            id,
            role,
            max_age,
            is_disabled: false,
            is_session_account: false,
            has_unknown_owner: false,
            login_rejected: false,
            readings: Readings::Snapshot(snapshot),
            limits: None,
            extra: None,
        }
    }

    /// Creates a candidate from the quota manager's usage.
    #[inline]
    pub fn from_usage(id: &'a AccountId, role: Role, usage: AccountUsage) -> Self {
        Self {
            id,
            role,
            max_age: usage.max_age(),
            is_disabled: false,
            is_session_account: false,
            has_unknown_owner: usage.unattributed().is_some(),
            login_rejected: usage
                .last_failure()
                .is_some_and(|failure| failure.kind == LastFailureKind::Unauthorized),
            readings: Readings::Usage(usage),
            limits: None,
            extra: None,
        }
    }

    /// Sets whether the user has disabled the account.
    pub fn disabled(mut self, is_disabled: bool) -> Self {
        self.is_disabled = is_disabled;
        self
    }

    /// Sets whether the request's session stays with the account.
    pub fn session_account(mut self, is_session_account: bool) -> Self {
        self.is_session_account = is_session_account;
        self
    }

    /// Sets whether the owner of the account is unknown. In that case its readings are not shown and can only exclude it.
    pub fn owner_unknown(mut self, is_unknown: bool) -> Self {
        self.has_unknown_owner = is_unknown;
        self
    }

    /// Sets whether the provider rejected the login.
    pub fn login_rejected(mut self, login_rejected: bool) -> Self {
        self.login_rejected = login_rejected;
        self
    }

    /// Sets the login that the account holds. Of several accounts with one login, the choice uses the first usable one.
    pub fn login(mut self, login: impl Into<Option<LoginId>>) -> Self {
        self.extra.get_or_insert_default().login = login.into();
        self
    }

    /// Returns the rare parts for changes in place.
    #[cold]
    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Sets the account's own limits.
    pub fn limits(mut self, limits: &'a AccountLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the blocks.
    pub fn blocks(mut self, blocks: impl Into<Arc<[Block]>>) -> Self {
        self.extra.get_or_insert_default().blocks = blocks.into();
        self
    }

    /// Sets the shares of windows that requests in flight have reserved.
    pub fn reserved(mut self, reserved: impl Into<Arc<[(WindowId, Percent)]>>) -> Self {
        self.extra.get_or_insert_default().reserved = reserved.into();
        self
    }

    pub(super) fn own_blocks(&self) -> &[Block] {
        self.extra.as_ref().map_or(&[], |extra| &extra.blocks)
    }

    /// How much of a window requests in flight have reserved, in basis points.
    pub(super) fn reserved_of(&self, window: &WindowId) -> u64 {
        let reserved = self.extra.iter().flat_map(|extra| extra.reserved.iter());
        reserved.filter(|(id, _)| id == window).map(|(_, share)| u64::from(share.basis_points())).sum()
    }

    /// The usage that it was created from; `None` if that was a snapshot.
    pub(crate) fn usage(&self) -> Option<&AccountUsage> {
        match &self.readings {
            Readings::Usage(usage) => Some(usage),
            Readings::Snapshot(_) => None,
        }
    }

    /// Whether other accounts show the same readings, because they hold the same login.
    pub(crate) fn is_login_shared(&self) -> bool {
        self.usage().is_some_and(AccountUsage::is_login_shared)
    }

    /// The login of the readings.
    #[inline]
    pub(crate) fn login_id(&self) -> Option<&LoginId> {
        match &self.readings {
            Readings::Usage(usage) => usage.login_id(),
            Readings::Snapshot(_) => self.extra.as_ref()?.login.as_ref(),
        }
    }

    /// The login, if another account may hold it too.
    pub(super) fn shared_login(&self) -> Option<&LoginId> {
        match &self.readings {
            Readings::Usage(usage) if usage.is_login_shared() => usage.login_id(),
            _ => self.extra.as_ref()?.login.as_ref(),
        }
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
            Readings::Usage(usage) => usage.due_at(model).filter(|due| now < *due),
            Readings::Snapshot(_) => None,
        };
        self.held_until(now).max(due)
    }

    /// When the quota manager may refresh it, if only the policy delays the refresh.
    pub(super) fn refresh_at(&self, model: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let Readings::Usage(usage) = &self.readings else { return None };
        let due = usage.due_at(model).filter(|due| now < *due)?;
        Some(self.held_until(now).map_or(due, |until| due.max(until)))
    }

    /// Why its readings are not newer, if a refresh failed or is not allowed.
    pub(super) fn not_refreshed(&self) -> Option<String> {
        let Readings::Usage(usage) = &self.readings else { return None };
        if let Some(error) = usage.error() {
            return Some(error.cause());
        }
        let hold = usage.hold().map(|hold| hold.reason.to_string());
        let failure = usage.last_failure().map(|failure| failure.message.clone());
        match (hold, failure) {
            (Some(hold), Some(failure)) => Some(format!("{hold}, {failure}")),
            (hold, failure) => hold.or(failure),
        }
    }

    /// Whether the quota manager would refresh its readings for a request for `model`, if allowed.
    pub(crate) fn is_stale_for(&self, model: Option<&str>) -> bool {
        match &self.readings {
            Readings::Snapshot(_) => false,
            Readings::Usage(usage) => usage.is_stale_for(model),
        }
    }

    /// The end of the hold, if there is one.
    fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.readings {
            Readings::Snapshot(_) => None,
            Readings::Usage(usage) => usage.hold().map(|hold| hold.until),
        }
        .filter(|until| now < *until)
    }

    /// Whether the account is the main one.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The readings; empty if the owner is unknown.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        static EMPTY: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
        if self.has_unknown_owner { &EMPTY } else { self.readings.snapshot() }
    }

    /// The readings, even if the owner is unknown. In that case they may only exclude the account.
    pub(super) fn raw_snapshot(&self) -> &Snapshot {
        self.readings.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quota_core::record::{Hold, HoldReason, Seed};
    use quota_core::testing::FakeProvider;
    use quota_core::{Clock, FetchError, MemoryStore, QuotaManager, UsageReport, WindowReading};

    use super::*;
    use crate::routing::{Reason, choose};
    use crate::{Request, RoutingPolicy};

    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn id() -> AccountId {
        "anthropic/main".parse().unwrap()
    }

    /// A manager with a reading of this account, which has an age of zero and counts as fresh for five minutes.
    fn manager(provider: &Arc<FakeProvider>, hold: Option<Hold>) -> (QuotaManager, Clock) {
        let clock = Clock::virtual_at(now());
        let store = MemoryStore::with_clock(clock.clone());
        let builder = QuotaManager::builder(store).fetcher(Arc::clone(provider)).clock(clock.clone());
        let quota = builder.build().unwrap();
        let reading = WindowReading::new(WindowId::five_hour(), Percent::ZERO);
        let snapshot = Snapshot::of(&UsageReport::polled([reading]), now());
        quota.account(&id()).seed(&Seed::new(snapshot).hold(hold)).unwrap();
        (quota, clock)
    }

    /// A hold of the account for this long.
    fn held_for(wait: Duration) -> Option<Hold> {
        Some(Hold::new(now(), now() + wait, HoldReason::RateLimited))
    }

    fn usage(hold: Option<Hold>) -> AccountUsage {
        let (quota, _) = manager(&Arc::new(FakeProvider::answering("anthropic", 0.0)), hold);
        quota.account(&id()).peek()
    }

    /// When the account is refreshed next, and when the policy delays that, at a time after the reading.
    fn refreshes(hold: Option<Hold>, after: Duration) -> [Option<Timestamp>; 2] {
        let id = id();
        let candidate = Candidate::from_usage(&id, Role::Main, usage(hold));
        let now = now() + after;
        [candidate.refreshed_from(None, now), candidate.refresh_at(None, now)]
    }

    #[tokio::test(start_paused = true)]
    async fn readings_of_the_manager_are_stale_after_their_maximum_age() {
        let (quota, clock) = manager(&Arc::new(FakeProvider::answering("anthropic", 0.0)), None);
        let account = quota.account(&id());
        let is_stale = || {
            let usage = account.peek();
            Candidate::from_usage(account.id(), Role::Main, usage).is_stale_for(Request::new().model())
        };

        assert!(!is_stale());
        clock.sleep(MINUTE * 5 + Duration::from_secs(1)).await;
        assert!(is_stale());
    }

    #[test]
    fn a_plain_snapshot_is_never_refreshed() {
        let (id, snapshot) = (id(), Snapshot::default());

        assert!(!Candidate::new(&id, Role::Main, &snapshot, Duration::ZERO).is_stale_for(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_account_is_refreshed_when_its_readings_become_stale() {
        let due = Some(now() + MINUTE * 5);

        assert_eq!(refreshes(None, MINUTE), [due; 2]);
        assert_eq!(refreshes(None, MINUTE * 5), [None; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_delays_the_refresh_until_its_end() {
        let end = Some(now() + MINUTE * 9);

        assert_eq!(refreshes(held_for(MINUTE * 9), MINUTE), [end; 2]);
        assert_eq!(refreshes(held_for(MINUTE * 9), MINUTE * 6), [end, None]);
        assert_eq!(refreshes(held_for(MINUTE * 9), MINUTE * 9), [None; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_states_why_readings_are_not_newer() {
        let id = id();
        let why = |hold| Candidate::from_usage(&id, Role::Main, usage(hold)).not_refreshed();

        assert_eq!((why(None), why(held_for(MINUTE))), (None, Some("rate limited".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_rejected_login_excludes_the_account() {
        for (error, is_rejected) in [(FetchError::Unauthorized, true), (FetchError::TimedOut, false)] {
            let provider = Arc::new(FakeProvider::answering("anthropic", 0.0));
            provider.then_fail(error);
            let (quota, _) = manager(&provider, None);
            let account = quota.account(&id());
            let _ = account.refresh().await;

            let candidate = Candidate::from_usage(account.id(), Role::Main, account.peek());

            assert_eq!(candidate.login_rejected, is_rejected);
        }
    }

    #[test]
    fn a_verdict_on_the_credential_excludes_the_account() {
        let (id, snapshot) = (id(), Snapshot::default());
        let reason = |candidate| {
            choose([candidate], &Request::new(), now(), &RoutingPolicy::default()).accounts()[0].reason
        };
        let candidate = || Candidate::new(&id, Role::Main, &snapshot, MINUTE);
        let verdict = Verdict::ineligible(Reason::LoginRenewing, None);

        assert_eq!(reason(candidate().login_rejected(true)), Reason::LoginRejected);
        let mut renewing = candidate();
        renewing.extra_mut().credential_verdict = Some(verdict);
        assert_eq!(reason(renewing), Reason::LoginRenewing);
    }
}
