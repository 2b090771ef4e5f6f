//! `quota parse`: prints what quota parses from a saved response of a provider.
//! `document` parses a body or another document, `header_lines` parses headers.

mod document;
mod header_lines;
mod report;

use crate::cli::{GlobalOptions, ParseArgs};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::{input, term};

/// Prints what was parsed.
///
/// # Errors
///
/// [`CliError`] if the input cannot be read, or nothing in it can be parsed.
pub(crate) fn run(options: &ParseArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let usage = |why: String| CliError::new(Exit::Usage, why);
    let (name, file) = options.provider_and_file().map_err(|why| usage(why.to_owned()))?;
    let provider = context::defined_providers(global.config.as_deref())?.named(name).map_err(usage)?;
    let bytes = input::read_input(file)?;
    let malformed =
        |why: String| CliError::new(Exit::DataErr, format!("{}: {why}", input::display_name(file)));
    let report =
        if options.headers { header_lines::read(provider, &bytes) } else { document::read(provider, &bytes) };
    let report = report.map_err(malformed)?;
    term::print(&report.render())?;
    if report.is_empty() {
        term::eprint("quota: no usage found; \"ignored\" lists the skipped fields\n");
    }
    Ok(Exit::Success)
}
