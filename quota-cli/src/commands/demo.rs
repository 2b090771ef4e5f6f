//! `quota demo`: what quota does, on a simulated provider and without setup.
//! `plan` decides what happens, `consumer` reads, `live` and `summary` print.

mod bench;
mod consumer;
mod counters;
mod live;
mod plan;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use quota::Secret;
use quota::anthropic::Anthropic;
use quota::credentials::{CredentialMap, StaticCredential};
use quota::{Account, Clock, Event, QuotaManager};
use quota_sim::Simulator;
use tokio::task::JoinSet;

use crate::cli::{DemoArgs, GlobalOptions};
use crate::exit::{CliError, Exit};
use crate::format::between;
use crate::runtime::{self, ShutdownSignal};
use crate::term::{self, Screen};

use self::consumer::Consumers;
use self::live::Live;
use self::plan::Plan;
use self::summary::Summary;

/// How often the display is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Runs the demo.
///
/// # Errors
///
/// [`CliError`] if no port is free, or the summary cannot be written.
pub(crate) fn run(options: &DemoArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    // Half the bits, because some languages read numbers of JSON as floats.
    let seed = options.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let plan = Plan::new(options.accounts.into(), options.consumers, options.seconds.into(), seed);
    let summary = runtime::run(play(plan, Live::new(global.json)))?;
    let screen = Screen::stdout();
    term::print(&if global.json { summary.json() } else { screen.show(&summary.lines(screen.width)) })?;
    Ok(Exit::Success)
}

/// Runs the plan to its end, or until Ctrl-C.
async fn play(plan: Plan, mut live: Live) -> Result<Summary, CliError> {
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
    let lasted = loop {
        let passed = between(started, clock.now());
        if passed >= plan.lasts {
            break passed;
        }
        if passed >= next_frame {
            next_frame = passed + FRAME;
            live.draw(&plan, &accounts, consumers.counters(), &simulator.ledger(), passed)?;
        }
        tokio::select! {
            () = signal.wait() => break passed,
            () = clock.sleep(next_frame.min(plan.lasts).saturating_sub(passed)) => {}
            Some(event) = events.next() => note(&mut live, &event, passed)?,
        }
    };
    consumers.stop().await;
    live.end()?;

    let peek_ns_p50 = bench::ns_p50(&accounts[0]);
    quota.close().await;
    let ledger = simulator.stop().await;
    Ok(Summary::new(&plan, lasted, consumers.counters(), &ledger, peek_ns_p50))
}

/// Reads every account once, because few consumers may leave some out.
async fn read_all_once(accounts: &[Account]) {
    let mut reads = JoinSet::new();
    for account in accounts {
        let account = account.clone();
        reads.spawn(async move { account.get().await.is_ok() });
    }
    // One that has no number yet gets it in the course of the demo.
    reads.join_all().await;
}

/// One manager for all consumers, which calls the simulated provider over HTTP.
fn manager(plan: &Plan, simulator: &Simulator) -> Result<QuotaManager, CliError> {
    let logins =
        plan.script.accounts().iter().zip(plan.ids()).fold(CredentialMap::new(), |logins, (account, id)| {
            logins.with(id, Arc::new(StaticCredential::new(Secret::new(account.token()))))
        });
    let broken = |why: String| CliError::new(Exit::OsErr, why);
    let fetcher = Anthropic::builder().base_url(simulator.url()).timeout(plan.policy.fetch_timeout);
    let fetcher = fetcher.build().map_err(|error| broken(error.to_string()))?;
    let store = quota::open_store("memory:").map_err(|error| broken(error.to_string()))?;
    let manager =
        QuotaManager::builder(store).provider(fetcher, logins).policy(plan.policy.clone()).name("quota demo");
    manager.build().map_err(|error| broken(error.to_string()))
}

/// Reports notable events.
fn note(live: &mut Live, event: &Event, passed: Duration) -> Result<(), CliError> {
    match event {
        Event::Failed { account, error, hold, .. } => live.failed(account, error, hold.as_ref(), passed),
        Event::Refreshed { account, .. } => live.answered(account, passed),
        _ => Ok(()),
    }
}
