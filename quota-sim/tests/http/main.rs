//! A simulator over real loopback connections, by a client of a few lines and no timers.
//!
//! Time is paused: nothing leaps while bytes are on their way, because nothing here waits for a clock meanwhile.

mod answers;
mod calls;
mod client;
mod lifecycle;
mod time;
mod tokens;
mod traffic;

use std::time::Duration;

use jiff::Timestamp;
use quota_sim::{Account, Answer, Phase, Script, Simulator};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What the wall clock says at the start of every test: 2026-09-21T14:13:20Z.
const START: Timestamp = Timestamp::constant(1_790_000_000, 0);

async fn play(script: Script) -> Simulator {
    Simulator::builder(script).starting_at(START).start().await.expect("the script is sound")
}

/// A simulator with this account only.
async fn with(account: Account) -> Simulator {
    play(Script::new([account])).await
}

/// A simulator whose account `main` answers like this.
async fn answering(answer: Answer) -> Simulator {
    with(Account::new("main").answers([Phase::new(answer)])).await
}
