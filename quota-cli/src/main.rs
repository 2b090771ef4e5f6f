//! The program `quota` shows the usage of LLM accounts, for users and scripts. This crate contains the command line, the
//! configuration and the output. The crates `quota`, `quota-journal`, `quota-view` and `quota-sim` do the work.

mod account_picker;
mod account_query;
mod call_limit;
#[cfg(test)]
mod captures;
mod cli;
mod command_store;
mod commands;
mod config;
mod context;
mod detached;
mod detected_logins;
mod exit;
mod hint;
mod hook_failures;
mod input;
mod io_cause;
mod journal;
mod local_usage;
mod login_folder;
#[cfg(test)]
mod man;
mod read_context;
mod reset_grace;
mod runtime;
mod scope;
mod store;
mod store_probe;
mod term;
mod token_like;
mod unnamed_model;
mod view;

use std::process::ExitCode;

use cli::{Arguments, Command};
use exit::{CliError, Exit};
use quota_view::{format, sanitize, zone};

fn main() -> ExitCode {
    exit::report(match cli::parse() {
        Ok(arguments) => {
            hint::set(&arguments.global);
            run(&arguments)
        }
        Err(ended) => ended,
    })
}

fn run(Arguments { command, global }: &Arguments) -> Result<Exit, CliError> {
    match command {
        Command::Status(options) => commands::status::run(options, global),
        Command::Statusline(options) => commands::statusline::run(options, global),
        Command::RefreshDetached(options) => commands::statusline::refresher::run(options, global),
        Command::Guard(options) => commands::guard::run(options, global),
        Command::Pick(options) => commands::pick::run(options, global),
        Command::Explain(options) => commands::explain::run(options, global),
        Command::Run(options) => commands::run::run(options, global),
        Command::Accounts(options) => commands::accounts::run(options, global),
        Command::Watch(_) => commands::watch::run(global),
        Command::Pace(options) => commands::pace::run(options, global),
        Command::Budget(options) => commands::budget::run(options, global),
        Command::Events(options) => commands::events::run(options, global),
        Command::Doctor(_) => commands::doctor::run(global),
        Command::Init(options) => commands::init::run(options, global),
        Command::Providers(options) => commands::providers::run(options, global),
        Command::Demo(options) => commands::demo::run(options, global),
        Command::Serve(options) => commands::serve::run(options, global),
        Command::Wrap(options) => commands::wrap::run(options, global),
        Command::Mcp(_) => commands::mcp::run(global),
        Command::Parse(options) => commands::parse::run(options, global),
        Command::Sim(options) => commands::sim::run(options),
        Command::RunHooks => commands::background::run_hooks(),
        Command::UpdateJournals => commands::background::update_journals(global),
        Command::Completions(options) => commands::completions::run(options),
    }
}
