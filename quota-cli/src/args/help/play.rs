//! The long help texts of the commands to try things with.
//! They are laid out for 80 columns, which is tested in `help`.

/// What `quota demo` does.
pub(in crate::args) const DEMO: &str = "\
Starts a simulated provider on this machine, with a main account and fallbacks, and lets many consumers read their quota \
through one manager, while windows fill, an account is throttled and a login expires.

Nothing has to be set up, and nothing leaves this machine. All times are scaled so that the demo passes fifty minutes.";

/// What its figures mean.
pub(in crate::args) const DEMO_MORE: &str = "\
The summary says how many calls were made, and how many the same consumers would have made if each kept its numbers to \
itself: a consumer alone calls when it reads an account of which it has no reading younger than `freshness`, every such call \
is taken to succeed, and nobody is held back by a 429. So it is a lower bound.

With --json the last line is one object:
  consumers, accounts, seconds, seed   what was played
  reads, stale_reads                   what consumers saw; stale by reason
  provider_calls                       by account, as the provider counted
  max_concurrent_per_account           most calls under way at once: 1
  calls_during_hold                    calls though told to stay away: 0
  throttled_answers                    how often the provider said 429
  naive_calls                          calls without coordination, as above
  peek_ns_p50                          a look at a number, ns, the median

Examples:
  quota demo
  quota demo --accounts 5 --consumers 100000 --seconds 30
  quota demo --seconds 2 --seed 7 --json";

/// What `quota parse` does.
pub(in crate::args) const PARSE: &str = "\
Shows as JSON what is understood of a saved answer of a provider, and what was left out, by name and reason. Nothing is \
repeated that is not understood, so the output can be shown to others when a shape has changed.";

/// What can be read.
pub(in crate::args) const PARSE_MORE: &str = "\
What can be read for anthropic: the answers of its usage and profile endpoints, ~/.claude.json, the input of a status \
line, a rate_limit_event; they are told apart by their keys. With --headers: header lines, which may begin with a status \
line such as HTTP/2 429.

A window of which only a verdict or nothing readable is known has used_percent null: neither 0 nor 100.

Examples:
  quota parse anthropic usage.json
  quota parse anthropic --headers headers.txt
  curl -sI https://example.com/v1/messages | quota parse anthropic --headers -

Exit codes: 65 the input is malformed, 66 it cannot be read.";

/// What `quota sim` does.
pub(in crate::args) const SIM: &str = "\
Runs a simulated provider on this machine until Ctrl-C or SIGTERM. It speaks like Anthropic's usage endpoint; its accounts \
and numbers are made up.

Standard output is a configuration that uses it; its first line says where it listens.";

/// How a script is written.
pub(in crate::args) const SIM_MORE: &str = "\
What it saw is at GET /ledger: calls by account, how many at once, and which came while they had been told to stay away.

A script says what happens:

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

Exit codes: 66 the script cannot be read, 69 the port is taken, 78 the script is broken.";
