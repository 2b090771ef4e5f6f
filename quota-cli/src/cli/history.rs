//! The arguments of the commands that show past data from the store: `quota pace`, `quota budget` and `quota events`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// Show how fast windows are being used, and when they run out
///
/// For each window, it shows how much is used, how much time has elapsed, the rate, the projected usage at the reset, and when
/// the window runs out at this rate.
///
/// It makes no provider calls. It reads the samples of the last 35 days, which other commands have saved in the store. If there are
/// too few samples for a trend, it shows the average since the window began, and labels it as such.
#[derive(Debug, Args)]
#[command(after_help = "\
The trend is the median slope of all pairs of samples (Theil-Sen), so that one outlier does not change it. It covers the last fifth of \
the current period, but at least 30 minutes and at most a day. It needs three samples that span half of that time. The average needs \
one reading after a twentieth of the window has elapsed. If the reported usage drops within a period, the trend and the average start \
over from that point.

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
    /// Plot the current period of each window
    #[arg(long, conflicts_with = "json")]
    pub(crate) plot: bool,
    /// Write an SVG chart to this file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Show the calls of the last hour for each account, and when the next call is allowed
///
/// Calls from all processes and hosts that share the store count against the same budget. This command makes no provider calls.
#[derive(Debug, Args)]
#[command(after_help = "\
`budget` in [policy] of the configuration sets the limits: `per_hour` calls, of which `interactive_reserve` are reserved for interactive \
callers.

docs/budget-json.md describes the JSON.

Examples:
  quota budget
  quota budget --json --store redis://10.0.0.1:6379

Exit codes: 0 success, 1 a record is damaged, 3 no account was found, 69 store unavailable, 78 invalid configuration.")]
pub(crate) struct BudgetArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
}

/// Show past events: resets, thresholds, holds, failures, logins
///
/// Shows the events that all processes recorded in the store, oldest first. The event kinds are refreshed, throttled, held,
/// hold_ended, reset, threshold, login_changed and failing. This command makes no provider calls.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json, each line is one object. docs/events.md describes it.

A hook in the configuration runs at most once per event, in one of the processes that share the store:

  [[hooks]]
  on = [\"threshold\", \"failing\"]     # event kinds
  thresholds = [80, 95]             # optional, in addition to 50, 75, 90, 100
  accounts = [\"anthropic/main\"]     # optional; so is windows = [...]
  run = [\"notify-send\", \"quota\"]    # reads the event as JSON on stdin
  # post = \"https://example.com/x\"  # instead of run: the event is the body
  # timeout = \"10s\"

Examples:
  quota events -n 10
  quota events --follow --json | jq 'select(.kind == \"threshold\")'

Exit codes: 0 success, 3 no account was found, 69 store unavailable, 78 invalid configuration; after a signal 128 plus its number (130 \
for Ctrl-C).")]
pub(crate) struct EventsArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Keep printing new events until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show this many of the latest events
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}
