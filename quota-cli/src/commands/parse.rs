//! `quota parse`: shows what is understood of a saved answer.
//! The understanding itself is that of the provider's parsers; what kind of answer it is, is told in `kind`.

mod header_lines;
mod kind;
mod report;

use crate::cli::{ParseArgs, Provider};
use crate::exit::{CliError, Exit};
use crate::{input, term};

/// Shows what is understood.
///
/// # Errors
///
/// [`CliError`] if the input cannot be read, or nothing in it is understood.
pub(crate) fn run(options: &ParseArgs) -> Result<Exit, CliError> {
    let Provider::Anthropic = options.provider;
    let bytes = input::read_input(&options.file)?;
    let malformed =
        |why: String| CliError::new(Exit::DataErr, format!("{}: {why}", input::display_name(&options.file)));
    let report = if options.headers { header_lines::read(&bytes) } else { kind::read(&bytes) };
    let report = report.map_err(malformed)?;
    term::print(&report.render())?;
    if report.says_nothing() {
        term::eprint(
            "quota: nothing in it says how much is used; what was left out is listed under \"ignored\"\n",
        );
    }
    Ok(Exit::Success)
}
