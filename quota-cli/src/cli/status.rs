//! The arguments of the commands that show the present state: `quota status` and `quota watch`.

use std::time::Duration;

use clap::Args;

use super::duration;

/// Show how much of each account's windows is used
///
/// Shows when the windows reset, how old the numbers are and how certain they are.
///
/// Old numbers are refreshed first, with one call per account. Calls to one provider start a second apart (`min_call_interval` in [policy]). After
/// 30 seconds an account without a response is shown without one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reading it:
  62 %       used, by a fresh reading
  ≥ 62 %     at least this much is used: the reading is old
  unknown    no usable reading, as after a reset: neither 0 nor 100 %
  ──┼──      the tick marks the elapsed part of the window: if the bar is longer,
             the window is used faster than time passes

Accounts are defined in $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml):

  [[accounts]]
  id = \"anthropic/main\"       # without more: Claude Code's login, only read

  [[accounts]]
  id = \"anthropic/work\"       # its login is in one of these:
  claude_config_dir = \"~/.claude-work\"  # another directory of Claude Code
  # token_env = \"QUOTA_WORK\"            # an environment variable
  # token_file = \"work.token\"           # a file of its own, chmod 600
  # token_command = [\"pass\", \"show\", \"work\"]  # a program that prints it
  # min_remaining = 20, killswitch = 5  # percentages; see quota explain --help
  # disabled = true                     # shown, but not refreshed or used
  # A proxy or `quota sim`; plain http only to this machine:
  # base_url = \"http://127.0.0.1:8123\"

  [providers.anthropic]        # optional, for all its accounts
  # base_url, user_agent

  [routing]                    # optional: which account is preferred, see
                               # quota explain --help
  [policy]                     # optional; some settings with their defaults:
  # max_age = \"5m\"
  # min_call_interval = \"1s\"
  # budget = { per_hour = 28, interactive_reserve = 6 }

A command writes that file as well: quota accounts add work --token-env QUOTA_WORK. Without that file, quota uses the login of Claude \
Code, which it only reads.

Readings are shared with all processes of this user in the file $XDG_STATE_HOME/quota/quota.db (~/.local/state/quota/quota.db), unless \
--store or QUOTA_STORE names another store.

Colors are used at a terminal, unless NO_COLOR is set. docs/status-json.md describes the JSON.

Examples:
  quota status
  quota status --account main,work --refresh
  quota status --json | jq '.accounts[].windows[] | {id, used_percent}'
  quota status --offline      # no call to a provider
  quota status --refresh      # one call each, but not within 10 s of the last
  quota status --config ./other.toml
  quota status --store redis://10.0.0.1:6379   # shared with other hosts
  quota status --store memory:                 # not shared
  QUOTA_STORE=redis://me:secret@10.0.0.1 quota status

Exit codes: 0 all accounts have numbers, 1 some have none, 3 no account was found or all that are shown are disabled, 64 usage error, \
66 the configuration file cannot be read, 78 invalid configuration or unusable store.")]
pub(crate) struct StatusArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Refresh numbers that are older than this, such as 30s or 10m [default: `max_age` in [policy]]
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["refresh", "offline"])]
    pub(crate) max_age: Option<Duration>,
    /// Refresh all accounts now, if rate limits allow, but not within 10 s of the last call
    #[arg(long, conflicts_with = "offline")]
    pub(crate) refresh: bool,
    /// Don't contact providers
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Watch all accounts live
///
/// Shows the windows, the age and certainty of their numbers, holds, the next refresh, and a log of events. The numbers are kept fresh
/// by the same rules and the same budget as all other processes that use the store.
///
/// Keys: arrows select, r refreshes one account, R all (not within 10 s of the last call), s changes the sort order, / filters, ? shows
/// help, q quits. Ctrl-Z suspends until fg.
///
/// For programs: quota events --follow --json.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 quit by q or Esc; 129, 130, 131 and 143 ended by SIGHUP, Ctrl-C, SIGQUIT and SIGTERM; 64 not at a terminal.")]
pub(crate) struct WatchArgs {}
