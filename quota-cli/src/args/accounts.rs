//! The options of `quota accounts`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::percent;

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Show all accounts in their order
    List(ListArgs),
    /// Add an account, and say where its login is
    Add(AddArgs),
    /// Change the limits of an account
    Set(SetArgs),
    /// Remove accounts, and what is stored of them
    Remove(NamedArgs),
    /// Switch accounts off: they are shown, and neither asked about nor used
    Disable(NamedArgs),
    /// Switch accounts on again
    Enable(NamedArgs),
    /// Lift the hold on an account for all processes, so that the next command may refresh it
    ///
    /// A hold keeps all processes from refreshing an account, because the provider asked to wait or has failed. The next failure
    /// arms a new one. The provider's cooldown after a 429, the hour's budget and a rejected login are not lifted.
    ClearHold(ClearHoldArgs),
    /// Put accounts first, in this order; the first of all is the main one
    Order(NamedArgs),
    /// Add the logins that are found on this machine, or the accounts of another file
    Import(ImportArgs),
}

/// The options of `quota accounts list`.
#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota accounts add`. Without any, its login is that of Claude Code.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("login").args(["claude_config_dir", "token_env", "token_file", "token_command"]))]
pub(crate) struct AddArgs {
    /// What it is to be called: anthropic/work, or work
    pub(crate) name: String,
    /// Its login is Claude Code's with CLAUDE_CONFIG_DIR set to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) claude_config_dir: Option<PathBuf>,
    /// Its token is in this environment variable
    #[arg(long, value_name = "NAME")]
    pub(crate) token_env: Option<String>,
    /// Its token is in this file, which is its owner's alone (chmod 600)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Its token is printed by this program; whatever follows are its arguments
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) token_command: Option<Vec<String>>,
    /// Ask here about it: a proxy, or `quota sim`
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// How much must be left of its windows for it to be taken while another has more, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_remaining: Option<f64>,
    /// Its killswitch: if less is left, in percent, it is never used
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) killswitch: Option<f64>,
    /// Make it the main account
    #[arg(long)]
    pub(crate) first: bool,
    /// Change this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota accounts set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limit").args(["min_remaining", "killswitch"]).multiple(true).required(true))]
pub(crate) struct SetArgs {
    /// The account
    pub(crate) name: String,
    /// How much must be left of its windows for it to be taken while another has more, in percent; none for that of [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) min_remaining: Option<Limit>,
    /// Its killswitch: if less is left, in percent, it is never used; none for that of [routing]
    #[arg(long, value_name = "PERCENT", value_parser = limit)]
    pub(crate) killswitch: Option<Limit>,
    /// Change this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// A limit in percent; `None` takes away the one there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit(pub(crate) Option<f64>);

fn limit(text: &str) -> Result<Limit, &'static str> {
    if text == "none" {
        return Ok(Limit(None));
    }
    percent(text).map(|share| Limit(Some(share))).map_err(|_| "write a percentage from 0 to 100, or none")
}

/// Accounts that are named.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The accounts
    #[arg(required = true, value_name = "NAME", value_delimiter = ',')]
    pub(crate) names: Vec<String>,
    /// Change this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota accounts clear-hold`.
#[derive(Debug, Args)]
pub(crate) struct ClearHoldArgs {
    /// The account
    pub(crate) name: String,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota accounts import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// An accounts.json; - for standard input [default: the logins of this machine]
    pub(crate) file: Option<PathBuf>,
    /// Say what would be added, and add nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also add accounts whose token goes to a host that FILE names (base_url)
    #[arg(long, requires = "file")]
    pub(crate) allow_base_url: bool,
    /// Also add accounts whose token is printed by a program that FILE names (token_command)
    #[arg(long, requires = "file")]
    pub(crate) allow_token_command: bool,
    /// Change this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
