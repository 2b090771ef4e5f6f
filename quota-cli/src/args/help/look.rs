//! The long help texts of the commands that show what is known, and of those that see to it that it can be.
//! They are laid out for 80 columns, which is tested in `help`.

/// What `quota doctor` does.
pub(in crate::args) const DOCTOR: &str = "\
Checks the configuration, the store, the logins and who may read them, what the store knows of failed refreshes, holds and used-up \
budgets, the clocks, and whether the providers can be reached. Each problem comes with what to do.

Nothing is fixed, nothing secret is shown, and no usage is asked for: of a provider it is only checked whether its host answers. To \
check that the store can be written, a note is left in it for a minute.

Exit codes: 0 no problems found, 1 there is a warning (warn) or a problem (FAIL).";

/// What `quota init` does.
pub(in crate::args) const INIT: &str = "\
Looks for logins of Claude Code and for tokens in the environment, and writes a configuration that names where they are, \
with comments on what else it may say. No token is written down.

One that is there is written over only if you say so, at the terminal or with --force; it is then kept beside the new one.

Exit codes: 0 it is written, 1 you said no, 64 there is one already and nobody to ask, 74 it could not be written.";

/// What `quota status` does.
pub(in crate::args) const STATUS: &str = "\
Shows how much of each account's windows is used, when they reset, how old the numbers are and how certain.

Each account is asked about once; accounts of one provider one after the other, a second apart (`gap` in [policy]). \
After 30 seconds whatever has no answer yet is shown without one.";

/// How to read it, and how accounts are named.
pub(in crate::args) const STATUS_MORE: &str = "\
Reading it:
  62 %       so much was used when the provider was asked, a moment ago
  ≥ 62 %     at least so much: the reading is old
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
  # token_command = [\"pass\", \"show\", \"work\"]  # a program that prints it
  # min_remaining = 20, killswitch = 5  # percentages; see quota explain --help
  # disabled = true                     # shown, and not asked about
  # A proxy or `quota sim`; plain http goes to this machine only:
  # base_url = \"http://127.0.0.1:8123\"

  [providers.anthropic]        # optional, for all its accounts
  # base_url, user_agent

  [routing]                    # optional; which account is preferred: see
                               # quota explain --help
  [policy]                     # optional; some of it, with its defaults:
  # freshness = \"5m\"
  # gap = \"1s\"
  # budget = { per_hour = 28, reserve = 6 }

Or by command, which writes that file: quota accounts add work --token-env QUOTA_WORK.

What is asked is shared with all processes of this user in a file, $XDG_STATE_HOME/quota/quota.db
(~/.local/state/quota/quota.db), unless --store or QUOTA_STORE names another store.

Without that configuration it looks for a login of Claude Code where that program keeps it, and only reads it.

Colours are used at a terminal, unless NO_COLOR is set. --json is for programs; \
its shape is in docs/status-json.md.

Examples:
  quota status
  quota status --account main,work --refresh
  quota status --json | jq '.accounts[].windows[] | {id, used_percent}'
  quota status --offline      # nobody is asked
  quota status --refresh      # one call each, but not within 10 s of the last
  quota status --config ./other.toml
  quota --store redis://10.0.0.1:6379 status   # shared with other hosts
  quota --store memory: status                 # shared with nobody
  QUOTA_STORE=redis://me:secret@10.0.0.1 quota status

Exit codes: 0 all accounts have numbers, 1 some have none, 3 no account was found or all that are shown are disabled, 66 the file given by --config cannot be \
read, 78 the configuration or the store cannot be used.";

/// What `quota statusline` does.
pub(in crate::args) const STATUSLINE: &str = "\
Shows one line from the store, at once. If its numbers are old they are marked, and a process of its own asks the provider, if \
the rules allow: of any number of statuslines one starts it.

Where there are no numbers, the line says why in two words: login rejected, not allowed, rate limited, offline, not logged in, \
store unreachable, ...; no data if nothing is known yet. An account without windows shows its credits, or no windows.

If Claude Code's JSON for status lines is on standard input, its model is shown, and its rate limits are shared with all who use \
the store, if it can be told to which account they belong and they say more than is known. Otherwise they are shown in this line \
alone, as account anthropic/session, unless --account names another one.";

/// What can stand in the line.
pub(in crate::args) const STATUSLINE_MORE: &str = "\
Placeholders of --format:
  {account} {plan}            whose numbers they are
  {state} {stale} {age}       fresh or stale; `stale 12min` or nothing; 12min
  {reason}                    why there is no number, or no newer one
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

The classes for Waybar: good, warning (75 % or more), critical (90 % or more); stale beside them if the numbers are old or missing; \
error if the configuration or the store cannot be used; and the reason, such as login-rejected.

Without a home directory, and with --store memory:, there is no store to read: the line shows the session's own numbers, or says so.

Exit codes: 0 a line was written, 64 the command line is not understood. Claude Code and Waybar show nothing of a command that \
fails, so a configuration or a store that cannot be used is named in the line (quota: config error), explained on standard error, \
and the exit code is 0. Only with --json it is 3 (all accounts are disabled), 66 (the file given by --config cannot be read) or 78.";

/// What `quota guard` does.
pub(in crate::args) const GUARD: &str = "\
Says by its exit code whether enough is left of an account to begin something. Old numbers are refreshed first, if the rules \
allow; one that stays old can say no, and not yes. Without --window all windows of the whole account count, and with --model those \
of that model. They are compared as by quota pick: of a window of the whole account that much must be left, of a model's window more.

With --wait it waits until enough is left: it looks again when another process has shared something, when a window has reset, and \
asks the provider no more often than anybody else would. When --timeout is over, hooks that are still running are ended.

After a window's reset the provider is asked again a little later; until then nothing is known of the window. The command waits for \
that where its time allows (30 s, or --timeout), and says so; otherwise it says when that is.";

/// How it is used.
pub(in crate::args) const GUARD_MORE: &str = "\
Examples:
  quota guard && claude -p 'fix the tests'
  quota guard --min-remaining 20 --window five_hour || echo later
  quota guard --account work --model opus --wait --timeout 2h && ./nightly
  quota guard --json | jq .left_percent

The shape of --json is in docs/guard-json.md.

Exit codes: 0 go on, 1 too little is left, 3 the account is disabled, or all are, 64 the command line was not understood, 66 the file \
given by --config cannot be read, 69 it cannot be told, 78 the configuration or the store cannot be used.";

/// What `quota watch` does.
pub(in crate::args) const WATCH: &str = "\
Shows all accounts live: windows with a tick where their time stands, how old and how certain the numbers are, holds, the \
next refresh, and a log of what happened. It keeps the numbers fresh by the same rules and the same budget as everything else \
that uses the store.

Keys: arrows choose, r refreshes one account, R all (not within 10 s of the last call), s changes the order, / filters, ? helps, q leaves; Ctrl-Z stops it until fg.

For programs there is quota events --follow --json.

Exit codes: 0 left by q or Esc, 130 by Ctrl-C, 143, 129 and 131 ended by SIGTERM, SIGHUP and SIGQUIT, 64 without a terminal.";
