//! The command line. Each argument carries its own help text; `commands` runs the commands.

mod accounts;
mod global;
mod history;
mod mcp;
mod routing;
mod scripting;
mod serve;
mod setup;
mod simulation;
mod status;
mod usage_error;
mod wrap;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args as _, CommandFactory, FromArgMatches as _, Parser, Subcommand};
use jiff::SignedDuration;

pub(crate) use self::accounts::{
    AccountNames, AccountsArgs, AccountsCommand, AddArgs, ClearHoldArgs, ImportArgs, LimitSetting, LoginArgs,
    SetArgs,
};
use self::global::GlobalOption;
pub(crate) use self::global::GlobalOptions;
pub(crate) use self::history::{BudgetArgs, EventsArgs, PaceArgs};
pub(crate) use self::mcp::McpArgs;
pub(crate) use self::routing::{ExplainArgs, PickArgs, RequestArgs, RunArgs};
pub(crate) use self::scripting::{GuardArgs, Preset, RefreshArgs, StatuslineArgs, Unknown};
pub(crate) use self::serve::ServeArgs;
pub(crate) use self::setup::{CompletionsArgs, DoctorArgs, InitArgs, ProvidersArgs};
pub(crate) use self::simulation::{DemoArgs, ParseArgs, SimArgs, Simulated};
pub(crate) use self::status::{StatusArgs, WatchArgs};
pub(crate) use self::wrap::WrapArgs;
use crate::exit::{CliError, Exit};

/// Show how much quota is left in your LLM accounts
#[derive(Debug, Parser)]
#[command(name = "quota", version, max_term_width = 80, args = global::args(GlobalOption::ALL), after_help = "\
Examples:
  quota status       show the windows of every account
  quota statusline   print one line for a prompt or a bar, without waiting
  quota guard        exit 0 if enough quota is left, for scripts
  quota pick         print which of several accounts to use now
  quota accounts     list the accounts in order
  quota pace         show how fast windows are being used, and when they run out
  quota events       show past events
  quota doctor       show problems and their fixes
  quota serve        answer the usage requests of other programs over HTTP
  quota wrap         run a program, and answer its usage requests
  quota mcp          give agents tools that show usage and pick accounts
  quota providers    list the supported providers and their logins
  quota demo         run a ten-second demo that needs no account
  quota sim          run a simulated provider for testing

Global options may be given before or after the command.

Exit codes: 0 success, 1 an account has no data or is exhausted, 3 no account was found or all are disabled, 64 usage error, 65 \
malformed input, 66 unreadable input, 69 unavailable or unknown, 74 write error, 78 invalid configuration; 129, 130, 131 and 143 \
terminated \
by SIGHUP, Ctrl-C, SIGQUIT and SIGTERM.")]
pub(crate) struct Arguments {
    #[arg(skip)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands. Each command's help text is defined on its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(args = global::args(GlobalOption::ALL))]
    Status(StatusArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Statusline(StatuslineArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Guard(GuardArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Pick(PickArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Explain(ExplainArgs),
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Run(RunArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Accounts(AccountsArgs),
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Watch(WatchArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Pace(PaceArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Budget(BudgetArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Events(EventsArgs),
    #[command(args = global::args(GlobalOption::ALL))]
    Doctor(DoctorArgs),
    #[command(args = global::args([GlobalOption::Config, GlobalOption::Json]))]
    Init(InitArgs),
    #[command(args = global::args([GlobalOption::Config, GlobalOption::Json]))]
    Providers(ProvidersArgs),
    #[command(args = global::args([GlobalOption::Json]))]
    Demo(DemoArgs),
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Serve(ServeArgs),
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Wrap(WrapArgs),
    #[command(args = global::args(GlobalOption::STORE_AND_CONFIG))]
    Mcp(McpArgs),
    #[command(args = global::args([GlobalOption::Config]))]
    Parse(ParseArgs),
    Sim(SimArgs),
    #[command(hide = true, args = global::args(GlobalOption::STORE_AND_CONFIG))]
    RefreshDetached(RefreshArgs),
    /// Run hooks in a detached process
    #[command(hide = true)]
    RunHooks,
    /// Update the journals of all accounts in a detached process
    #[command(hide = true, args = global::args(GlobalOption::STORE_AND_CONFIG))]
    UpdateJournals,
    Completions(CompletionsArgs),
}

impl Arguments {
    /// Reads a command line that begins with the name of the program.
    fn read<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let is_statusline = words.get(1).is_some_and(|command| command == "statusline");
        let mut program = if is_statusline { statusline_only() } else { Self::command() };
        let matches = program.try_get_matches_from_mut(words)?;
        let global = GlobalOptions::collect(&mut program, &matches)?;
        let arguments = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut program))?;
        Ok(Self { global, ..arguments })
    }
}

/// The program with only the command `statusline`. A statusline runs at each prompt. Building the other commands would
/// double the instructions that it executes before it reads its input: 1.16 million instead of 0.61 million
/// (callgrind).
fn statusline_only() -> clap::Command {
    let statusline = StatuslineArgs::augment_args(clap::Command::new("statusline"));
    let statusline = statusline.args(global::args(GlobalOption::ALL));
    clap::Command::new("quota").max_term_width(80).subcommand_required(true).subcommand(statusline)
}

/// Reads the command line of this process.
///
/// # Errors
///
/// The result to exit with, after this function has printed help or a usage error.
pub(crate) fn parse() -> Result<Arguments, Result<Exit, CliError>> {
    Arguments::read(std::env::args_os()).map_err(|error| {
        let error = usage_error::safe(error);
        let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
        match error.print() {
            Err(error) if exit == Exit::Success => Err(CliError::write(&error)),
            _ => Ok(exit),
        }
    })
}

/// Parses a percentage.
fn percent(text: &str) -> Result<f64, &'static str> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or("expected a percentage from 0 to 100")
}

/// Parses an account name where a list is not allowed.
fn one_account(text: &str) -> Result<String, &'static str> {
    if text.contains(',') { Err("expected a single account") } else { Ok(text.to_owned()) }
}

/// Parses a duration such as `30s`, `10m` or `1h 30m`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "expected a duration such as 30s, 10m or \"1h 30m\"")?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_command_definitions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_unit_and_is_not_negative() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "5", "soon", "-5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn demo_arguments_are_bounded() {
        for bad in [
            "--accounts=0",
            "--accounts=51",
            "--consumers=0",
            "--consumers=1000001",
            "--seconds=0",
            "--seconds=3601",
        ] {
            assert!(Arguments::read(["quota", "demo", bad]).is_err(), "{bad}");
        }
        for good in ["--accounts=50", "--consumers=1000000", "--seconds=3600"] {
            assert!(Arguments::read(["quota", "demo", good]).is_ok(), "{good}");
        }
    }

    /// All commands with their subcommands, without clap's own.
    fn pages(command: clap::Command) -> Vec<clap::Command> {
        let subcommands: Vec<_> =
            command.get_subcommands().filter(|one| one.get_name() != "help").cloned().collect();
        let pages = subcommands.into_iter().flat_map(pages);
        std::iter::once(command).chain(pages.collect::<Vec<_>>()).collect()
    }

    fn built() -> clap::Command {
        let mut program = Arguments::command().term_width(80);
        program.build();
        program
    }

    #[test]
    fn help_fits_into_eighty_columns() {
        for mut page in pages(built()) {
            for text in [page.render_help().to_string(), page.render_long_help().to_string()] {
                // Clap does not wrap the usage.
                let lines = text.lines().filter(|line| !line.starts_with("Usage:"));
                let long: Vec<_> = lines.filter(|line| line.chars().count() > 80).collect();
                assert!(long.is_empty(), "{}: {long:#?}", page.get_name());
            }
        }
    }

    #[test]
    fn each_help_page_describes_its_command() {
        for page in pages(built()).iter().filter(|page| !page.is_hide_set()) {
            let about = page.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.starts_with(char::is_uppercase) && about.len() > 9, "{}: {about}", page.get_name());
        }
    }

    #[test]
    fn global_options_are_listed_last_and_only_where_they_apply() {
        for mut page in pages(built()).into_iter().filter(|page| !page.is_hide_set()) {
            let text = page.render_help().to_string();
            let headings: Vec<_> = text.lines().filter(|line| line.ends_with("ptions:")).collect();
            let is_without = ["sim", "completions"].contains(&page.get_name());
            let wanted: &[_] = if is_without { &["Options:"] } else { &["Options:", "Global options:"] };
            assert_eq!(headings, wanted, "{}", page.get_name());
        }
    }

    #[test]
    fn statusline_help_and_errors_equal_those_of_the_full_program() {
        for line in [
            "quota statusline --help",
            "quota statusline -h",
            "quota statusline --bogus",
            "quota statusline x",
            "quota statusline --json --preset plain",
            "quota statusline --preset nope",
            "quota statusline --store",
        ] {
            let of = |program: clap::Command| {
                program.try_get_matches_from(line.split(' ')).unwrap_err().render().ansi().to_string()
            };

            assert_eq!(of(statusline_only()), of(Arguments::command()), "{line}");
        }
    }
}
