//! The command line: what can be said, and how it is read.
//! What the commands do is in their own files; the long help texts are in `help`.

mod accounts;
mod before;
mod help;
mod journal;
mod local;
mod quick;
mod route;
mod usage_error;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use jiff::SignedDuration;

pub(crate) use self::accounts::{
    AccountsCommand, AddArgs, ClearHoldArgs, ImportArgs, Limit, ListArgs, NamedArgs, SetArgs,
};
use self::before::Before;
use self::help::{
    ACCOUNTS, ACCOUNTS_MORE, BUDGET, BUDGET_MORE, DEMO, DEMO_MORE, DOCTOR, EVENTS, EVENTS_MORE, EXPLAIN,
    EXPLAIN_MORE, GUARD, GUARD_MORE, INIT, PACE, PACE_MORE, PARSE, PARSE_MORE, PICK, PICK_MORE, PROGRAM_MORE,
    RUN, RUN_MORE, SIM, SIM_MORE, STATUS, STATUS_MORE, STATUSLINE, STATUSLINE_MORE, WATCH,
};
pub(crate) use self::journal::{BudgetArgs, EventsArgs, PaceArgs, Shown, WatchArgs};
pub(crate) use self::local::{GuardArgs, Preset, RefreshArgs, StatuslineArgs, Unknown};
pub(crate) use self::route::{ExplainArgs, PickArgs, RequestArgs, RunArgs};
use crate::exit::{Exit, Failure};
use crate::term;

/// How much is left of each of your LLM accounts.
#[derive(Debug, Parser)]
#[command(name = "quota", version, max_term_width = 80, after_help = PROGRAM_MORE)]
pub(crate) struct Arguments {
    /// The store that is shared with other processes and hosts [default: $QUOTA_STORE, else a file of this user]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    before: Before,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how much of each account's windows is used
    #[command(long_about = STATUS, after_long_help = STATUS_MORE)]
    Status(StatusArgs),
    /// Show one line for a statusline, without ever waiting for the network
    #[command(long_about = STATUSLINE, after_long_help = STATUSLINE_MORE)]
    Statusline(StatuslineArgs),
    /// Say by the exit code whether enough is left to begin
    #[command(long_about = GUARD, after_long_help = GUARD_MORE)]
    Guard(GuardArgs),
    /// Say which account to use now
    #[command(long_about = PICK, after_long_help = PICK_MORE)]
    Pick(PickArgs),
    /// Show which account is to be used now, and why not the others
    #[command(long_about = EXPLAIN, after_long_help = EXPLAIN_MORE)]
    Explain(ExplainArgs),
    /// Run a command with the account that is to be used now
    #[command(long_about = RUN, after_long_help = RUN_MORE)]
    Run(RunArgs),
    /// List, add, change, remove, order and switch accounts
    #[command(long_about = ACCOUNTS, after_long_help = ACCOUNTS_MORE)]
    Accounts {
        #[command(subcommand)]
        command: Option<AccountsCommand>,
        /// Those of the list, which is shown where no command is given.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Watch all accounts live, until you leave
    #[command(long_about = WATCH)]
    Watch(WatchArgs),
    /// Show how fast windows are used, and when they will be used up
    #[command(long_about = PACE, after_long_help = PACE_MORE)]
    Pace(PaceArgs),
    /// Show how many calls to the providers were made in the last hour, by whom, and when the next is allowed
    #[command(long_about = BUDGET, after_long_help = BUDGET_MORE)]
    Budget(BudgetArgs),
    /// Show what happened: resets, thresholds, holds, failures, logins
    #[command(long_about = EVENTS, after_long_help = EVENTS_MORE)]
    Events(EventsArgs),
    /// Look whether everything is as it should be, and say what to do where it is not
    #[command(long_about = DOCTOR)]
    Doctor(DoctorArgs),
    /// Write a configuration of the logins that are found
    #[command(long_about = INIT)]
    Init(InitArgs),
    /// Show on a simulated provider what this program is for
    #[command(long_about = DEMO, after_long_help = DEMO_MORE)]
    Demo(DemoArgs),
    /// Show what is understood of a saved answer of a provider
    #[command(long_about = PARSE, after_long_help = PARSE_MORE)]
    Parse(ParseArgs),
    /// Run a simulated provider on this machine
    #[command(long_about = SIM, after_long_help = SIM_MORE)]
    Sim(SimArgs),
    /// Ask about one account for a statusline that does not wait
    #[command(hide = true)]
    RefreshDetached(RefreshArgs),
    /// Write the completions of a shell
    #[command(after_help = "\
Examples:
  quota completions bash > ~/.local/share/bash-completion/completions/quota
  quota completions zsh > \"${fpath[1]}/_quota\"
  quota completions fish > ~/.config/fish/completions/quota.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The options of `quota status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only these accounts: a,b or the option again
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Ask about accounts whose numbers are older than this, such as 30s or 10m [default: `freshness`]
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with_all = ["refresh", "offline"])]
    pub(crate) max_age: Option<Duration>,
    /// Refresh all accounts now, where the rules allow, but none that was called less than 10 s ago
    #[arg(long, conflicts_with = "offline")]
    pub(crate) refresh: bool,
    /// Ask nobody; show what is known
    #[arg(long)]
    pub(crate) offline: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Look at this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Write over one that is there, and keep a copy
    #[arg(long, conflicts_with = "print")]
    pub(crate) force: bool,
    /// Write it to standard output
    #[arg(long)]
    pub(crate) print: bool,
    /// Write JSON about what was written
    #[arg(long, conflicts_with = "print")]
    pub(crate) json: bool,
    /// Write this file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many accounts there are: a main one and fallbacks
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) accounts: u8,
    /// How many consumers read at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) consumers: u32,
    /// How long it lasts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Decides what happens when, and to whom; another one each time if it is not given
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `quota parse`.
#[derive(Debug, Args)]
pub(crate) struct ParseArgs {
    /// Whose answer it is
    pub(crate) provider: Provider,
    /// The saved answer; - for standard input
    pub(crate) file: PathBuf,
    /// It is headers, one on each line
    #[arg(long)]
    pub(crate) headers: bool,
}

/// A provider whose answers can be read.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Provider {
    /// Claude
    Anthropic,
}

/// The options of `quota sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The port; any that is free if it is not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// What happens, in TOML; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}

/// Reads a share from 0 to 100.
fn percent(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=100.0).contains(share));
    share.ok_or("a percentage is a number from 0 to 100")
}

/// Reads the name of an account where only one can be meant.
fn one_account(text: &str) -> Result<String, &'static str> {
    if text.contains(',') { Err("only one account can be named here") } else { Ok(text.to_owned()) }
}

/// Reads a span such as `30s`, `10m` or `1h 30m`.
fn span(text: &str) -> Result<Duration, &'static str> {
    let span: SignedDuration = text.parse().map_err(|_| "write it like 30s, 10m or \"1h 30m\"")?;
    Duration::try_from(span).map_err(|_| "a span is not below zero")
}

/// Reads the command line.
///
/// # Errors
///
/// How the program ends if there is nothing to do: after a help text, or because it was not understood.
pub(crate) fn parse() -> Result<Arguments, Result<Exit, Failure>> {
    if let Some(arguments) = quick::read(std::env::args_os()) {
        return Ok(arguments);
    }
    Arguments::try_parse().and_then(Arguments::settled).map_err(|error| {
        let error = usage_error::safe(error);
        let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
        match error.print() {
            Err(error) if exit == Exit::Done => Err(Failure::unwritten(&error)),
            _ => Ok(exit),
        }
    })
}

/// Writes the completions of a shell.
///
/// # Errors
///
/// [`Failure`] if they cannot be written.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "quota", &mut script);
    let _ = script.flush();
    term::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_span_is_read_as_people_write_it() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "5", "soon", "-5m"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_demo_has_bounds() {
        for bad in [
            "--accounts=0",
            "--accounts=51",
            "--consumers=0",
            "--consumers=1000001",
            "--seconds=0",
            "--seconds=3601",
        ] {
            assert!(Arguments::try_parse_from(["quota", "demo", bad]).is_err(), "{bad}");
        }
        for good in ["--accounts=50", "--consumers=1000000", "--seconds=3600"] {
            assert!(Arguments::try_parse_from(["quota", "demo", good]).is_ok(), "{good}");
        }
    }
}
