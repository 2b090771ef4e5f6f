//! The arguments of `quota accounts`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::global::{self, GlobalOption};
use super::percent;

/// List and change accounts
///
/// Without a command it lists the accounts in their order, the main one first, with the place of each login and its state in the store.
/// No provider is called.
///
/// The accounts are those of the configuration, $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml), or the file of
/// --config. Commands change that file, and create it if it does not exist. Other settings and comments in it do not change. No token is
/// written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quota accounts
  quota accounts add work --claude-config-dir ~/.claude-work
  quota accounts add spare --token-env QUOTA_SPARE --min-remaining 10
  quota accounts add vault --token-command pass show claude/vault
  quota accounts set spare --min-remaining 20 --killswitch none
  quota accounts order work main
  quota accounts disable spare
  quota accounts clear-hold spare
  quota accounts import --dry-run   # the logins on this machine
  quota accounts list --json | jq -r '.accounts[].account'

docs/accounts-json.md describes the JSON of list.

Exit codes: 0 done, 1 something was skipped (import) or is still stored (remove), 3 no account was found, 64 usage error, 65 malformed \
input, 66 unreadable input, 69 another process is changing the configuration or the store is unavailable, 74 write error, 78 the \
configuration cannot be used or edited.")]
pub(crate) struct AccountsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AccountsCommand>,
}

/// The commands that list and change accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// List the accounts in their order
    #[command(args = global::args(GlobalOption::ALL))]
    List,
    /// Add an account
    ///
    /// Without an option for its login, the account uses the login of Claude Code.
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Add(AddArgs),
    /// Change the limits of an account
    #[command(args = global::args([GlobalOption::Config]))]
    Set(SetArgs),
    /// Remove accounts, and their data in the store
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Remove(AccountNames),
    /// Disable accounts: they are listed, but not refreshed or used
    #[command(args = global::args([GlobalOption::Config]))]
    Disable(AccountNames),
    /// Enable accounts
    #[command(args = global::args([GlobalOption::Config]))]
    Enable(AccountNames),
    /// Clear an account's hold for all processes, so that the next command may refresh it
    ///
    /// A hold keeps all processes from refreshing an account, because the provider asked to wait or has failed. The next failure
    /// arms a new one. The provider's cooldown after a 429, the hourly call budget and a rejected login are not cleared.
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    ClearHold(ClearHoldArgs),
    /// Move accounts to the front, in this order; the first of all is the main one
    #[command(args = global::args([GlobalOption::Config]))]
    Order(AccountNames),
    /// Add the logins on this machine, or the accounts of another file
    #[command(args = global::args([GlobalOption::Config]))]
    Import(ImportArgs),
}

// The options of `quota accounts add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("login").args(["claude_config_dir", "token_env", "token_file", "token_command"]))]
pub(crate) struct AddArgs {
    /// Name of the account: anthropic/work, or work
    pub(crate) name: String,
    /// Use the login of Claude Code with this CLAUDE_CONFIG_DIR
    #[arg(long, value_name = "DIR")]
    pub(crate) claude_config_dir: Option<PathBuf>,
    /// Read the token from this environment variable
    #[arg(long, value_name = "NAME")]
    pub(crate) token_env: Option<String>,
    /// Read the token from this file, which only its owner may access (chmod 600)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Run this program, which prints the token; all words that follow are its arguments
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) token_command: Option<Vec<String>>,
    /// Call this host for its usage: a proxy, or `quota sim`
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Prefer another account if less than this is left, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_remaining: Option<f64>,
    /// Never use it if less than this is left, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) killswitch: Option<f64>,
    /// Make it the main account
    #[arg(long)]
    pub(crate) first: bool,
}

// The options of `quota accounts set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limit").args(["min_remaining", "killswitch"]).multiple(true).required(true))]
pub(crate) struct SetArgs {
    /// Name of the account
    pub(crate) name: String,
    /// Prefer another account if less than this is left, in percent; none inherits from [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) min_remaining: Option<Limit>,
    /// Never use it if less than this is left, in percent; none inherits from [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) killswitch: Option<Limit>,
}

/// A limit in percent; `None` removes the account's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit(pub(crate) Option<f64>);

fn limit(text: &str) -> Result<Limit, &'static str> {
    if text == "none" {
        return Ok(Limit(None));
    }
    percent(text).map(|share| Limit(Some(share))).map_err(|_| "write a percentage from 0 to 100, or none")
}

// Accounts by name.
#[derive(Debug, Args)]
pub(crate) struct AccountNames {
    /// Names of accounts
    #[arg(required = true, value_name = "NAME", value_delimiter = ',')]
    pub(crate) names: Vec<String>,
}

// The options of `quota accounts clear-hold`.
#[derive(Debug, Args)]
pub(crate) struct ClearHoldArgs {
    /// Name of the account
    pub(crate) name: String,
}

// The options of `quota accounts import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// An accounts.json; - for standard input [default: the logins of this machine]
    pub(crate) file: Option<PathBuf>,
    /// Print what would be added, and add nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also add accounts whose token goes to a host that FILE names (base_url)
    #[arg(long, requires = "file")]
    pub(crate) allow_base_url: bool,
    /// Also add accounts whose token is printed by a program that FILE names (token_command)
    #[arg(long, requires = "file")]
    pub(crate) allow_token_command: bool,
}
