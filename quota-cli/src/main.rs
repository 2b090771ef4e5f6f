//! The program `quota`: how much is left of each LLM account, at a terminal and for scripts.
//! The work is done by the crates `quota` and `quota-sim`; here are its command line, its configuration and its words.

mod args;
mod config;
mod demo;
mod exit;
mod gateway;
mod hooks;
mod input;
mod journal;
mod parse;
mod runtime;
mod sim;
mod status;
mod term;
mod words;

use std::process::ExitCode;

use args::{Arguments, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    exit::end(match args::parse() {
        Ok(arguments) => run(&arguments),
        Err(nothing_to_do) => nothing_to_do,
    })
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.store.is_some() && !matches!(arguments.command, Command::Status(_)) {
        // It would be ignored, and somebody would wonder why nothing is shared.
        return Err(Failure::new(Exit::Usage, "only quota status uses a store; leave out --store"));
    }
    match &arguments.command {
        Command::Status(options) => status::run(options, arguments.store.as_deref()),
        Command::Demo(options) => demo::run(options),
        Command::Parse(options) => parse::run(options),
        Command::Sim(options) => sim::run(options),
        Command::Completions { shell } => args::completions(*shell),
    }
}
