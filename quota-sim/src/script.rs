//! The settings of a simulated provider, from code or TOML. `account_sim` applies them over time.

mod account;
pub(crate) mod check;
mod client_config;
mod parse;
mod phase;
mod window;

use std::time::Duration;

use serde::Deserialize;
use url::Url;

pub(crate) use account::PROVIDERS;
pub use account::{Account, BudgetAnswer, ExtraUsage};
pub use parse::ScriptError;
pub(crate) use phase::Endpoint;
pub use phase::{Answer, Phase};
pub(crate) use window::Kind;
pub use window::Window;

/// The accounts of a provider, and how they change over time.
///
/// ```
/// use quota_sim::Script;
///
/// let script = Script::from_toml(
///     r#"
///     speed = 60                      # one simulated minute per second
///
///     [[accounts]]
///     name = "main"
///     plan = "claude_max"
///     latency = "50ms"                # in real time
///     budget = 30                     # calls in any hour; "none" for no limit
///     budget_answer = "deadline"      # or "zero": the two kinds of 429
///
///     [[accounts.windows]]
///     id = "five_hour"
///     used = 62.5
///     growth_per_hour = 20
///     resets_in = "2h 10m"
///
///     [[accounts.windows]]
///     id = "seven_day"
///     model = "Fable"
///     used = 18
///
///     [[accounts.answers]]
///     from = "5m"
///     until = "20m"
///     answer = "throttle_until_end"
///
///     [[accounts.answers]]
///     on = "messages"                 # applies to messages instead of the usage endpoint
///     from = "1h"
///     until = "1h 5m"
///     answer = "overloaded"
///     "#,
/// )?;
/// # Ok::<(), quota_sim::ScriptError>(())
/// ```
///
/// Every duration except `latency` is in simulated time. At speed 60 the first phase above starts after five real seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default = "real_time")]
    pub(crate) speed: f64,
    pub(crate) accounts: Vec<Account>,
}

fn real_time() -> f64 {
    1.0
}

impl Script {
    /// Creates a script with these accounts, in real time.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self { speed: real_time(), accounts: accounts.into_iter().collect() }
    }

    /// Sets how many times faster than real time the script runs, from 0.001 to 1,000,000.
    #[must_use]
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }

    /// The accounts, in order.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Parses a script.
    ///
    /// # Errors
    ///
    /// [`ScriptError`], with line and column, if the text is not TOML, has an unknown key or an invalid value, or is contradictory.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        parse::script(text)
    }

    /// Writes a `config.toml` that makes the program `quota` use a simulator of this script at `url`.
    ///
    /// The program reads the tokens from environment variables. A comment in the file has the lines that export them.
    #[must_use]
    pub fn client_config(&self, url: &Url) -> String {
        client_config::write(&self.accounts, url)
    }
}

impl Default for Script {
    /// A partly used main account and two fallbacks, one of them unused.
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self::new([
            Account::new("main").windows([
                Window::five_hour().used(62.0).growth_per_hour(20.0).resets_in(hours(2)),
                Window::seven_day().used(41.0).growth_per_hour(0.6).resets_in(hours(70)),
                Window::model("Fable").used(18.0).growth_per_hour(0.3).resets_in(hours(70)),
            ]),
            Account::new("fallback-1").windows([
                Window::five_hour().used(8.0).growth_per_hour(5.0).resets_in(hours(4)),
                Window::seven_day().used(22.0).growth_per_hour(0.2).resets_in(hours(110)),
            ]),
            Account::new("fallback-2")
                .windows([Window::five_hour(), Window::seven_day().used(3.0).resets_in(hours(30))]),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_main_and_two_fallbacks() {
        let script = Script::default();

        let names: Vec<_> = script.accounts().iter().map(Account::name).collect();

        assert_eq!(names, ["main", "fallback-1", "fallback-2"]);
        assert_eq!(check::script(&script), Ok(()));
    }
}
