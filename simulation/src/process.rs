//! One simulated process: a manager on its own clock and connections, and the tasks that call it.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_core::clock::Clock;
use quota_core::manager::{Freshness, KeepFreshGuard};
use quota_core::outage::OutageLevel;
use quota_core::{Account, AccountUsage, QuotaManager, WindowId};
use tokio::task::JoinHandle;

use crate::check::Reading;
use crate::environment::Environment;
use crate::ledger::Caller as CallSite;
use crate::names::{START, account_id, login_in};
use crate::plan::{Caller, CallerKind, ProcessPlan};
use crate::provider::Connection;
use crate::store::Client;
use crate::world::{Link, World, spawn};

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) link: Arc<Link>,
    pub(crate) quota: QuotaManager,
    pub(crate) clock: Clock,
    pub(crate) site: CallSite,
    callers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a process. `incarnation` counts the starts of processes with this number.
    pub(crate) fn start(environment: &Arc<Environment>, plan: &ProcessPlan, incarnation: usize) -> Self {
        let link = Link::new(plan.id, plan.login_offset);
        let ahead = jiff::SignedDuration::from_millis(plan.clock_ahead_ms);
        let now = environment.world.clock.now();
        let clock = Clock::virtual_at(now.checked_add(ahead).unwrap_or(START));
        let (quota, site) = open(environment, &link, &clock, None);
        let callers = plan.callers.iter().enumerate().map(|(at, caller)| {
            let user = User {
                environment: Arc::clone(environment),
                link: Arc::clone(&link),
                clock: clock.clone(),
                quota: quota.clone(),
                site,
                rng: environment.world.stream("caller", (plan.id * 100 + at) * 100 + incarnation),
            };
            spawn(user.run(caller.clone()))
        });
        let mut callers: Vec<_> = callers.collect();
        if plan.clock_drift_ppm != 0 {
            let world = Arc::clone(&environment.world);
            callers.push(spawn(drift(clock.clone(), world, plan.clock_drift_ppm)));
        }
        Self { link, quota, clock, site, callers }
    }

    /// Ends all callers. The manager and its followers go on.
    pub(crate) fn stop_callers(&mut self) {
        for caller in self.callers.drain(..) {
            caller.abort();
        }
    }

    /// Ends the process without any cleanup that others could notice.
    pub(crate) fn kill(&mut self) {
        self.link.kill();
        self.stop_callers();
        // Ends the tasks, so that dead processes cost no time. Their writes hang.
        let quota = self.quota.clone();
        spawn(async move { quota.close_within(Duration::ZERO).await });
    }
}

/// Sets the clock a little ahead or back again and again.
async fn drift(clock: Clock, world: Arc<World>, ppm: i64) {
    loop {
        world.clock.sleep(DRIFT_STEP).await;
        let by = jiff::SignedDuration::from_micros(ppm * DRIFT_STEP_S);
        clock.set(clock.now().checked_add(by).unwrap_or(START));
    }
}

/// The time between two steps of a drifting clock.
const DRIFT_STEP: Duration = Duration::from_secs(DRIFT_STEP_S.unsigned_abs());
const DRIFT_STEP_S: i64 = 20;

/// Builds the manager of a process or of a command in it.
fn open(
    environment: &Environment,
    link: &Arc<Link>,
    clock: &Clock,
    deadline: Option<Duration>,
) -> (QuotaManager, CallSite) {
    let site = CallSite { process: link.process, manager: environment.next_manager() };
    environment.world.check(|checker, now| {
        let content = ("manager", site.manager, site.process);
        checker.note(now, content, || format!("m{} is a manager of p{}", site.manager, site.process));
    });
    let client = Client::new(&environment.world, &environment.server, link, site.manager);
    let connection = Connection::new(&environment.world, &environment.provider, link, site.manager);
    let mut builder = QuotaManager::builder(client)
        .provider(connection.clone(), connection)
        .clock(clock.clone())
        .name(&format!("p{}", link.process));
    if let Some(deadline) = deadline {
        builder = builder.deadline(deadline);
        if environment.world.plan.has_outage_files {
            builder = builder.outage_store([environment.outage_file(link.process) as Arc<dyn OutageLevel>]);
        }
    }
    (builder.build().expect("the default policy is valid"), site)
}

/// What a caller received, if it has readings.
pub(crate) fn reading(usage: &AccountUsage) -> Option<Reading> {
    let snapshot = usage.snapshot();
    let login = snapshot.plan().and_then(login_in)?;
    let serial = snapshot.window(&WindowId::seven_day())?.used().basis_points();
    Some(Reading { login, serial, is_fresh: usage.freshness() == Freshness::Fresh })
}

/// A task that uses one account.
struct User {
    environment: Arc<Environment>,
    link: Arc<Link>,
    clock: Clock,
    quota: QuotaManager,
    site: CallSite,
    rng: Rng,
}

impl User {
    async fn run(mut self, plan: Caller) {
        let account = self.quota.account(&account_id(plan.account));
        let _guard: Option<KeepFreshGuard> =
            (plan.kind == CallerKind::KeepFresh).then(|| account.keep_fresh());
        loop {
            let pause = plan.every.mul_f64(self.rng.f64() * 2.0);
            self.environment.world.clock.sleep(pause).await;
            self.link.gate().await;
            let asked_at = self.environment.world.elapsed();
            let pauses = self.link.pauses();
            self.call(&plan, &account).await;
            if self.link.pauses() == pauses {
                let waited = self.environment.world.elapsed().saturating_sub(asked_at);
                let process = self.site.process;
                self.environment.world.check(|checker, now| {
                    checker.waited(now, process, plan.kind, waited, longest_wait(plan.kind));
                });
            }
        }
    }

    async fn call(&self, plan: &Caller, account: &Account) {
        let pauses = self.link.pauses();
        let usage = match plan.kind {
            CallerKind::Get => account.get().await.ok(),
            CallerKind::GetWithinMinute => account.get_with_max_age(Duration::from_secs(60)).await.ok(),
            CallerKind::Refresh => self.refresh(plan.account, account).await,
            CallerKind::RefreshUnlessRecent => {
                let outcome = account.refresh_unless_called_within(Duration::from_secs(30)).await;
                outcome.ok().map(|outcome| outcome.usage)
            }
            CallerKind::Sync => Some(account.sync().await),
            CallerKind::KeepFresh => Some(account.peek()),
            CallerKind::Observe => {
                let headers = self.environment.provider.headers(plan.account, self.link.login_offset);
                let _ = account.observe(&headers);
                None
            }
            CallerKind::ClearHold => {
                let _ = account.clear_hold().await;
                None
            }
            CallerKind::Forget => {
                let _ = self.quota.forget(account.id()).await;
                None
            }
            CallerKind::Command => {
                self.command(plan.account).await;
                None
            }
        };
        // A pause delays the caller after it has received its answer.
        if let Some(reading) = usage.as_ref().and_then(reading)
            && self.link.pauses() == pauses
        {
            self.environment
                .world
                .check(|checker, now| checker.received(now, self.site, plan.account, reading));
        }
    }

    async fn refresh(&self, number: usize, account: &Account) -> Option<AccountUsage> {
        let asked_at = self.environment.world.clock.now();
        let outcome = account.refresh().await.ok()?;
        if outcome.error.is_none() {
            let process = self.site.process;
            self.environment.world.check(|checker, now| checker.refreshed(now, process, number, asked_at));
        }
        Some(outcome.usage)
    }

    /// A short-lived command on the same machine: one read by a new manager, which then closes.
    async fn command(&self, account: usize) {
        let (quota, site) = open(&self.environment, &self.link, &self.clock, Some(COMMAND_DEADLINE));
        let usage = quota.account(&account_id(account)).get().await.ok();
        if let Some(reading) = usage.as_ref().and_then(reading) {
            self.environment.world.check(|checker, now| checker.received(now, site, account, reading));
        }
        quota.close_within(Duration::from_secs(1)).await;
    }
}

/// The deadline of a command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// The longest time that a caller may wait for its answer.
fn longest_wait(kind: CallerKind) -> Duration {
    match kind {
        CallerKind::Command => COMMAND_DEADLINE + Duration::from_secs(5),
        CallerKind::Observe | CallerKind::KeepFresh => Duration::ZERO,
        CallerKind::Sync | CallerKind::ClearHold | CallerKind::Forget => Duration::from_secs(10),
        CallerKind::Get
        | CallerKind::GetWithinMinute
        | CallerKind::Refresh
        | CallerKind::RefreshUnlessRecent => Duration::from_secs(120),
    }
}
