//! A simulated day with three accounts: one in use, one rate limited after heavy use, and one with a rejected login.
//! Each reading goes through the rules of the record.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::model::{Credits, Money, RequestId, Scope};
use quota::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota::store::{CasOutcome, StoreKey};
use quota::{
    AccountId, Clock, FetchError, MemoryStore, Percent, Policy, QuotaManager, QuotaStore, UsageReport,
    WindowId, WindowReading,
};

use quota_journal::{JournalUpdate, Rules};

use crate::config::LoginSource;
use crate::format::LocalTime;
use crate::view::account::{AccountView, FailureView};

/// The Friday on which the 7-day windows of all accounts begin.
const BEGIN: &str = "2026-11-20T09:00:00Z";
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// The next Tuesday at 11:50.
const NOW: u64 = 98 * HOUR + 50 * MINUTE;
/// The last call.
const LAST_CALL: u64 = NOW - 2 * MINUTE;
const FIVE_HOURS: u64 = 5 * HOUR;
const WEEK: u64 = 168 * HOUR;

/// The state at the end of the day.
pub(super) struct Day {
    pub(super) local: LocalTime,
    pub(super) views: Vec<AccountView>,
    pub(super) updates: Vec<(AccountId, JournalUpdate)>,
}

impl Day {
    pub(super) async fn simulate() -> Self {
        let clock = Clock::virtual_at(BEGIN.parse().unwrap());
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
        let accounts = [
            SimulatedAccount { name: "anthropic/main", plan: "max 20x", per_call: 180, fails: None },
            SimulatedAccount {
                name: "anthropic/work",
                plan: "max 5x",
                per_call: 290,
                fails: Some((LAST_CALL, throttled)),
            },
            SimulatedAccount {
                name: "anthropic/spare",
                plan: "pro",
                per_call: 60,
                fails: Some((95 * HOUR, || FetchError::Unauthorized)),
            },
        ];
        let mut records = accounts.each_ref().map(|_| Record::default());
        let mut updates = Vec::new();
        let mut elapsed = 0;
        while elapsed < NOW {
            let step = step_after(elapsed).min(LAST_CALL - elapsed.min(LAST_CALL)).max(2 * MINUTE);
            elapsed += step;
            tokio::time::advance(Duration::from_secs(step)).await;
            updates.clear();
            for (account, record) in accounts.iter().zip(&mut records) {
                if elapsed < NOW {
                    account.call(record, clock.now(), elapsed);
                }
                updates.push((account.id(), journal(store.as_ref(), &account.id(), record).await));
            }
        }
        let manager = QuotaManager::builder(store).clock(clock.clone()).build().unwrap();
        let mut views = Vec::new();
        for account in &accounts {
            let usage = manager.account(&account.id()).sync().await;
            views.push(AccountView::of(&account.id(), &usage, account.failure()));
        }
        Self { local: LocalTime { now: clock.now(), zone: TimeZone::UTC }, views, updates }
    }
}

fn throttled() -> FetchError {
    FetchError::throttled(Some(Duration::from_secs(6 * MINUTE)))
}

/// Writes the record, and updates the journal.
async fn journal(store: &dyn QuotaStore, account: &AccountId, record: &Record) -> JournalUpdate {
    let key = StoreKey::account(account);
    let version = store.read(&key).await.unwrap().version();
    let swapped =
        store.compare_and_swap(&key, version, record.encode(), Duration::from_secs(WEEK)).await.unwrap();
    assert!(matches!(swapped, CasOutcome::Applied(_)));
    quota_journal::update(store, account, &Rules::default()).await.unwrap()
}

/// Whether this is a working hour: from nine to six on a weekday.
fn is_worked_at(elapsed: u64) -> bool {
    let (day, hour) = (elapsed / (24 * HOUR), elapsed / HOUR % 24);
    hour < 9 && matches!(day, 0 | 3 | 4)
}

/// The time to the next call: short today, longer on the days before, at night and at weekends.
fn step_after(elapsed: u64) -> u64 {
    match is_worked_at(elapsed) {
        true if elapsed >= 96 * HOUR => 5 * MINUTE,
        true => 20 * MINUTE,
        false => 3 * HOUR,
    }
}

/// An account and its usage.
struct SimulatedAccount {
    name: &'static str,
    plan: &'static str,
    /// The usage of the 5-hour window in five minutes of work, in hundredths of a percent.
    per_call: u32,
    /// When calls begin to fail, and their error.
    fails: Option<(u64, fn() -> FetchError)>,
}

impl SimulatedAccount {
    fn id(&self) -> AccountId {
        self.name.parse().unwrap()
    }

    fn call(&self, record: &mut Record, now: Timestamp, elapsed: u64) {
        let request = LeaseRequest::new(RequestId::from(u128::from(elapsed)), MaxStaleness::NewCall);
        // Without a lease the account is on hold, or its credential is rejected.
        let LeaseDecision::Granted(lease) = record.begin(now, &request, &Policy::default()) else { return };
        match self.fails.filter(|(from, _)| elapsed >= *from) {
            Some((_, error)) => drop(record.fail(now, &lease, &error(), &Policy::default())),
            None => drop(record.commit(now, &lease, &self.usage(now, elapsed))),
        }
    }

    fn usage(&self, now: Timestamp, elapsed: u64) -> UsageReport {
        let begin = now - Duration::from_secs(elapsed);
        let at = |second: u64| begin + Duration::from_secs(second);
        let (five_hours, week) = (elapsed / FIVE_HOURS * FIVE_HOURS, worked(0, elapsed));
        let worked = worked(five_hours, elapsed);
        let window = |id, used: u32, begin, length| {
            let used = Percent::from_basis_points(used.min(10_000));
            WindowReading::new(id, used).resets_at(at(begin + length)).length(Duration::from_secs(length))
        };
        let of_model = WindowId::new("seven_day/opus").unwrap();
        let mut windows = vec![
            window(WindowId::five_hour(), worked * self.per_call, five_hours, FIVE_HOURS),
            window(WindowId::seven_day(), week * self.per_call / 13, 0, WEEK),
        ];
        if self.plan.starts_with("max") {
            windows.push(window(of_model, week * self.per_call / 9, 0, WEEK).scope(Scope::model("Opus")));
        }
        let mut money = Credits::default();
        money.used = Some(Money::new(1240, "EUR", 2));
        money.limit = Some(Money::new(4000, "EUR", 2));
        let credits = self.plan.ends_with("20x").then_some(money);
        UsageReport::polled(windows).plan(Some(self.plan.to_owned())).credits(credits)
    }

    /// The failure that `quota status` adds to the record.
    fn failure(&self) -> Option<FailureView> {
        let is_rejected = self.fails.is_some_and(|(_, error)| matches!(error(), FetchError::Unauthorized));
        is_rejected.then(|| FailureView {
            why: FetchError::Unauthorized.report(),
            advice: Some(LoginSource::ClaudeConfigDir("~/.claude-spare".into()).hint()),
        })
    }
}

/// The number of worked five-minute steps.
fn worked(from: u64, to: u64) -> u32 {
    let steps = (from..to).step_by(usize::try_from(5 * MINUTE).unwrap());
    u32::try_from(steps.filter(|at| is_worked_at(*at)).count()).unwrap()
}
