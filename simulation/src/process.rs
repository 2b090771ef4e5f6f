//! One simulated process: a manager on its machine's clock and its own connections, and the tasks that call it.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_accounts::{FallbackAccountManager, Request, RequestOutcome};
use quota_core::manager::{Freshness, KeepFreshGuard};
use quota_core::outage::OutageLevel;
use quota_core::policy::StoreOutagePolicy;
use quota_core::{Account, AccountUsage, Policy, QuotaManager, WindowId};
use tokio::task::JoinHandle;

use crate::check::Reading;
use crate::environment::Environment;
use crate::ledger::Caller as CallSite;
use crate::machine::Machine;
use crate::names::{account_id, login_in, number_of};
use crate::plan::{Caller, CallerKind, ProcessPlan};
use crate::provider::{Connection, login_of};
use crate::router;
use crate::store::Client;
use crate::world::{Link, spawn};

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) link: Arc<Link>,
    pub(crate) quota: QuotaManager,
    pub(crate) site: CallSite,
    /// The router, if a caller uses one.
    pub(crate) router: Option<FallbackAccountManager>,
    callers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a process. `incarnation` counts the starts of processes with this number.
    pub(crate) fn start(environment: &Arc<Environment>, plan: &ProcessPlan, incarnation: usize) -> Self {
        let link = Link::new(plan);
        let machine = &environment.machines[plan.machine];
        let (quota, site) = open(environment, &link, machine, None);
        let routes = plan.callers.iter().any(|caller| caller.kind == CallerKind::Route);
        let router = routes.then(|| router::open(&quota, environment.world.plan.accounts));
        let callers = plan.callers.iter().enumerate().map(|(at, caller)| {
            let user = User {
                environment: Arc::clone(environment),
                link: Arc::clone(&link),
                machine: Arc::clone(machine),
                quota: quota.clone(),
                router: router.clone(),
                site,
                rng: environment.world.stream("caller", (plan.id * 100 + at) * 100 + incarnation),
            };
            spawn(user.run(caller.clone()))
        });
        let callers = callers.collect();
        Self { link, quota, site, router, callers }
    }

    /// Ends all callers. The manager and its followers continue.
    pub(crate) fn stop_callers(&mut self) {
        for caller in self.callers.drain(..) {
            caller.abort();
        }
    }

    /// Ends the process without any cleanup that others could detect.
    pub(crate) fn kill(&mut self) {
        self.link.kill();
        self.router = None;
        self.stop_callers();
        // Ends the tasks, so that dead processes cost no time. Their writes hang.
        let quota = self.quota.clone();
        spawn(async move { quota.close_within(Duration::ZERO).await });
    }
}

/// Builds the manager of a process or of a command in it.
fn open(
    environment: &Environment,
    link: &Arc<Link>,
    machine: &Arc<Machine>,
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
        .clock(machine.clock.clone())
        .name(&format!("p{}", link.process));
    if let Some(deadline) = deadline {
        builder = builder.deadline(deadline);
        builder = match environment.world.plan.has_outage_files {
            true => builder.outage_store([Arc::clone(machine) as Arc<dyn OutageLevel>]),
            // As the program does. Otherwise each command of an outage would make a call.
            false => builder.policy(Policy::default().on_store_unavailable(StoreOutagePolicy::RefreshOnly)),
        };
    }
    (builder.build().expect("the default policy is valid"), site)
}

/// The readings that a caller received, if any.
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
    machine: Arc<Machine>,
    quota: QuotaManager,
    router: Option<FallbackAccountManager>,
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
        let asked_at = self.environment.world.clock.now();
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
            CallerKind::Route => {
                self.request().await;
                None
            }
            CallerKind::Command => {
                self.command(plan.account).await;
                None
            }
        };
        // A pause may delay the caller after it has received its result.
        if let Some(reading) = usage.as_ref().and_then(reading)
            && self.link.pauses() == pauses
        {
            self.environment
                .world
                .check(|checker, now| checker.received(now, self.site, plan.account, reading, asked_at));
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

    /// A request: the router chooses the account, and gets the response.
    async fn request(&self) {
        let Some(router) = &self.router else { return };
        let world = &self.environment.world;
        let asked_at = world.clock.now();
        let Ok(route) = router.route(Request::new()).await else { return };
        let account = number_of(route.account());
        let Some(login) = route.credential().map(login_of) else { return };
        world.check(|checker, now| checker.routed(now, self.site, account, login, asked_at));
        world.clock.sleep(REQUEST_TIME).await;
        self.link.gate().await;
        let response = self.environment.provider.respond(login);
        let outcome = RequestOutcome::from_response(response.status, [response.header]);
        let _ = router.report(&route, outcome).await;
        world.check(|checker, now| checker.responded(now, self.site, account, login, response.until));
    }

    /// A short-lived command on the same machine: one read by a new manager, which then closes.
    async fn command(&self, account: usize) {
        let asked_at = self.environment.world.clock.now();
        let (quota, site) = open(&self.environment, &self.link, &self.machine, Some(COMMAND_DEADLINE));
        let usage = quota.account(&account_id(account)).get().await.ok();
        if let Some(reading) = usage.as_ref().and_then(reading) {
            self.environment
                .world
                .check(|checker, now| checker.received(now, site, account, reading, asked_at));
        }
        quota.close_within(Duration::from_secs(1)).await;
    }
}

/// How long the provider takes for an ordinary request.
const REQUEST_TIME: Duration = Duration::from_millis(100);

/// The deadline of a command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// The longest time that a caller may wait for its result.
fn longest_wait(kind: CallerKind) -> Duration {
    match kind {
        CallerKind::Command => COMMAND_DEADLINE + Duration::from_secs(5),
        // A request waits for refreshes for 5 s, and for a credential.
        CallerKind::Route => Duration::from_secs(15),
        CallerKind::Observe | CallerKind::KeepFresh => Duration::ZERO,
        CallerKind::Sync | CallerKind::ClearHold | CallerKind::Forget => Duration::from_secs(10),
        CallerKind::Get
        | CallerKind::GetWithinMinute
        | CallerKind::Refresh
        | CallerKind::RefreshUnlessRecent => Duration::from_secs(120),
    }
}
