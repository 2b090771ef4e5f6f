//! The program `quota`: how much is left of each LLM account, at a terminal and for scripts.
//! The work is done by the crates `quota`, `quota-journal` and `quota-sim`; here are its command line, its configuration and its words.

mod args;
mod call_limit;
#[cfg(test)]
mod captures;
mod command_store;
mod commands;
mod config;
mod context;
mod detected_logins;
mod exit;
mod explain;
mod format;
mod gateway;
mod guard;
mod harmless;
mod hint;
mod input;
mod io_cause;
mod journal;
mod pick;
mod reset_grace;
mod router;
mod run;
mod runtime;
mod scope;
mod shared;
mod sharing;
mod term;
mod token_like;
mod unnamed_model;
mod view;
mod zone;

use std::process::ExitCode;

use args::{Arguments, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    exit::end(match args::parse() {
        Ok(mut arguments) => {
            hint::set(arguments.named_config(), arguments.store.clone());
            run(&arguments)
        }
        Err(nothing_to_do) => nothing_to_do,
    })
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let store = arguments.store.as_deref();
    if store.is_some() && !uses_a_store(&arguments.command) {
        // It would be ignored, and somebody would wonder why nothing is shared.
        return Err(Failure::new(Exit::Usage, "this command uses no store; leave out --store"));
    }
    match &arguments.command {
        Command::Status(options) => apart(|| commands::status::run(options, store)),
        Command::Statusline(options) => apart(|| commands::statusline::run(options, store)),
        Command::RefreshDetached(options) => apart(|| commands::statusline::refresher::run(options, store)),
        Command::Guard(options) => apart(|| guard::run(options, store)),
        Command::Pick(options) => apart(|| pick::run(options, store)),
        Command::Explain(options) => apart(|| explain::run(options, store)),
        Command::Run(options) => apart(|| run::run(options, store)),
        Command::Accounts { command, .. } => apart(|| commands::accounts::run(command.as_ref(), store)),
        Command::Watch(options) => apart(|| commands::watch::run(options, store)),
        Command::Pace(options) => apart(|| commands::pace::run(options, store)),
        Command::Budget(options) => apart(|| commands::budget::run(options, store)),
        Command::Events(options) => apart(|| commands::events::run(options, store)),
        Command::Doctor(options) => apart(|| commands::doctor::run(options, store)),
        Command::Init(options) => apart(|| commands::init::run(options)),
        Command::Demo(options) => apart(|| commands::demo::run(options)),
        Command::Parse(options) => apart(|| commands::parse::run(options)),
        Command::Sim(options) => apart(|| commands::sim::run(options)),
        Command::Completions { shell } => args::completions(*shell),
    }
}

/// Gives each command a frame of its own on the stack: else every start would touch as much as the largest of them needs.
#[inline(never)]
fn apart<T>(command: impl FnOnce() -> T) -> T {
    command()
}

fn uses_a_store(command: &Command) -> bool {
    use Command::{Accounts, Completions, Demo, Init, Parse, Sim};
    match command {
        Accounts { command, .. } => {
            use args::AccountsCommand::{Add, ClearHold, List, Remove};
            matches!(command, None | Some(List(_) | ClearHold(_) | Add(_) | Remove(_)))
        }
        Demo(_) | Init(_) | Parse(_) | Sim(_) | Completions { .. } => false,
        _ => true,
    }
}
