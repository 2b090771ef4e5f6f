//! The long help texts of the commands that show what the journals hold.
//! They are laid out for 80 columns, which is tested in `help`.

/// What `quota pace` does.
pub(in crate::args) const PACE: &str = "\
Shows for each window how much is used, how much of its time has passed, how fast it is used, what that comes to at the \
reset, and when it runs out at this rate.

No provider is called: it reads the samples that other commands have left in the store over 35 days. Where they are too few for a \
trend, it shows the average since the window began, and says so.";

/// How a rate is found.
pub(in crate::args) const PACE_MORE: &str = "\
The trend is the median of the slopes between all pairs of samples of the present period, of its last fifth, at least half \
an hour and at most a day of it (Theil-Sen): a single odd reading does not bend it. It takes three samples that span half \
of that. The average takes one reading, once a twentieth of the window has passed. If the provider lowers a use within \
its period, both count from there.

The shape of --json is told in docs/pace-json.md.

Examples:
  quota pace
  quota pace --plot --window seven_day
  quota pace --svg pace.svg --account anthropic/main

Exit codes: 0 all windows have a rate, 1 some have none, 3 no account was found, 69 the store is not to be had, 78 the \
configuration is broken.";

/// What `quota budget` does.
pub(in crate::args) const BUDGET: &str = "\
Shows for each account how many calls to its provider were made in the last hour, by whom, how many are allowed, and when \
the next one may be made. Nobody is asked.

The calls of all processes and hosts that share the store are counted together.";

/// How to read it.
pub(in crate::args) const BUDGET_MORE: &str = "\
How many are allowed is `budget` in [policy] of the configuration: per_hour calls, of which `reserve` are left to callers \
that somebody waits for. The shape of --json is told in docs/budget-json.md.

Examples:
  quota budget
  quota --store redis://10.0.0.1:6379 budget --json

Exit codes: 0 it was shown, 1 a record is damaged, 3 no account was found, 69 the store is not to be had, 78 the configuration is broken.";

/// What `quota events` does.
pub(in crate::args) const EVENTS: &str = "\
Shows what happened to the accounts, oldest first: refreshed, throttled, held, hold_ended, reset, threshold, login_changed, \
failing. It stands in the store, whoever found it out, and nobody is asked for it.";

/// What can be done about it.
pub(in crate::args) const EVENTS_MORE: &str = "\
With --json each line is one object; its shape is told in docs/events.md.

Hooks in the configuration do something about it, once for each event among all processes that share the store:

  [[hooks]]
  on = [\"threshold\", \"failing\"]   # any of the words above
  thresholds = [80, 95]             # besides 50, 75, 90 and 100; optional
  accounts = [\"anthropic/main\"]     # optional, and so is: windows = [...]
  run = [\"notify-send\", \"quota\"]    # gets the event as JSON on its input
  # post = \"https://example.com/x\"  # or so; it gets the same as its body
  # timeout = \"10s\"

Examples:
  quota events -n 10
  quota events --follow --json | jq 'select(.kind == \"threshold\")'

Exit codes: 0 it was shown, 3 no account was found, 69 the store is not to be had, 78 the configuration is broken, 128 and the \
signal's number if one ended it (130 Ctrl-C).";
