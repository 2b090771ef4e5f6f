//! The command line: what can be said, and how it is read.
//! What the commands do is in their own files; the long help texts are in `help`.

mod help;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use quota::AccountId;

use self::help::{
    BUDGET, BUDGET_MORE, DEMO, DEMO_MORE, EVENTS, EVENTS_MORE, PACE, PACE_MORE, PARSE, PARSE_MORE,
    PROGRAM_MORE, SIM, SIM_MORE, STATUS, STATUS_MORE, WATCH,
};
use crate::exit::{Exit, Failure};
use crate::term;

/// How much is left of each of your LLM accounts.
#[derive(Debug, Parser)]
#[command(name = "quota", version, max_term_width = 80, after_help = PROGRAM_MORE)]
pub(crate) struct Arguments {
    /// The store that is shared with other processes and hosts [default: $QUOTA_STORE, else memory:]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how much of each account's windows is used
    #[command(long_about = STATUS, after_long_help = STATUS_MORE)]
    Status(StatusArgs),
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
    /// Show on a simulated provider what this program is for
    #[command(long_about = DEMO, after_long_help = DEMO_MORE)]
    Demo(DemoArgs),
    /// Show what is understood of a saved answer of a provider
    #[command(long_about = PARSE, after_long_help = PARSE_MORE)]
    Parse(ParseArgs),
    /// Run a simulated provider on this machine
    #[command(long_about = SIM, after_long_help = SIM_MORE)]
    Sim(SimArgs),
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
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which accounts are meant, and how they are shown: what most commands ask for.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Only this account; may be given more than once
    #[arg(long = "account", value_name = "ID")]
    pub(crate) accounts: Vec<AccountId>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota pace`.
#[derive(Debug, Args)]
pub(crate) struct PaceArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// Only this window, such as five_hour
    #[arg(long, value_name = "WINDOW")]
    pub(crate) window: Option<String>,
    /// Draw each window's period
    #[arg(long, conflicts_with = "json")]
    pub(crate) plot: bool,
    /// Write the drawing to this file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// The options of `quota budget`.
#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// The options of `quota events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// Go on telling what happens, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the last ones are shown
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
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

/// Reads the command line.
///
/// # Errors
///
/// How the program ends if there is nothing to do: after a help text, or because it was not understood.
pub(crate) fn parse() -> Result<Arguments, Result<Exit, Failure>> {
    Arguments::try_parse().map_err(|error| {
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
    term::answer(&String::from_utf8_lossy(&script))?;
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
