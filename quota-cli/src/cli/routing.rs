//! The arguments of the commands that choose an account for a request: `quota pick`, `quota explain` and `quota run`.

use std::ffi::OsString;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Unknown;

// A doc comment here would replace the help of the commands.
#[derive(Debug, Default, Args)]
pub(crate) struct RequestArgs {
    /// Choose an account for this model, such as claude-opus-4-5; ignore the windows of other models
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: Option<String>,
    /// Choose an account for this session; with `mode` sticky_balanced, a session keeps its account
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) session: Option<String>,
    /// Allow or deny accounts whose usage is unknown [default: `when_unknown` in [routing], else deny]
    #[arg(long, value_name = "POLICY")]
    pub(crate) unknown: Option<Unknown>,
}

/// Print which account to use now
///
/// Prints only the account name: the main account, or the first available fallback. Accounts without readings, or with stale
/// readings that would exclude them, are refreshed first, within the same rate limits and budget as all refreshes.
///
/// The command does not reserve the account: another process that picks at the same time gets the same one. With --session, and
/// `mode` sticky_balanced in [routing], a session keeps its account.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  account=$(quota pick --model claude-opus-4-5) && echo \"$account\"
  quota pick --json | jq -r '.accounts[] | \"\\(.account) \\(.reason)\"'

docs/pick-json.md describes the JSON. quota explain shows the reasons.

After a window resets, quota waits a short time before it calls the provider. Until then the usage of the window is unknown. If no \
account is available for that reason, the command waits, or prints when to try again.

Exit codes: 0 an account was printed, 1 all are exhausted (standard error shows until when), 3 all accounts are disabled, 64 usage \
error, 66 unreadable configuration file, 69 availability is unknown, or a login is needed, 78 invalid configuration or unusable store.")]
pub(crate) struct PickArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
}

/// Show which account to use now, and why
///
/// Shows the account that `quota pick` would print now. For every account, it shows the windows, the age and certainty of their
/// readings, and why it was selected or excluded. It refreshes accounts as `quota pick` does, and does not store the choice.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Legend:
  selected     the request would use this account
  awaited      the session waits for this account, which will be available soon
  standby      another account comes first
  skipped      less than its minimum is left; used only as a last resort
  unavailable  exhausted, below its killswitch or disabled, or its login is
               rejected, or its usage is unknown

  ≥ 62 %       at least this much is used, because the reading is stale

[routing] in the configuration sets how accounts are chosen. The defaults are:

  [routing]
  mode = \"main_first\"    # or fallback_first, sticky_balanced (sessions keep
                         # their account, new ones use the account with the
                         # most left), soonest_reset_first
  min_remaining = 0      # skip an account below this percentage; or
                         # { every = 20, seven_day = 10 }
  killswitch = 0         # never use an account below this percentage
  when_unknown = \"deny\"  # or allow: use an account whose usage is unknown
  max_session_wait = \"2m\"  # switch accounts if the wait is longer
  session_ttl = \"168h\"   # how long a session is remembered
  max_sessions = 10000   # how many sessions are remembered
  credential_timeout = \"20s\"  # time limit for reading a login
  route_timeout = \"30s\"  # time limit for refreshing accounts
  # For programs that report the outcome of requests: fallback_on,
  # throttle_cooldown, exhausted_cooldown, forbidden_cooldown

An account in [[accounts]] may set its own `min_remaining` and `killswitch`.

docs/explain-json.md describes the JSON.

Exit codes: those of `quota pick`.")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
}

/// Run a command with the account to use now
///
/// The account is the one that `quota pick` would print. If no account is available, the command is not run. The command replaces
/// this process, so it receives all signals, and its exit code is the exit code of `quota run`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The command gets these environment variables:
  QUOTA_ACCOUNT            the account, such as anthropic/work
  CLAUDE_CODE_OAUTH_TOKEN  the token, if the account has a token_env, token_file,
                           token_command or keyring
  CLAUDE_CONFIG_DIR        the directory, if the account has its own
  ANTHROPIC_BASE_URL       the account's base_url, if it has one
For another provider's account, quota sets the variables of its program
instead, such as CODEX_HOME for an account with a login_dir.
Variables that would select another login, provider or host are removed, such
as ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL and CLAUDE_CODE_USE_BEDROCK. The
variables of the other accounts are removed too, as is QUOTA_STORE, which may
contain a password. The token is passed only in the environment, and never in
an argument, a message or a file.

Examples:
  quota run -- claude -p 'fix the tests'
  quota run --model claude-opus-4-5 -- claude --model claude-opus-4-5
  quota run -- sh -c 'echo \"$QUOTA_ACCOUNT\"'
  quota run -- codex exec 'fix the tests'   # if all accounts are Codex accounts

`quota accounts import` adds accounts for the logins on this machine, and `quota providers` lists the providers.

Exit codes: that of the command; 126 it cannot be executed, 127 it was not found; if it was not run, those of `quota pick`.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
