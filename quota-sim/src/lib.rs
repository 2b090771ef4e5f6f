//! A simulated provider to run: scripted accounts, both kinds of 429, and a ledger of the calls it received.
//!
//! It plays the provider and shares no code with its clients, so that it cannot share their mistakes.
//!
//! ```
//! use std::time::Duration;
//! use quota_sim::{Account, Answer, Change, Phase, Script, Simulator, Window};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let main = Account::new("main")
//!     .windows([Window::five_hour().used(62.0).growth_per_hour(20.0), Window::seven_day().used(41.0)])
//!     .answers([Phase::new(Answer::ThrottleUntilEnd)
//!         .from(Duration::from_secs(300))
//!         .until(Duration::from_secs(900))]);
//! let simulator = Simulator::builder(Script::new([main]).speed(60.0)).start().await?;
//!
//! // Clients call `simulator.url()` with the token `sim-token-main`. Meanwhile the test can change the account:
//! simulator.set("main", Change::answer(Answer::Unauthorized))?;
//!
//! let ledger = simulator.stop().await;
//! assert_eq!(ledger.calls_during_hold(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | endpoint | behaviour |
//! |---|---|
//! | `GET /api/oauth/usage` | answers according to the script; needs the account's token and `anthropic-beta: oauth-2025-04-20` |
//! | `GET /api/oauth/profile` | returns the owner of the account |
//! | `POST /v1/messages` | uses `{"cost": 0.5}` percent of the five-hour window and answers with rate-limit headers |
//! | `POST /v1/oauth/token` | exchanges a refresh token of the client `sim-client`; each works once, and reuse revokes its login |
//! | `GET /ledger` | the [`Ledger`] as JSON |
//!
//! All time is tokio's clock, so nothing takes real time in a runtime that was started paused. A paused clock advances to the
//! next timer whenever all tasks wait for the network. So a test on a paused clock gives its client no timeout and its accounts
//! no latency.

mod account_sim;
mod budget;
mod change;
mod clock;
mod ledger;
mod provider;
mod recorder;
mod routes;
mod script;
mod server;
mod tokens;
mod window_sim;
mod wire;

pub use change::{Change, ChangeError};
pub use ledger::{AccountLedger, Ledger};
pub use script::{Account, Answer, BudgetAnswer, ExtraUsage, Phase, Script, ScriptError, Window};
pub use server::{Simulator, SimulatorBuilder, StartError};
