//! A usage endpoint that can be run: scripted accounts, both kinds of 429, and a ledger of what it saw.
//!
//! It is the other side: it plays the provider in the provider's own words and shares no code with the programs that ask
//! it, so that a misunderstanding of theirs is not one of its own.
//!
//! ```
//! use std::time::Duration;
//! use quota_sim::{Account, Answer, Change, Phase, Script, Simulator, Window};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let main = Account::new("main")
//!     .windows([Window::five_hour().used(62.0).fills_per_hour(20.0), Window::seven_day().used(41.0)])
//!     .answers([Phase::new(Answer::ThrottleUntilEnd)
//!         .from(Duration::from_secs(300))
//!         .until(Duration::from_secs(900))]);
//! let simulator = Simulator::builder(Script::new([main]).speed(60.0)).start().await?;
//!
//! // Clients ask `simulator.url()` with the token `sim-token-main`; at the same time:
//! simulator.set("main", Change::answer(Answer::Unauthorized))?;
//!
//! let ledger = simulator.stop().await;
//! assert_eq!(ledger.calls_during_hold(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | endpoint | what it does |
//! |---|---|
//! | `GET /api/oauth/usage` | answers as the script says; needs the account's token and `anthropic-beta: oauth-2025-04-20` |
//! | `GET /api/oauth/profile` | says whose account it is |
//! | `POST /v1/messages` | uses `{"cost": 0.5}` percent of the five-hour window and answers with rate-limit headers |
//! | `POST /v1/oauth/token` | exchanges a refresh token for the client `sim-client`; each works once, and one that comes again ends its login |
//! | `GET /ledger` | the [`Ledger`] as JSON |
//!
//! All waiting and counting goes by tokio's clock: in a runtime that was started paused nothing takes time. Such a clock
//! leaps to the next timer whenever only the network is waited for, so a test on a paused clock gives its client no
//! time-out and its accounts no latency.

mod book;
mod budget;
mod change;
mod clock;
mod grants;
mod ledger;
mod meter;
mod provider;
mod routes;
mod running;
mod script;
mod server;
mod wire;

pub use change::{Change, ChangeError};
pub use ledger::{AccountLedger, Ledger};
pub use script::{Account, Answer, BudgetAnswer, ExtraUsage, Phase, Script, ScriptError, Window};
pub use server::{Simulator, SimulatorBuilder, StartError};
