//! Tests of a simulator over real loopback connections, with a minimal client that sets no timers.
//!
//! The clock is paused. It does not advance while bytes are in transit, because no task waits for a timer then.

mod answers;
mod calls;
mod client;
mod lifecycle;
mod messages;
mod time;
mod tokens;

use std::time::Duration;

use jiff::Timestamp;
use quota_sim::{Account, Answer, Phase, Script, Simulator};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The wall-clock time at the start of every test: 2026-09-21T14:13:20Z.
const START: Timestamp = Timestamp::constant(1_790_000_000, 0);

async fn start(script: Script) -> Simulator {
    Simulator::builder(script).starting_at(START).start().await.expect("the script is valid")
}

/// A simulator with this account.
async fn with(account: Account) -> Simulator {
    start(Script::new([account])).await
}

/// A simulator whose account `main` gives this answer.
async fn answering(answer: Answer) -> Simulator {
    with(Account::new("main").answers([Phase::new(answer)])).await
}
