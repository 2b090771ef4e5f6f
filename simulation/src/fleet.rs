//! Runs a plan: starts the processes, injects the faults, lets the fleet agree, and reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota_accounts::Request;
use quota_core::testing::seed_randomness;
use quota_core::{AccountId, QuotaError};

use crate::environment::Environment;
use crate::names::{account_id, number_of};
use crate::panics;
use crate::plan::{Fault, FaultKind, Plan};
use crate::process::{Process, reading};
use crate::trace::Report;
use crate::world::World;

/// The processes and their shared state.
#[derive(Debug)]
struct Fleet {
    environment: Arc<Environment>,
    processes: Mutex<BTreeMap<usize, Process>>,
}

/// Runs a plan on this thread, with paused time. With `keeps_lines`, the report has the trace.
///
/// # Panics
///
/// If the runtime cannot be created.
#[must_use]
pub fn run(plan: &Plan, keeps_lines: bool) -> Report {
    seed_randomness(Some(plan.seed));
    panics::record();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime with a timer only");
    let world = runtime.block_on(async {
        let world = World::new(plan.clone(), keeps_lines);
        tokio::select! {
            biased;
            () = world.too_many_events() => {}
            () = execute(&world) => {}
        }
        world
    });
    drop(runtime);
    seed_randomness(None);
    if let Some(panic) = panics::first() {
        world.check(|checker, now| checker.panicked(now, panic));
    }
    let world = Arc::into_inner(world).expect("all tasks have ended with their runtime");
    let planned_calls = world.planned_calls();
    world.into_checker().finish(planned_calls)
}

async fn execute(world: &Arc<World>) {
    let plan = world.plan.clone();
    let fleet = Fleet { environment: Environment::new(world), processes: Mutex::default() };
    for account in 0..plan.accounts {
        let login = fleet.environment.provider.login_of(account);
        world.check(|checker, now| checker.login_changed(now, account, login));
    }
    let mut actions: Vec<(Duration, Action)> = Vec::new();
    for (at, process) in plan.processes.iter().enumerate() {
        actions.push((process.starts_at, Action::Start(at)));
    }
    for fault in &plan.faults {
        let end = fault.at.saturating_add(fault.lasts).min(plan.length);
        actions.push((fault.at, Action::Begin(fault.clone())));
        actions.push((end, Action::End(fault.clone())));
    }
    // A stable sort, so that actions at the same time keep the order of the plan.
    actions.sort_by_key(|(at, _)| *at);
    for (at, action) in actions {
        world.clock.sleep(at.saturating_sub(world.elapsed())).await;
        fleet.perform(&action);
    }
    world.clock.sleep(plan.length.saturating_sub(world.elapsed())).await;
    world.calm();
    fleet.settle().await;
}

/// A step of the plan.
#[derive(Debug)]
enum Action {
    Start(usize),
    Begin(Fault),
    End(Fault),
}

impl Fleet {
    fn world(&self) -> &World {
        &self.environment.world
    }

    fn perform(&self, action: &Action) {
        self.world().check(|checker, now| {
            let text = format!("{action:?}");
            checker.note(now, text.clone(), || text);
        });
        match action {
            Action::Start(at) => {
                let plan = &self.world().plan.processes[*at];
                let process = Process::start(&self.environment, plan, 0);
                self.processes.lock().insert(plan.id, process);
            }
            Action::Begin(fault) => self.inject(fault, true),
            Action::End(fault) => self.inject(fault, false),
        }
    }

    fn inject(&self, fault: &Fault, begins: bool) {
        match &fault.kind {
            FaultKind::StoreDown(process) => self.environment.server.set_down(*process, begins),
            FaultKind::StoreReadOnly => self.environment.server.set_read_only(begins),
            FaultKind::AccountDown(account) => {
                self.environment.server.set_account_down(account_id(*account).as_str(), begins);
            }
            FaultKind::StoreLoses if begins => {
                self.environment.server.fail_over(fault.lasts.min(LONGEST_LOSS))
            }
            FaultKind::StoreFlushed if begins => self.environment.server.flush(),
            FaultKind::DocumentExpires(number) if begins => self.environment.server.expire(*number),
            FaultKind::Kill(process) if begins => self.kill(*process),
            FaultKind::Kill(process) => self.restart(*process),
            FaultKind::Pause(process) => self.pause(*process, begins),
            FaultKind::PauseInCall(process) if begins => {
                if let Some(process) = self.processes.lock().get(process) {
                    process.link.pause_in_next_call(fault.lasts);
                }
            }
            FaultKind::ClockJump(machine, by_ms) => {
                self.environment.machines[*machine].jump(if begins { *by_ms } else { -*by_ms });
            }
            FaultKind::Provider(fault) => self.environment.provider.set_fault(*fault, begins),
            FaultKind::LoginSwitch { account, login } => {
                self.environment.provider.switch_login(*account, *login, begins);
            }
            FaultKind::RequestsLimited { login, seconds } => {
                self.environment.provider.limit_requests(*login, begins.then_some(*seconds));
            }
            FaultKind::TokenRotation if begins => self.environment.provider.rotate_tokens(),
            FaultKind::StoreIgnoresVersions => self.environment.server.set_ignores_versions(begins),
            FaultKind::StoreLoses
            | FaultKind::StoreFlushed
            | FaultKind::DocumentExpires(_)
            | FaultKind::PauseInCall(_)
            | FaultKind::TokenRotation => {}
        }
    }

    fn kill(&self, process: usize) {
        if let Some(process) = self.processes.lock().get_mut(&process) {
            process.kill();
            let number = process.link.process;
            self.world().check(|checker, now| checker.killed(now, number));
        }
    }

    /// Starts a process again that was killed, unless it was never started or runs.
    fn restart(&self, number: usize) {
        let is_dead = self.processes.lock().get(&number).is_some_and(|process| process.link.is_dead());
        let Some(plan) = self.world().plan.processes.iter().find(|plan| plan.id == number) else {
            return;
        };
        if is_dead {
            let incarnation = self.environment.next_manager() % 100;
            let process = Process::start(&self.environment, plan, incarnation);
            self.processes.lock().insert(number, process);
        }
    }

    fn pause(&self, process: usize, begins: bool) {
        let processes = self.processes.lock();
        let Some(process) = processes.get(&process) else { return };
        if begins {
            process.link.pause();
            let number = process.link.process;
            self.world().check(|checker, now| checker.paused(now, number));
        } else {
            process.link.resume();
        }
    }

    /// Stops all callers and checks that the processes agree once the store works again.
    async fn settle(&self) {
        let mut processes: Vec<Process> = std::mem::take(&mut *self.processes.lock()).into_values().collect();
        for process in &mut processes {
            process.stop_callers();
        }
        processes.retain(|process| !process.link.is_dead());
        let survived = self.newest(&processes);
        // The followers alone must bring all processes to one state.
        let accounts =
            || processes.iter().flat_map(|process| self.accounts().map(|id| process.quota.account(&id)));
        let watched: Vec<_> = accounts().map(|account| account.watch()).collect();
        // Reads detect what followers cannot, such as a login that could not be read.
        for _ in 0..SETTLE_READS {
            self.world().clock.sleep(SETTLE_TIME / SETTLE_READS).await;
            accounts().for_each(|account| drop(account.peek()));
        }
        self.world().clock.sleep(Duration::from_secs(2)).await;
        self.compare(&processes);
        drop(watched);
        self.list_routes(&processes).await;
        // In the first pass, each process writes its changes. In the second, it reads those of all.
        for _ in 0..2 {
            for account in accounts() {
                let _ = account.sync().await;
            }
            self.world().clock.sleep(Duration::from_secs(2)).await;
        }
        self.compare(&processes);
        let left = self.newest(&processes);
        for (login, serial) in survived {
            let now = left.get(&login).copied().unwrap_or_default();
            if now < serial && !self.world().plan.drops_readings() {
                self.world().check(|checker, at| {
                    checker.survivors_lost(at, format!("login {login}: {now} is left of {serial}"));
                });
            }
        }
        self.refresh_all(&processes).await;
    }

    /// Compares the choice of each router with the fallbacks that it lists.
    async fn list_routes(&self, processes: &[Process]) {
        for process in processes {
            let Some(router) = &process.router else { continue };
            let usable = router.usable_fallback_accounts().await;
            let decision = router.decide(&Request::new()).await;
            let chosen = decision.chosen().map(|chosen| number_of(&chosen.account));
            let usable: Vec<_> = usable.iter().map(number_of).collect();
            let number = process.site.process;
            self.world().check(|checker, now| checker.listed(now, number, chosen, &usable));
        }
    }

    fn accounts(&self) -> impl Iterator<Item = AccountId> + use<> {
        (0..self.world().plan.accounts).map(account_id)
    }

    /// Refreshes each account in one process. Only the provider, a hold or a rejection may refuse it now.
    async fn refresh_all(&self, processes: &[Process]) {
        let Some(process) = processes.first() else { return };
        self.world().check(|checker, _| checker.forces_refreshes());
        for id in self.accounts() {
            let outcome = process.quota.account(&id).refresh().await;
            let error = outcome.map_or_else(Some, |outcome| outcome.error);
            if let Some(
                error @ (QuotaError::InProgress { .. }
                | QuotaError::Store { .. }
                | QuotaError::Panicked { .. }),
            ) = error
            {
                self.world().check(|checker, now| checker.stuck(now, error.to_string()));
            }
        }
    }

    /// The newest serial number of each login in any process.
    fn newest(&self, processes: &[Process]) -> BTreeMap<usize, u32> {
        let mut newest = BTreeMap::new();
        for process in processes {
            for account in 0..self.world().plan.accounts {
                if let Some(reading) = reading(&process.quota.account(&account_id(account)).peek()) {
                    let serial = newest.entry(reading.login).or_default();
                    *serial = reading.serial.max(*serial);
                }
            }
        }
        newest
    }

    fn compare(&self, processes: &[Process]) {
        let offsets = 0..self.world().plan.logins;
        let accounts = 0..self.world().plan.accounts;
        for (account, offset) in
            accounts.flat_map(|account| offsets.clone().map(move |offset| (account, offset)))
        {
            let same_logins = processes.iter().filter(|process| process.link.login_offset == offset);
            let views = same_logins.map(|process| {
                let usage = process.quota.account(&account_id(account)).peek();
                let hold = usage.hold().map(|hold| hold.until.as_second());
                (process.site.process, reading(&usage).map(|reading| (reading.login, reading.serial)), hold)
            });
            let views: Vec<_> = views.collect();
            let Some((first, expected, hold)) = views.first().copied() else { continue };
            for (process, reading, other_hold) in views {
                if reading != expected || other_hold != hold {
                    self.world().check(|checker, now| {
                        checker.disagree(now, format!(
                            "account {account}: p{first} has {expected:?} and hold {hold:?}, p{process} has {reading:?} and hold {other_hold:?}"
                        ));
                    });
                }
            }
        }
    }
}

/// The longest period of writes that a failover loses.
const LONGEST_LOSS: Duration = Duration::from_secs(60);

/// How long the processes have to agree after the last fault: two polls, and the longest backoff of the store's probes.
const SETTLE_TIME: Duration = Duration::from_secs(150);

/// How often each process reads each account in this time.
const SETTLE_READS: u32 = 10;
