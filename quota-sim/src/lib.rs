//! A simulated provider: scripted accounts, 429s with and without a deadline, and a ledger of the calls that it received.
//!
//! It shares no code with its clients, so it cannot share their bugs.
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
//! // Clients call `simulator.url()` with the token `sim-token-main`. The test can change the account while they do.
//! simulator.set("main", Change::answer(Answer::Unauthorized))?;
//!
//! let ledger = simulator.stop().await;
//! assert_eq!(ledger.calls_during_hold(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | endpoint | behavior |
//! |---|---|
//! | `GET /api/oauth/usage` | answers according to the script; requires the account's token and `anthropic-beta: oauth-2025-04-20` |
//! | `GET /backend-api/wham/usage` | the same for accounts of Codex, in its own form |
//! | `GET /api/monitor/usage/quota/limit` | the same for accounts of z.ai |
//! | `GET /coding/v1/usages` | the same for accounts of Kimi Code |
//! | `GET /v1/token_plan/remains` | the same for accounts of MiniMax |
//! | `POST /v1internal:retrieveUserQuota` | the same for accounts of Gemini CLI; `POST /v1internal:loadCodeAssist` names the project |
//! | `POST /v1internal:retrieveUserQuotaSummary` | the same for accounts of Antigravity |
//! | `GET /copilot_internal/user` | the same for accounts of GitHub Copilot |
//! | `GET /api/v1/key` | the same for accounts of OpenRouter |
//! | `GET /user/balance` | the same for accounts of DeepSeek, which have a balance and no windows |
//! | `GET /key/info` | the same for accounts of LiteLLM |
//! | `POST /aiserver.v1.DashboardService/GetCurrentPeriodUsage` | the same for accounts of Cursor |
//! | `GET /v1/billing` | the same for accounts of xAI Grok |
//! | `GET /api/oauth/profile` | returns the owner of the account |
//! | `POST /v1/messages` | adds the `cost` of a body such as `{"cost": 0.5}` to the five-hour window, in percent, and answers with rate-limit headers |
//! | `GET /oauth/authorize` | redirects to `redirect_uri` with a code for the account in `login_hint`, or the first one; the client is `sim-client`, and PKCE with S256 is required |
//! | `POST /v1/oauth/token` | exchanges a code, or a refresh token of the client `sim-client`, as JSON or as a form; each works once, and the reuse of a refresh token revokes the login |
//! | `GET /ledger` | the [`Ledger`] as JSON |
//!
//! All time comes from tokio's clock, so in a runtime that was started paused the simulation takes no real time. A paused clock
//! advances to the next timer whenever all tasks wait for the network. So a test on a paused clock must set no timeout in its
//! client and no latency in its accounts.

mod account_sim;
mod authorization;
mod budget;
mod change;
mod clock;
mod ledger;
mod provider;
mod recorder;
mod routes;
mod script;
mod server;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod window_sim;
mod wire;

pub use change::{Change, ChangeError};
pub use ledger::{AccountLedger, Ledger};
pub use script::{Account, Answer, BudgetAnswer, ExtraUsage, Phase, Script, ScriptError, Window};
/// The providers that can be simulated, as scripts name them.
#[must_use]
pub fn providers() -> &'static [&'static str] {
    &script::PROVIDERS
}

pub use server::{Simulator, SimulatorBuilder, StartError};
#[cfg(feature = "tls")]
pub use tls::TlsFront;
