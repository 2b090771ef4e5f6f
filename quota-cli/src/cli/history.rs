//! The arguments of the commands that show what the store holds of the past: `quota pace`, `quota budget` and `quota events`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// Show how fast windows are used, and when they run out
///
/// Shows for each window how much is used, how much of its time has elapsed, how fast it is used, how much that makes at the reset, and
/// when it runs out at this rate.
///
/// No provider is called. The samples of the last 35 days come from the store, where other commands save them. If they are too few for a
/// trend, the average since the window began is shown, and labeled so.
#[derive(Debug, Args)]
#[command(after_help = "\
The trend is the median slope of all pairs of samples (Theil-Sen) in the last fifth of the present period, at least half an hour \
and at most a day: one odd reading does not bend it. It needs three samples over half of that time. The average needs one reading, \
after a twentieth of the window. If the provider lowers a use within its period, both start again from there.

docs/pace-json.md describes the JSON.

Examples:
  quota pace
  quota pace --plot --window seven_day
  quota pace --svg pace.svg --account anthropic/main

Exit codes: 0 all windows have a rate, 1 some have none, 3 no account was found, 69 store unavailable, 74 write error, 78 invalid \
configuration.")]
pub(crate) struct PaceArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Limit to this window, such as five_hour
    #[arg(long, value_name = "WINDOW", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) window: Option<String>,
    /// Plot each window's period
    #[arg(long, conflicts_with = "json")]
    pub(crate) plot: bool,
    /// Write a drawing to this file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Show the calls of the last hour to each provider, and when the next is allowed
///
/// The calls of all processes and hosts that share the store count together. No provider is called.
#[derive(Debug, Args)]
#[command(after_help = "\
`budget` in [policy] of the configuration says how many are allowed: per_hour calls, `interactive_reserve` of them for interactive callers.

docs/budget-json.md describes the JSON.

Examples:
  quota budget
  quota budget --json --store redis://10.0.0.1:6379

Exit codes: 0 shown, 1 a record is damaged, 3 no account was found, 69 store unavailable, 78 invalid configuration.")]
pub(crate) struct BudgetArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
}

/// Show past events: resets, thresholds, holds, failures, logins
///
/// Shows the events of all accounts, oldest first: refreshed, throttled, held, hold_ended, reset, threshold, login_changed, failing. They
/// come from the store, whichever process found them. No provider is called.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json each line is one object, which docs/events.md describes.

Hooks in the configuration run once for each event, among all processes that share the store:

  [[hooks]]
  on = [\"threshold\", \"failing\"]   # any of the words above
  thresholds = [80, 95]             # besides 50, 75, 90 and 100; optional
  accounts = [\"anthropic/main\"]     # optional, and so is: windows = [...]
  run = [\"notify-send\", \"quota\"]    # gets the event as JSON on its input
  # post = \"https://example.com/x\"  # instead of run: gets it as its body
  # timeout = \"10s\"

Examples:
  quota events -n 10
  quota events --follow --json | jq 'select(.kind == \"threshold\")'

Exit codes: 0 shown, 3 no account was found, 69 store unavailable, 78 invalid configuration, 128 and the number of the signal that \
ended it (130 Ctrl-C).")]
pub(crate) struct EventsArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Keep printing new events, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show this many of the last events
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}
