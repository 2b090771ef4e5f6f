//! The arguments of the commands that need no account: `quota demo`, `quota parse` and `quota sim`.

use std::path::{Path, PathBuf};

use clap::Args;
use quota::http::{Provider, find_provider};

/// Run a simulation that shows what quota does
///
/// Starts a simulated provider on this machine, with a main account and fallbacks. Many consumers read usage through one manager
/// while windows fill up, an account is rate limited and a login expires.
///
/// It needs no setup, and sends nothing to other machines. Time runs faster: a demo simulates fifty minutes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The summary compares the number of calls with the number that the same consumers would make without quota. Without quota, a consumer \
would call the provider whenever it reads an account and its own reading is older than `max_age`. The comparison assumes that each of \
these calls succeeds, so the number without quota is a lower bound.

With --json, the last line is one object:
  consumers, accounts, seconds, seed   the parameters
  reads, stale_reads                   reads by all consumers; stale by reason
  provider_calls                       by account, as counted by the provider
  max_concurrent_per_account           most concurrent calls at any time: 1
  calls_during_hold                    calls sent during backoff: 0
  throttled_answers                    responses with status 429
  naive_calls                          calls without quota, as above
  peek_ns_p50                          median read latency in ns

Examples:
  quota demo
  quota demo --accounts 5 --consumers 100000 --seconds 30
  quota demo --provider codex
  quota demo --provider all --accounts 6
  quota demo --seconds 2 --seed 7 --json")]
pub(crate) struct DemoArgs {
    /// Simulate this many accounts: a main account and fallbacks
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) accounts: u8,
    /// Simulate accounts of these providers in turn; `all` means every provider that can be simulated
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "anthropic", value_parser = simulated)]
    pub(crate) provider: Vec<Simulated>,
    /// Run this many concurrent consumers
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) consumers: u32,
    /// Run for this many seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Replay the run with this seed [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Show what quota reads from a saved provider response
///
/// Prints the parsed values as JSON, with the name of each skipped field and the reason. It does not print the values of skipped
/// fields, so you can share the output if the provider has changed its response format.
#[derive(Debug, Args)]
#[command(after_help = "\
Input: a response from the provider's usage endpoint. Input for anthropic may also be a response from the profile endpoint, \
~/.claude.json, the input of a status line, or a rate_limit_event; for codex, the rate limits in a session file. quota detects the kind \
by its keys. With --headers: header lines, optionally after a status line such as HTTP/2 429.

If a window has only a status, or no readable value, its used_percent is null: neither 0 nor 100.

Examples:
  quota parse anthropic usage.json
  quota parse codex usage.json
  quota parse --provider my-gateway usage.json    # defined by [[providers]] in the configuration
  quota parse anthropic --headers headers.txt
  curl -sI https://example.com/v1/messages | quota parse anthropic --headers -

Exit codes: 0 success, 64 usage error, 65 malformed input, 66 unreadable input.")]
pub(crate) struct ParseArgs {
    /// Provider (run `quota providers` for a list)
    #[arg(value_name = "PROVIDER", required_unless_present = "provider_option")]
    provider: Option<String>,
    /// Saved response, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "provider_option")]
    file: Option<PathBuf>,
    /// Provider, including those that the configuration defines (then give only FILE)
    #[arg(long = "provider", value_name = "PROVIDER", id = "provider_option")]
    named: Option<String>,
    /// Read HTTP headers, one per line
    #[arg(long)]
    pub(crate) headers: bool,
}

impl ParseArgs {
    /// The name of the provider, and the file.
    ///
    /// # Errors
    ///
    /// What to write instead, if one of them is missing or given twice.
    pub(crate) fn provider_and_file(&self) -> Result<(&str, &Path), &'static str> {
        match (&self.named, &self.provider, &self.file) {
            (Some(provider), Some(file), None) => Ok((provider, Path::new(file))),
            (None, Some(provider), Some(file)) => Ok((provider, file)),
            (Some(_), Some(_), Some(_)) => Err("the provider is given twice; remove one of them"),
            _ => Err("the file is missing; write - for standard input"),
        }
    }
}

/// A choice of `quota demo --provider`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Simulated {
    All,
    One(&'static Provider),
}

/// Parses the name of a provider that can be simulated.
fn simulated(name: &str) -> Result<Simulated, String> {
    if name == "all" {
        return Ok(Simulated::All);
    }
    let known = quota_sim::providers();
    let found = find_provider(name).filter(|provider| known.contains(&provider.id_str()));
    found.map(Simulated::One).ok_or_else(|| format!("expected all or one of {}", known.join(", ")))
}

/// Run a simulated provider on this machine
///
/// Runs until Ctrl-C or SIGTERM, and answers like the usage endpoints of the providers. Its accounts and their usage are
/// fictitious.
///
/// It prints a configuration for these accounts. The first line contains the address of the provider.
#[derive(Debug, Args)]
#[command(after_long_help = "\
GET /ledger reports the calls by account, the highest number of concurrent calls, and the calls sent during a backoff.

A script defines the accounts and their responses:

  speed = 60                      # one real second is a minute of the script
  [[accounts]]
  name = \"main\"
  provider = \"openai\"           # default: anthropic
  budget = 30                     # calls in any hour; \"none\" for no limit
  budget_answer = \"deadline\"      # or \"zero\": the Retry-After of a 429
  [[accounts.windows]]
  id = \"five_hour\"
  used = 62.5
  growth_per_hour = 20
  [[accounts.answers]]
  from = \"5m\"
  until = \"20m\"
  answer = \"throttle_until_end\"   # or throttle_zero, unauthorized, hang, ...

Examples:
  quota sim
  quota sim --port 8123 --script outage.toml
  quota sim > sim.toml &
  eval \"$(sed -n 's/^# *export/export/p' sim.toml)\"
  quota status --config sim.toml

Exit codes: 64 usage error, 66 unreadable script, 69 the port is in use, 78 invalid script.")]
pub(crate) struct SimArgs {
    /// Listen on this port [default: any free port]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Run this TOML script; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}
