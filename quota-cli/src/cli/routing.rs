//! The arguments of the commands that choose an account for a request: `quota pick`, `quota explain` and `quota run`.

use std::ffi::OsString;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Unknown;

// The request. A doc comment here would replace the help of the commands.
#[derive(Debug, Default, Args)]
pub(crate) struct RequestArgs {
    /// Choose for this model, such as claude-opus-4-5; windows of other models do not count
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: Option<String>,
    /// Choose for this session: with `mode` sticky_balanced, it stays on its account
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) session: Option<String>,
    /// Allow or deny an account whose use is unknown [default: `when_unknown` of [routing], else deny]
    #[arg(long, value_name = "POLICY")]
    pub(crate) unknown: Option<Unknown>,
}

/// Print which account to use now
///
/// Prints the name of the account and nothing else: the main one, or the first available fallback. Accounts without numbers, or with old
/// numbers that speak against them, are refreshed first, by the same rules and the same budget as everywhere.
///
/// Nothing is reserved: another process that picks at the same time gets the same account. With --session, and `mode` sticky_balanced in
/// [routing], a session stays on its account.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  account=$(quota pick --model claude-opus-4-5) && echo \"$account\"
  quota pick --json | jq -r '.accounts[] | \"\\(.account) \\(.rule)\"'

docs/pick-json.md describes the JSON. quota explain shows the reasons.

After the reset of a window the provider is called a little later; until then the use of the window is unknown. If no account is \
available for that reason, the command waits, or prints when to try again.

Exit codes: 0 an account was printed, 1 all are exhausted (standard error says until when), 3 all accounts are disabled, 64 usage \
error, 66 the configuration file cannot be read, 69 unknown, or a login is needed, 78 invalid configuration or unusable store.")]
pub(crate) struct PickArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
}

/// Show which account to use now, and why not the others
///
/// Shows the account that `quota pick` would print now. For every account it shows the windows, how old and how certain their numbers
/// are, and the reason that selected or excluded it. Accounts are refreshed as for `quota pick`; the choice is not stored.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reading it:
  selected     the request would use it
  awaited      the session waits for it, because it is available soon
  standby      another account comes first
  skipped      less is left than its minimum; used if no other has more
  unavailable  it is exhausted, below its killswitch or disabled, its login is
               rejected, or its use is unknown

  ≥ 62 %       at least this much is used: the reading is old

[routing] in the configuration says how accounts are chosen; these are the
defaults:

  [routing]
  mode = \"main_first\"    # or fallback_first, sticky_balanced (sessions stay
                         # on their account, new ones use the one with most
                         # left), soonest_reset_first
  min_remaining = 0      # skip an account below this percentage; or
                         # { every = 20, seven_day = 10 }
  killswitch = 0         # never use it below this one
  when_unknown = \"deny\"  # or allow: use an account whose use is unknown
  max_session_wait = \"2m\"  # a session waits this long rather than move
  session_ttl = \"168h\"   # how long a session is remembered
  max_sessions = 10000   # how many sessions are remembered
  credential_timeout = \"20s\"  # how long to wait for a login
  # For programs that report the outcome of requests: fallback_on,
  # throttle_cooldown, exhausted_cooldown, forbidden_cooldown

An account may have its own `min_remaining` and `killswitch`, in [[accounts]].

docs/explain-json.md describes the JSON.

Exit codes: those of `quota pick`.")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
}

/// Run a command with the account to use now
///
/// The account is the one that `quota pick` would print. If none is available, the command is not run. The command replaces this program,
/// so it gets all signals and its exit code is returned.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The command gets these environment variables:
  QUOTA_ACCOUNT            the account, such as anthropic/work
  CLAUDE_CODE_OAUTH_TOKEN  the token, if the account's is in a variable, a file,
                           or printed by a program
  CLAUDE_CONFIG_DIR        the directory, if the account has one of its own
  ANTHROPIC_BASE_URL       the account's base_url, if it has one
Variables that would name another login, provider or host are removed, such as
ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL and CLAUDE_CODE_USE_BEDROCK; so are the
variables of the other accounts, and QUOTA_STORE, which may hold a password.
The token is nowhere else: in no argument, no message and no file.

Examples:
  quota run -- claude -p 'fix the tests'
  quota run --model claude-opus-4-5 -- claude --model claude-opus-4-5
  quota run -- sh -c 'echo \"$QUOTA_ACCOUNT\"'

Exit codes: the command's own; 126 it cannot be executed, 127 it was not found; if it was not run, those of `quota pick`.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
