//! The program `quota`: how much is left of each LLM account, at a terminal and for scripts.
//! The work is done by the crates `quota` and `quota-sim`; here are its command line, its configuration and its words.

mod args;
mod config;
mod demo;
mod exit;
mod gateway;
mod input;
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
    match &arguments.command {
        Command::Status(options) => status::run(options),
        Command::Demo(options) => demo::run(options),
        Command::Parse(options) => parse::run(options),
        Command::Sim(options) => sim::run(options),
        Command::Completions { shell } => args::completions(*shell),
    }
}
