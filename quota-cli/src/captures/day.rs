//! A day with three accounts: one that is worked with, one that was used up and is asked to slow down, and one whose login
//! was refused. Told by the rules, reading by reading; nothing here draws.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::{
    AccountId, CasOutcome, Clock, Credits, FetchError, LeaseDecision, LeaseRequest, MaxStaleness,
    MemoryStore, Money, Percent, Policy, QuotaManager, QuotaStore, Record, RequestId, Scope, StoreKey,
    UsageReport, WindowId, WindowReading,
};

use quota_journal::{JournalUpdate, Rules};

use crate::commands::watch::Seen;
use crate::config::LoginSource;
use crate::format::LocalTime;
use crate::view::account::{AccountView, FailureView};

/// The Friday on which the week of all accounts began.
const BEGIN: &str = "2026-11-20T09:00:00Z";
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// The Tuesday after, at ten to twelve.
const NOW: u64 = 98 * HOUR + 50 * MINUTE;
/// When they are asked for the last time.
const LAST: u64 = NOW - 2 * MINUTE;
const FIVE_HOURS: u64 = 5 * HOUR;
const WEEK: u64 = 168 * HOUR;

/// What is known when it is over.
pub(super) struct Day {
    pub(super) local: LocalTime,
    pub(super) views: Vec<AccountView>,
    pub(super) looked: Vec<(AccountId, JournalUpdate)>,
}

impl Day {
    pub(super) async fn spent() -> Self {
        let clock = Clock::anchored(BEGIN.parse().unwrap());
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
        let accounts = [
            Spent { name: "anthropic/main", plan: "max 20x", per_call: 180, fails: None },
            Spent { name: "anthropic/work", plan: "max 5x", per_call: 290, fails: Some((LAST, throttled)) },
            Spent {
                name: "anthropic/spare",
                plan: "pro",
                per_call: 60,
                fails: Some((95 * HOUR, || FetchError::Unauthorized)),
            },
        ];
        let mut records = accounts.each_ref().map(|_| Record::default());
        let mut looked = Vec::new();
        let mut passed = 0;
        while passed < NOW {
            let step = step_after(passed).min(LAST - passed.min(LAST)).max(2 * MINUTE);
            passed += step;
            tokio::time::advance(Duration::from_secs(step)).await;
            looked.clear();
            for (account, record) in accounts.iter().zip(&mut records) {
                if passed < NOW {
                    account.ask(record, clock.now(), passed);
                }
                looked.push((account.id(), look(store.as_ref(), &account.id(), record).await));
            }
        }
        let manager = QuotaManager::builder(store).clock(clock.clone()).build().unwrap();
        let mut views = Vec::new();
        for account in &accounts {
            let answer = manager.account(&account.id()).sync().await;
            views.push(AccountView::of(&account.id(), &answer, account.failure()));
        }
        Self { local: LocalTime { now: clock.now(), zone: TimeZone::UTC }, views, looked }
    }

    /// The same for whoever watches.
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen { local: &self.local, views: &self.views, looked: &self.looked }
    }
}

fn throttled() -> FetchError {
    FetchError::throttled(Some(Duration::from_secs(6 * MINUTE)))
}

/// Writes the record, and looks at it as everybody does.
async fn look(store: &dyn QuotaStore, account: &AccountId, record: &Record) -> JournalUpdate {
    let key = StoreKey::account(account);
    let version = store.read(&key).await.unwrap().version();
    let swapped =
        store.compare_and_swap(&key, version, record.encode(), Duration::from_secs(WEEK)).await.unwrap();
    assert!(matches!(swapped, CasOutcome::Applied(_)));
    quota_journal::update(store, account, &Rules::default()).await.unwrap()
}

/// On working days from nine to six.
fn is_worked_at(passed: u64) -> bool {
    let (day, hour) = (passed / (24 * HOUR), passed / HOUR % 24);
    hour < 9 && matches!(day, 0 | 3 | 4)
}

/// When they are asked again: often today, and less so on the days before, at night and at weekends.
fn step_after(passed: u64) -> u64 {
    match is_worked_at(passed) {
        true if passed >= 96 * HOUR => 5 * MINUTE,
        true => 20 * MINUTE,
        false => 3 * HOUR,
    }
}

/// How an account is spent.
struct Spent {
    name: &'static str,
    plan: &'static str,
    /// So much of five hours goes in five minutes of work, in hundredths of a percent.
    per_call: u32,
    /// From when on calls fail, and by what.
    fails: Option<(u64, fn() -> FetchError)>,
}

impl Spent {
    fn id(&self) -> AccountId {
        self.name.parse().unwrap()
    }

    fn ask(&self, record: &mut Record, now: Timestamp, passed: u64) {
        let ask = LeaseRequest::new(RequestId::from(u128::from(passed)), MaxStaleness::StartedAfter(now));
        // Held or refused: then nobody asks.
        let LeaseDecision::Granted(lease) = record.begin(now, &ask, &Policy::default()) else { return };
        match self.fails.filter(|(from, _)| passed >= *from) {
            Some((_, error)) => drop(record.fail(now, &lease, &error(), &Policy::default())),
            None => drop(record.commit(now, &lease, &self.usage(now, passed))),
        }
    }

    fn usage(&self, now: Timestamp, passed: u64) -> UsageReport {
        let begin = now - Duration::from_secs(passed);
        let at = |second: u64| begin + Duration::from_secs(second);
        // Of these five hours, which began on the hour, and of the week.
        let (five_hours, week) = (passed / FIVE_HOURS * FIVE_HOURS, worked(0, passed));
        let worked = worked(five_hours, passed);
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

    /// What a status tells of it that does not stand in the record.
    fn failure(&self) -> Option<FailureView> {
        let is_refused = self.fails.is_some_and(|(_, error)| matches!(error(), FetchError::Unauthorized));
        is_refused.then(|| FailureView {
            why: FetchError::Unauthorized.report(),
            advice: Some(LoginSource::ClaudeConfigDir("~/.claude-spare".into()).advice()),
        })
    }
}

/// How many times five minutes were worked in between.
fn worked(from: u64, to: u64) -> u32 {
    let steps = (from..to).step_by(usize::try_from(5 * MINUTE).unwrap());
    u32::try_from(steps.filter(|at| is_worked_at(*at)).count()).unwrap()
}
