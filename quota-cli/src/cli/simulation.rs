//! The arguments of the commands that need no account: `quota demo`, `quota parse` and `quota sim`.

use std::path::PathBuf;

use clap::Args;

/// Run a simulation that shows what quota does
///
/// Starts a simulated provider on this machine, with a main account and fallbacks. Many consumers read their quota through one manager,
/// while windows fill, an account is rate limited and a login expires.
///
/// It needs no setup, and nothing leaves this machine. Times are scaled: a demo simulates fifty minutes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The summary compares the calls that were made with those of the same consumers without quota. A consumer without quota calls when it \
reads an account and its own reading is older than `max_age`. Each such call is assumed to succeed, and no consumer backs off after \
a 429. So it is a lower bound.

With --json the last line is one object:
  consumers, accounts, seconds, seed   the parameters
  reads, stale_reads                   reads by all consumers; stale by reason
  provider_calls                       by account, as the provider counted
  max_concurrent_per_account           most calls in flight at once: 1
  calls_during_hold                    calls sent during backoff: 0
  throttled_answers                    responses with status 429
  naive_calls                          calls without quota, as above
  peek_ns_p50                          median read latency in ns

Examples:
  quota demo
  quota demo --accounts 5 --consumers 100000 --seconds 30
  quota demo --seconds 2 --seed 7 --json")]
pub(crate) struct DemoArgs {
    /// Simulate this many accounts: a main one and fallbacks
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) accounts: u8,
    /// Read with this many consumers at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) consumers: u32,
    /// Run for this many seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Replay the run with this seed [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Show what quota reads from a saved response of a provider
///
/// Prints as JSON what was parsed, and what was ignored, by name and reason. Values that were not parsed are not repeated, so the output
/// can be shared when a response has changed its shape.
#[derive(Debug, Args)]
#[command(after_help = "\
Input for anthropic: responses of its usage and profile endpoints, ~/.claude.json, the input of a status line, a rate_limit_event; \
their keys tell them apart. With --headers: header lines, optionally after a status line such as HTTP/2 429.

A window with only a status, or with nothing readable, has used_percent null: neither 0 nor 100.

Examples:
  quota parse anthropic usage.json
  quota parse anthropic --headers headers.txt
  curl -sI https://example.com/v1/messages | quota parse anthropic --headers -

Exit codes: 64 usage error, 65 malformed input, 66 unreadable input.")]
pub(crate) struct ParseArgs {
    /// Provider
    pub(crate) provider: Provider,
    /// Saved response; - for standard input
    pub(crate) file: PathBuf,
    /// Read headers, one per line
    #[arg(long)]
    pub(crate) headers: bool,
}

/// A provider whose responses can be read.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Provider {
    /// Claude
    Anthropic,
}

/// Run a simulated provider on this machine
///
/// It runs until Ctrl-C or SIGTERM and answers like Anthropic's usage endpoint. Its accounts and numbers are made up.
///
/// Prints a configuration for it; the first line names the address.
#[derive(Debug, Args)]
#[command(after_long_help = "\
GET /ledger reports the calls: by account, how many at once, and which came during a backoff.

A script defines the accounts and their responses:

  speed = 60                      # a minute of script in a second
  [[accounts]]
  name = \"main\"
  budget = 30                     # calls in any hour; \"none\" for no limit
  budget_answer = \"deadline\"      # or \"zero\": the two kinds of 429
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

Exit codes: 64 usage error, 66 the script cannot be read, 69 the port is in use, 78 invalid script.")]
pub(crate) struct SimArgs {
    /// Listen on this port [default: a free one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Run this script, in TOML; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}
