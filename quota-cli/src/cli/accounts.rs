//! The arguments of `quota accounts`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::global::{self, GlobalOption};
use super::percent;

/// List and change accounts
///
/// Without a subcommand, it lists the accounts in order, with the main account first. For each account, it shows the location of
/// the login and the account's state in the store. It makes no provider calls.
///
/// Accounts are defined in $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml), or in the file given with --config. The
/// subcommands edit that file, and create it if it does not exist. They preserve its comments and other settings, and never write a
/// token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quota accounts
  quota accounts add work --claude-config-dir ~/.claude-work
  quota accounts add codex/main
  quota accounts add codex/work --login-dir ~/.codex-work
  quota accounts add spare --token-env QUOTA_SPARE --min-remaining 10
  quota accounts add vault --token-command pass show claude/vault
  quota accounts add laptop --keyring quota   # the item of anthropic/laptop
  quota accounts login work           # an OAuth login of quota's own
  quota accounts set spare --min-remaining 20 --killswitch none
  quota accounts order work main
  quota accounts disable spare
  quota accounts clear-hold spare
  quota accounts import --dry-run   # the logins on this machine
  quota accounts list --json | jq -r '.accounts[].account'

docs/accounts-json.md describes the JSON of list.

Exit codes: 0 success, 1 an account was skipped (import) or its data is still stored (remove), 3 no account was found, 64 usage error, \
65 malformed input, 66 unreadable input, 69 another process is changing the configuration or the store is unavailable, 74 write error, \
78 the configuration cannot be used or edited.")]
pub(crate) struct AccountsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AccountsCommand>,
}

/// The commands that list and change accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// List the accounts in order
    #[command(args = global::args(GlobalOption::ALL))]
    List,
    /// Add an account
    ///
    /// Without a login option, the account uses the login of the provider's own program, such as Claude Code or Codex. `quota providers`
    /// shows where quota looks for that login.
    ///
    /// A token from `claude setup-token` can send requests, and `quota run` passes it to the command. But it is not allowed to read
    /// usage: Anthropic responds with 403, and quota then gets the account's usage only from response headers and Claude Code's
    /// status line. An API key can send requests too, but Anthropic and OpenAI report no usage for it. To see usage, add a login
    /// that `claude` or `codex login` created.
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Add(AddArgs),
    /// Log in with an OAuth client that the configuration names
    ///
    /// Prints an address, and opens it in a browser. After the login, the browser is redirected to a loopback address on this
    /// machine, or you paste the resulting address or the code. quota owns the login and renews it. Only one process at a time
    /// exchanges the refresh token, among all processes and hosts that share the store. The login is stored in
    /// $XDG_STATE_HOME/quota/logins.json (~/.local/state/quota/logins.json), which only its owner can read. Do not copy another
    /// program's login into this file, because each refresh token works only once.
    ///
    /// quota has no client id of its own. Set yours in the configuration:
    ///
    /// [providers.anthropic.oauth] with client_id, authorize_url, token_url, and optionally scopes and redirect_url.
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Login(LoginArgs),
    /// Change the limits of an account
    #[command(args = global::args([GlobalOption::Config]))]
    Set(SetArgs),
    /// Remove accounts and their data in the store
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Remove(AccountNames),
    /// Disable accounts, so that they are listed but not refreshed or used
    #[command(args = global::args([GlobalOption::Config]))]
    Disable(AccountNames),
    /// Enable accounts
    #[command(args = global::args([GlobalOption::Config]))]
    Enable(AccountNames),
    /// Clear an account's hold for all processes, so that the next command may refresh it
    ///
    /// After a provider error, or if the provider requests a wait, a hold prevents all processes from refreshing the account. The
    /// next failure starts a new hold. This command does not clear the provider's cooldown after a 429, the hourly call budget or a
    /// rejected login.
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    ClearHold(ClearHoldArgs),
    /// Move accounts to the front, in the given order; the first account is the main one
    #[command(args = global::args([GlobalOption::Config]))]
    Order(AccountNames),
    /// Add the logins on this machine, or the accounts from another file
    ///
    /// Without a file, it finds the same logins as `quota init`: those of programs such as Claude Code and Codex, including folders
    /// such as ~/.claude-work, and tokens in environment variables. It prints how to add a second login for these providers.
    #[command(args = global::args([GlobalOption::Config]))]
    Import(ImportArgs),
}

// The options of `quota accounts add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("login").args(["claude_config_dir", "login_dir", "token_env", "token_file", "token_command", "keyring"]))]
pub(crate) struct AddArgs {
    /// Account name, such as codex/work, or work for anthropic/work
    pub(crate) name: String,
    /// Use Claude Code's login in this CLAUDE_CONFIG_DIR
    #[arg(long, value_name = "DIR")]
    pub(crate) claude_config_dir: Option<PathBuf>,
    /// Use the login of the provider's own program in this folder, such as a CODEX_HOME
    #[arg(long, value_name = "DIR")]
    pub(crate) login_dir: Option<PathBuf>,
    /// Read the token from this environment variable
    #[arg(long, value_name = "NAME")]
    pub(crate) token_env: Option<String>,
    /// Read the token from this file; only its owner may have access (chmod 600)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Run this program to get the token; all following words are its arguments
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) token_command: Option<Vec<String>>,
    /// Read the token from the keyring item of this service: Secret Service on Linux, Keychain on macOS
    #[arg(long, value_name = "SERVICE")]
    pub(crate) keyring: Option<String>,
    /// Read the keyring item of this user [default: the account's full name, such as anthropic/work]
    #[arg(long, value_name = "USER", requires = "keyring")]
    pub(crate) keyring_user: Option<String>,
    /// Send usage calls to this URL, such as a proxy or `quota sim`
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Prefer another account if less than this percentage is left
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_remaining: Option<f64>,
    /// Never use the account if less than this percentage is left
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) killswitch: Option<f64>,
    /// Make this the main account
    #[arg(long)]
    pub(crate) first: bool,
}

// The options of `quota accounts login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Account name, such as codex/work, or work for anthropic/work
    pub(crate) name: String,
    /// Print the address without opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
}

// The options of `quota accounts set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limit").args(["min_remaining", "killswitch"]).multiple(true).required(true))]
pub(crate) struct SetArgs {
    /// Account name
    pub(crate) name: String,
    /// Prefer another account if less than this percentage is left; `none` inherits from [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) min_remaining: Option<LimitSetting>,
    /// Never use the account if less than this percentage is left; `none` inherits from [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) killswitch: Option<LimitSetting>,
}

/// A limit in percent; `None` removes the account's own limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LimitSetting(pub(crate) Option<f64>);

fn limit(text: &str) -> Result<LimitSetting, &'static str> {
    if text == "none" {
        return Ok(LimitSetting(None));
    }
    percent(text)
        .map(|percent| LimitSetting(Some(percent)))
        .map_err(|_| "expected a percentage from 0 to 100, or none")
}

// Accounts by name.
#[derive(Debug, Args)]
pub(crate) struct AccountNames {
    /// Account names
    #[arg(required = true, value_name = "NAME", value_delimiter = ',')]
    pub(crate) names: Vec<String>,
}

// The options of `quota accounts clear-hold`.
#[derive(Debug, Args)]
pub(crate) struct ClearHoldArgs {
    /// Account name
    pub(crate) name: String,
}

// The options of `quota accounts import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// An accounts.json file, or - for standard input [default: the logins on this machine]
    pub(crate) file: Option<PathBuf>,
    /// Print what would be added without adding it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also add accounts with a base_url, which sends their tokens to that host
    #[arg(long, requires = "file")]
    pub(crate) allow_base_url: bool,
    /// Also add accounts with a token_command, which runs a program
    #[arg(long, requires = "file")]
    pub(crate) allow_token_command: bool,
}
