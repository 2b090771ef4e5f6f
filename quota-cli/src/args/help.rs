//! The long help texts. They are laid out for 80 columns.
//! The options themselves are told where they are defined, in `args`.

/// What follows the list of commands.
pub(super) const PROGRAM_MORE: &str = "\
Examples:
  quota status    the windows of every account
  quota statusline   one line, at once, for a prompt or a bar
  quota guard     whether enough is left, for scripts
  quota pace      how fast they are used, and when they are used up
  quota events    what happened
  quota doctor    whether everything is as it should be
  quota demo      what this is for, in ten seconds, without any account
  quota sim       a simulated provider to try things on

Exit codes: 0 all went well, 1 some account has no number, 3 no account was found, 64 the command line was not understood, \
65 malformed input, 66 unreadable input, 78 broken configuration.";

/// What `quota doctor` does.
pub(super) const DOCTOR: &str = "\
Looks at the configuration, the store, the logins and who may read them, the clocks, and whether the providers can be \
reached; and says of each finding what to do. Nothing is mended, nothing secret is shown, and no usage is asked for: of a \
provider it is only seen whether its host answers. To see that the store can be written, a note is left in it for a minute.

Exit codes: 0 all is well, 1 there is a finding.";

/// What `quota init` does.
pub(super) const INIT: &str = "\
Looks for logins of Claude Code and for tokens in the environment, and writes a configuration that names where they are, \
with comments on what else it may say. No token is written down.

One that is there is written over only if you say so, at the terminal or with --force; it is then kept beside the new one.

Exit codes: 0 it is written, 1 you said no, 64 there is one already and nobody to ask, 74 it could not be written.";

/// What `quota status` does.
pub(super) const STATUS: &str = "\
Shows how much of each account's windows is used, when they reset, how old the numbers are and how certain.

Each account is asked about once; accounts of one provider one after the other, a second apart (`gap` in [policy]). \
After 30 seconds whatever has no answer yet is shown without one.";

/// How to read it, and how accounts are named.
pub(super) const STATUS_MORE: &str = "\
Reading it:
  62 %       so much was used when the provider was asked, a moment ago
  ≥ 62 %     at least so much: the reading is old, and use only grows
  unknown    nothing is known, as after a reset: neither 0 nor 100 %
  ──┼──      the tick is where the window's time stands: a bar that is beyond
             it is faster than time

Accounts are named in $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml):

  [[accounts]]
  id = \"anthropic/main\"       # without more: Claude Code's login, only read

  [[accounts]]
  id = \"anthropic/work\"       # its login is in one of these:
  claude_config_dir = \"~/.claude-work\"  # another place of Claude Code's
  # token_env = \"QUOTA_WORK\"            # an environment variable
  # token_file = \"work.token\"           # a file of its own, chmod 600
  # A proxy or `quota sim`; plain http goes to this machine only:
  # base_url = \"http://127.0.0.1:8123\"

  [providers.anthropic]        # optional, for all its accounts
  # base_url, user_agent

  [policy]                     # optional; some of it, with its defaults:
  # freshness = \"5m\"
  # gap = \"1s\"
  # budget = { per_hour = 28, reserve = 6 }

What is asked is shared with all processes of this user in a file, $XDG_STATE_HOME/quota/quota.db
(~/.local/state/quota/quota.db), unless --store or QUOTA_STORE names another store.

Without that configuration it looks for a login of Claude Code where that program keeps it, and only reads it.

Colours are used at a terminal, unless NO_COLOR is set. --json is for programs; \
its shape is in docs/status-json.md.

Examples:
  quota status
  quota status --json | jq '.accounts[].windows[] | {id, used_percent}'
  quota status --offline      # nobody is asked
  quota status --refresh      # all are asked, except where the rules forbid it
  quota status --config ./other.toml
  quota --store redis://10.0.0.1:6379 status   # shared with other hosts
  quota --store memory: status                 # shared with nobody
  QUOTA_STORE=redis://me:secret@10.0.0.1 quota status

Exit codes: 0 all accounts have numbers, 1 some have none, 3 no account was found, 66 the file given by --config cannot be \
read, 78 the configuration or the store cannot be used.";

/// What `quota statusline` does.
pub(super) const STATUSLINE: &str = "\
Shows one line from the store, at once. If its numbers are old they are marked, and a process of its own asks the provider, if \
the rules allow: of any number of statuslines one starts it.

If Claude Code's JSON for status lines is on standard input, its model is shown, and its rate limits are shared with all who use \
the store, if it can be told to which account they belong and they say more than is known.";

/// What can stand in the line.
pub(super) const STATUSLINE_MORE: &str = "\
Placeholders of --format:
  {account} {plan}            whose numbers they are
  {state} {stale} {age}       fresh or stale; `stale 12min` or nothing; 12min
  {model} {dir} {cost}        of the session on standard input, if there is one
  {five_hour.used}            62%, ≥62% for a lower bound, ? if not known
  {five_hour.left}            the same turned around
  {five_hour.bar}             as a bar of ten characters
  {five_hour.resets_in}       2h10min
  {five_hour.resets_at}       14:05
  {five_hour.certainty}       exact, at_least, unknown
  {{ }}                       the characters { and }
In place of five_hour any window: seven_day, seven_day/opus, ...

In ~/.claude/settings.json:
  \"statusLine\": { \"type\": \"command\", \"command\": \"quota statusline\" }
In ~/.tmux.conf:
  set -g status-right '#(quota statusline --preset tmux)'
In Waybar:
  \"custom/quota\": { \"exec\": \"quota statusline --preset waybar\",
                    \"return-type\": \"json\", \"interval\": 10 }

Examples:
  quota statusline
  quota statusline --format '{model} 5h {five_hour.used} {stale}'
  quota statusline --account work --preset powerline

With --json it writes the document of quota status, with one account.

Exit codes: 0 a line was written, 64 the format or the account is not understood, 66 the file given by --config cannot be read, \
78 the configuration or the store cannot be used.";

/// What `quota guard` does.
pub(super) const GUARD: &str = "\
Says by its exit code whether enough is left of an account to begin something. Old numbers are refreshed first, if the rules \
allow; one that stays old can say no, and not yes. Without --window all windows of the whole account count, and with --model those \
of that model.

With --wait it waits until enough is left: it looks again when another process has shared something, when a window has reset, and \
asks the provider no more often than anybody else would.";

/// How it is used.
pub(super) const GUARD_MORE: &str = "\
Examples:
  quota guard && claude -p 'fix the tests'
  quota guard --min-remaining 20 --window five_hour || echo later
  quota guard --account work --model opus --wait --timeout 2h && ./nightly
  quota guard --json | jq .left_percent

The shape of --json is in docs/guard-json.md.

Exit codes: 0 go on, 1 too little is left, 64 the command line was not understood, 66 the file given by --config cannot be read, \
69 it cannot be told, 78 the configuration or the store cannot be used.";

/// What `quota watch` does.
pub(super) const WATCH: &str = "\
Shows all accounts live: windows with a tick where their time stands, how old and how certain the numbers are, holds, the \
next look, and a log of what happened. It keeps the numbers fresh by the same rules and the same budget as everything else \
that uses the store.

Keys: arrows choose, r refreshes one account, R all, s changes the order, / filters, ? helps, q leaves; Ctrl-Z stops it until fg.

For programs there is quota events --follow --json.

Exit codes: 0 left by q or Esc, 130 by Ctrl-C, 143 and 129 ended by SIGTERM and SIGHUP, 64 without a terminal.";

/// What `quota pace` does.
pub(super) const PACE: &str = "\
Shows for each window how much is used, how much of its time has gone, how fast it is used now, what that comes to at the \
reset, and when all is used at this rate.

Nobody is asked: it reads the samples that other commands have left in the store over 35 days. Where there are too few it \
says \"not enough history\" and guesses nothing.";

/// How a rate is found.
pub(super) const PACE_MORE: &str = "\
The rate is the median of the slopes between all pairs of samples of the present period, of its last fifth, at least half \
an hour and at most a day of it (Theil-Sen): a single odd reading does not bend it. It takes three samples that span half \
of that.

The shape of --json is told in docs/pace-json.md.

Examples:
  quota pace
  quota pace --plot --window seven_day
  quota pace --svg pace.svg --account anthropic/main

Exit codes: 0 all windows have a rate, 1 some have none, 3 no account was found, 69 the store is not to be had, 78 the \
configuration is broken.";

/// What `quota budget` does.
pub(super) const BUDGET: &str = "\
Shows for each account how many calls to its provider were made in the last hour, by whom, how many are allowed, and when \
the next one may be made. Nobody is asked.

The calls of all processes and hosts that share the store are counted together.";

/// How to read it.
pub(super) const BUDGET_MORE: &str = "\
How many are allowed is `budget` in [policy] of the configuration: per_hour calls, of which `reserve` are left to callers \
that somebody waits for. The shape of --json is told in docs/budget-json.md.

Examples:
  quota budget
  quota --store redis://10.0.0.1:6379 budget --json

Exit codes: 0 it was shown, 3 no account was found, 69 the store is not to be had, 78 the configuration is broken.";

/// What `quota events` does.
pub(super) const EVENTS: &str = "\
Shows what happened to the accounts, oldest first: refreshed, throttled, held, hold_ended, reset, threshold, login_changed, \
failing. It stands in the store, whoever found it out, and nobody is asked for it.";

/// What can be done about it.
pub(super) const EVENTS_MORE: &str = "\
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

Exit codes: 0 it was shown, 3 no account was found, 69 the store is not to be had, 78 the configuration is broken.";

/// What `quota demo` does.
pub(super) const DEMO: &str = "\
Starts a simulated provider on this machine, with a main account and fallbacks, and lets many consumers read their quota \
through one manager, while windows fill, an account is throttled and a login expires.

Nothing has to be set up, and nothing leaves this machine. All times are scaled so that the demo passes fifty minutes.";

/// What its figures mean.
pub(super) const DEMO_MORE: &str = "\
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
pub(super) const PARSE: &str = "\
Shows as JSON what is understood of a saved answer of a provider, and what was left out, by name and reason. Nothing is \
repeated that is not understood, so the output can be shown to others when a shape has changed.";

/// What can be read.
pub(super) const PARSE_MORE: &str = "\
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
pub(super) const SIM: &str = "\
Runs a simulated provider on this machine until Ctrl-C or SIGTERM. It speaks like Anthropic's usage endpoint; its accounts \
and numbers are made up.

Standard output is a configuration that uses it; its first line says where it listens.";

/// How a script is written.
pub(super) const SIM_MORE: &str = "\
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
  fills_per_hour = 20
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_in_lines_fits_into_eighty_columns() {
        for text in [
            PROGRAM_MORE,
            STATUS_MORE,
            STATUSLINE_MORE,
            GUARD_MORE,
            PACE_MORE,
            BUDGET_MORE,
            EVENTS_MORE,
            DEMO_MORE,
            PARSE_MORE,
            SIM_MORE,
        ] {
            let laid_out = text.lines().filter(|line| line.starts_with("  "));
            let long: Vec<_> = laid_out.filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{long:#?}");
        }
    }
}
