//! The arguments of the commands that show the current state: `quota status` and `quota watch`.

use std::time::Duration;

use clap::Args;

use super::duration;

/// Show how much of each account's windows is used
///
/// For each window, it shows how much is used, when it resets, and how old and how certain the reading is.
///
/// Stale readings are refreshed first, with one call per account. Calls to the same provider start at least one second apart
/// (`min_call_interval` in [policy]). An account whose provider does not respond within 30 seconds is shown with its last
/// readings.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Legend:
  62 %       used, from a fresh reading
  ≥ 62 %     at least this much is used, because the reading is stale
  unknown    no usable reading, for example after a reset
  ──┼──      the tick marks the elapsed part of the window; a longer bar means
             that usage is ahead of an even pace

`quota init` writes a configuration for the logins of Claude Code, Codex and other programs on this machine. `quota providers` lists the \
providers and where quota looks for their logins.

Accounts are defined in $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml):

  [[accounts]]
  id = \"anthropic/main\"       # without a login setting: Claude Code's login

  [[accounts]]
  id = \"codex/main\"           # the login of Codex

  [[accounts]]
  id = \"anthropic/work\"       # set one of these for its login:
  login_dir = \"~/.claude-work\"          # another folder of its program
  # token_env = \"QUOTA_WORK\"            # an environment variable
  # token_file = \"work.token\"           # a file with mode 600
  # token_command = [\"pass\", \"show\", \"work\"]  # a command that prints it
  # keyring = { service = \"quota\" }      # an item of the keyring; its user is
  #                                      # the id, or set user = \"…\"
  # own_login = true                    # quota accounts login work
  # min_remaining = 20                  # percent; see quota explain --help
  # killswitch = 5                      # percent; see quota explain --help
  # disabled = true                     # listed, but not refreshed or used
  # A proxy or `quota sim`; plain http is allowed for this machine only:
  # base_url = \"http://127.0.0.1:8123\"

  [providers.anthropic]        # optional, for all its accounts
  # base_url, user_agent, headers; docs/define-a-provider.md explains
  # how [[providers]] defines a provider that quota does not know

  [routing]                    # optional: which account is preferred, see
                               # quota explain --help
  [policy]                     # optional; some settings with their defaults:
  # max_age = \"5m\"
  # min_call_interval = \"1s\"
  # budget = { per_hour = 28, interactive_reserve = 6 }

`quota accounts add work --token-env QUOTA_WORK` adds an account to that file. Without the file, quota uses Claude Code's login. It \
never changes the login of another program.

All processes of this user share readings in $XDG_STATE_HOME/quota/quota.db (~/.local/state/quota/quota.db). --store or QUOTA_STORE \
selects another store.

Output to a terminal is colored unless NO_COLOR is set. docs/status-json.md describes the JSON.

Examples:
  quota status
  quota status --account main,work --refresh
  quota status --json | jq '.accounts[].windows[] | {id, used_percent}'
  quota status --offline      # make no calls
  quota status --refresh      # refresh each account, at most every 10 s
  quota status --config ./other.toml
  quota status --store redis://10.0.0.1:6379   # shared with other hosts
  quota status --store memory:                 # not shared
  QUOTA_STORE=redis://me:secret@10.0.0.1 quota status

Exit codes: 0 all accounts have readings, 1 some have none, 3 no account was found or all shown accounts are disabled, 64 usage error, \
66 unreadable configuration file, 78 invalid configuration or unusable store.")]
pub(crate) struct StatusArgs {
    /// Limit to this account (repeatable)
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Refresh readings older than this, such as 30s or 10m [default: `max_age` in [policy]]
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["refresh", "offline"])]
    pub(crate) max_age: Option<Duration>,
    /// Refresh all accounts now, if rate limits allow, at most every 10 s
    #[arg(long, conflicts_with = "offline")]
    pub(crate) refresh: bool,
    /// Don't contact providers
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Watch all accounts live
///
/// Shows the windows with the age and certainty of their readings, holds, the next refresh, and recent events. It keeps readings
/// fresh within the same rate limits and call budget as all other processes that share the store.
///
/// Keys: the arrow keys select an account, r refreshes it, R refreshes all shown (at most every 10 s), s changes the sort order, /
/// filters by name, ? shows help, q quits. Ctrl-Z suspends the program until fg.
///
/// Programs should use `quota events --follow --json` instead.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 quit with q or Esc; 64 no terminal; 129, 130, 131 and 143 terminated by SIGHUP, Ctrl-C, SIGQUIT and SIGTERM.")]
pub(crate) struct WatchArgs {}
