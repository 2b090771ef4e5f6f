//! `quota demo`: demonstrates quota with a simulated provider, without setup. `plan` defines the run, `consumer` reads
//! usage, and `live` and `summary` print it.

mod bench;
mod consumer;
mod counters;
mod live;
mod plan;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use quota::Secret;
use quota::credentials::{CredentialMap, StaticCredential};
use quota::http::{Fetcher, Provider, find_provider};
use quota::{Account, Clock, Event, QuotaManager};
use quota_sim::Simulator;
use tokio::task::JoinSet;

use crate::cli::{DemoArgs, GlobalOptions, Simulated};
use crate::exit::{CliError, Exit};
use crate::format::between;
use crate::runtime::{self, ShutdownSignal};
use crate::term::{self, Screen};

use self::consumer::Consumers;
use self::live::Live;
use self::plan::Plan;
use self::summary::Summary;

/// The interval between two redraws.
const FRAME: Duration = Duration::from_millis(100);

/// Runs the demo.
///
/// # Errors
///
/// [`CliError`] if no port is free, or the summary cannot be written.
pub(crate) fn run(options: &DemoArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    // 32 bits, because some languages read JSON numbers as floats.
    let seed = options.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let providers = providers(&options.provider);
    let plan =
        Plan::new(&providers, options.accounts.into(), options.consumers, options.seconds.into(), seed);
    let summary = runtime::run(simulate(plan, Live::new(global.json)))?;
    let screen = Screen::stdout();
    term::print(&if global.json { summary.json() } else { screen.show(&summary.lines(screen.width)) })?;
    Ok(Exit::Success)
}

/// The chosen providers, each once.
fn providers(chosen: &[Simulated]) -> Vec<&'static Provider> {
    let mut providers = Vec::new();
    for choice in chosen {
        let these = match choice {
            Simulated::One(provider) => vec![*provider],
            Simulated::All => quota_sim::providers().iter().filter_map(|name| find_provider(name)).collect(),
        };
        for provider in these {
            if !providers.contains(&provider) {
                providers.push(provider);
            }
        }
    }
    providers
}

/// Runs the plan to its end, or until Ctrl-C.
async fn simulate(plan: Plan, mut live: Live) -> Result<Summary, CliError> {
    let clock = Clock::system();
    let mut signal = ShutdownSignal::listen()?;
    let simulator = Simulator::builder(plan.script.clone()).start().await;
    let simulator = simulator.map_err(|error| {
        CliError::new(Exit::Unavailable, format!("could not start the simulated provider: {error}"))
    })?;
    let quota = manager(&plan, &simulator)?;
    let accounts: Arc<[Account]> = plan.ids().map(|id| quota.account(&id)).collect();
    let mut events = quota.events();

    live.begin(&plan)?;
    read_all_once(&accounts).await;
    let started = clock.now();
    let mut consumers = Consumers::start(&plan, &accounts, started);
    let mut next_frame = FRAME;
    let duration = loop {
        let elapsed = between(started, clock.now());
        if elapsed >= plan.duration {
            break elapsed;
        }
        if elapsed >= next_frame {
            next_frame = elapsed + FRAME;
            live.draw(&plan, &accounts, consumers.counters(), &simulator.ledger(), elapsed)?;
        }
        tokio::select! {
            () = signal.wait() => break elapsed,
            () = clock.sleep(next_frame.min(plan.duration).saturating_sub(elapsed)) => {}
            Some(event) = events.next() => note(&mut live, &event, elapsed)?,
        }
    };
    consumers.stop().await;
    live.end()?;

    let peek_ns_p50 = bench::ns_p50(&accounts[0]);
    quota.close().await;
    let ledger = simulator.stop().await;
    Ok(Summary::new(&plan, duration, consumers.counters(), &ledger, peek_ns_p50))
}

/// Reads every account once, because a few consumers may not read all of them.
async fn read_all_once(accounts: &[Account]) {
    let mut reads = JoinSet::new();
    for account in accounts {
        let account = account.clone();
        reads.spawn(async move { account.get().await.is_ok() });
    }
    // An account whose first read failed is refreshed during the demo.
    reads.join_all().await;
}

/// Builds the manager that all consumers share. It calls the simulated provider over HTTP.
fn manager(plan: &Plan, simulator: &Simulator) -> Result<QuotaManager, CliError> {
    let logins =
        plan.script.accounts().iter().zip(plan.ids()).fold(CredentialMap::new(), |logins, (account, id)| {
            logins.with(id, Arc::new(StaticCredential::new(Secret::new(account.token()))))
        });
    let failed = |message: String| CliError::new(Exit::OsErr, message);
    let store = quota::open_store("memory:").map_err(|error| failed(error.to_string()))?;
    let mut manager = QuotaManager::builder(store).policy(plan.policy.clone()).name("quota demo");
    let logins = Arc::new(logins);
    for provider in &plan.providers {
        let fetcher = Fetcher::builder(provider).base_url(simulator.url()).timeout(plan.policy.fetch_timeout);
        let fetcher = fetcher.build().map_err(|error| failed(error.to_string()))?;
        manager = manager.provider(fetcher, Arc::clone(&logins));
    }
    manager.build().map_err(|error| failed(error.to_string()))
}

/// Reports notable events.
fn note(live: &mut Live, event: &Event, elapsed: Duration) -> Result<(), CliError> {
    match event {
        Event::Failed { account, error, hold, .. } => live.failed(account, error, hold.as_ref(), elapsed),
        Event::Refreshed { account, .. } => live.refreshed(account, elapsed),
        _ => Ok(()),
    }
}
