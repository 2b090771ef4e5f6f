//! The arguments of the commands for prompts, bars and scripts: `quota statusline` and `quota guard`.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use quota::model::RequestId;

use super::{duration, one_account, percent};

/// Print one line for a statusline, without waiting for the network
///
/// The line comes from the store. Stale readings are marked, and a background process refreshes them, if rate limits allow.
/// However many statuslines run, only one such process is started.
///
/// Without readings, the line shows the reason, such as login rejected, forbidden, rate limited, offline, not logged in or store
/// unreachable. Before the first refresh, it shows `no data`. An account without windows shows its credits, or `no windows`.
///
/// If standard input is Claude Code's JSON for status lines, the line shows the session's model. The session's rate limits are
/// stored for all processes if they are newer and their account can be determined. If the account cannot be determined, only
/// this line shows them, as account anthropic/session, unless --account selects another account.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Placeholders of --format:
  {account} {plan}            the account and its plan
  {state} {stale} {age}       fresh or stale; `stale 12min` or empty; 12min
  {reason}                    why there is no reading, or no newer one
  {model} {dir} {cost}        from the session on standard input, if any
  {five_hour.used}            62%, ≥62% for a lower bound, ? if unknown
  {five_hour.left}            the remaining percentage
  {five_hour.bar}             a bar of ten characters
  {five_hour.resets_in}       2h10min
  {five_hour.resets_at}       14:05
  {five_hour.certainty}       exact, at_least, unknown
  {{ }}                       literal { and }
Any window can replace five_hour: seven_day, seven_day/opus, ...

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

--json prints the JSON of quota status, for one account.

Classes for Waybar: good, warning (75 % or more) or critical (90 % or more). Further classes are stale, if the readings are old or \
missing; error, if the configuration or the store cannot be used; and the reason, such as login-rejected.

Without a home directory, or with --store memory:, there is no store to read. The line then shows the session's own usage, or the \
reason.

Exit codes: 0 a line was written, 64 usage error. Claude Code and Waybar hide the output of a command that fails. So if the \
configuration or the store cannot be used, the line names the problem (quota: config error), standard error explains it, and the exit \
code is 0. With --json it is 3 (all accounts are disabled), 66 (unreadable configuration file) or 78.")]
pub(crate) struct StatuslineArgs {
    /// Use this format, with placeholders such as {five_hour.used}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["preset", "json"])]
    pub(crate) format: Option<String>,
    /// Use a built-in format [default: plain]
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(crate) preset: Option<Preset>,
    /// Show this account [default: the account of the session on standard input, else the first]
    #[arg(long, value_name = "NAME", value_parser = one_account)]
    pub(crate) account: Option<String>,
}

/// A built-in format.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Preset {
    /// Text without colors
    Plain,
    /// Text with colors and Powerline arrows
    Powerline,
    /// JSON for a Waybar custom module
    Waybar,
    /// Text with tmux colors
    Tmux,
}

// The arguments of the process that a statusline starts.
#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// The holder of the claim under which the process was started
    #[arg(long)]
    pub(crate) claim: RequestId,
    #[arg(long)]
    pub(crate) account: String,
}

/// Exit 0 if enough quota is left
///
/// Stale readings are refreshed first, if rate limits allow. A reading that stays stale can prove that too little is left, but
/// not that enough is left.
///
/// By default, it checks the windows that apply to the whole account. --model adds the windows of a model, and --window selects
/// a single window. As with quota pick, a window of the whole account must have at least --min-remaining left, and a window of a
/// model must have more than that.
///
/// With --wait, the command waits until enough is left. It checks again when another process stores new readings and when a
/// window resets, within the same rate limits as all other processes.
///
/// After a window resets, quota waits a short time before it calls the provider. Until then the usage of the window is unknown.
/// The command waits for that call if its time limit allows (30 s, or --timeout). Otherwise it prints when to try again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quota guard && claude -p 'fix the tests'
  quota guard --min-remaining 20 --window five_hour || echo later
  quota guard --account work --model opus --wait --timeout 2h && ./nightly
  quota guard --json | jq .left_percent

docs/guard-json.md describes the JSON.

Exit codes: 0 enough is left, 1 too little is left, 3 the account is disabled, or all are, 64 usage error, 66 unreadable configuration \
file, 69 the remaining quota is unknown, 78 invalid configuration or unusable store.")]
pub(crate) struct GuardArgs {
    /// Check this account [default: the first]
    #[arg(long, value_name = "NAME", value_parser = one_account)]
    pub(crate) account: Option<String>,
    /// Require at least this percentage to be left in each checked window
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    pub(crate) min_remaining: f64,
    /// Check only this window, such as five_hour
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) window: Option<String>,
    /// Also check the windows of this model, such as opus or claude-opus-4-5
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "window")]
    pub(crate) model: Option<String>,
    /// Allow or deny the account if the usage of a window is unknown
    #[arg(long, value_name = "POLICY", default_value = "deny")]
    pub(crate) unknown: Unknown,
    /// Wait until enough is left
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait at most this long, such as 30m [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
}

/// Allow or deny the account if the usage of a window is unknown.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Unknown {
    /// Use the account
    Allow,
    /// Do not use the account
    Deny,
}
