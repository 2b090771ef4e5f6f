//! `quota init`: writes a commented configuration for the logins on this machine.
//! It writes where the logins are, and never a token.

mod save;
mod template;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::{GlobalOptions, InitArgs};
use crate::config;
use crate::detected_logins::{DetectedLogin, DetectedLogins};
use crate::exit::{CliError, Exit};
use crate::hint;
use crate::io_cause;
use crate::runtime;
use crate::sanitize::sanitize;
use crate::scope;
use crate::term;
use crate::token_like::without_tokens;
use crate::view::json;

/// Writes the configuration, or prints it or its JSON Schema.
///
/// # Errors
///
/// [`CliError`] if a file exists and the user did not agree to overwrite it, or it cannot be written.
pub(crate) fn run(options: &InitArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    if options.schema {
        term::print(config::SCHEMA)?;
        return Ok(Exit::Success);
    }
    if options.print {
        term::print(&template::render(&detect()?))?;
        return Ok(Exit::Success);
    }
    let path = target(global.config.as_deref())?;
    let exists = path.symlink_metadata().is_ok();
    // Ask before signal handlers are installed, so that Ctrl-C at the question ends the program.
    if exists && !options.force && !confirm(&path)? {
        term::eprint("quota: nothing was written\n");
        return Ok(Exit::Incomplete);
    }
    let logins = detect()?;
    let text = template::render(&logins);
    let backup = runtime::run(async {
        save::write_atomic(&path, &text, exists).await.map_err(|error| {
            let why = io_cause::of_write(&error);
            CliError::new(Exit::IoErr, format!("could not write {}: {why}", path.display()))
        })
    })?;
    if global.json {
        return print_json(&path, backup.as_deref(), &logins);
    }
    let backup =
        backup.map_or_else(String::new, |backup| format!("Previous file saved as {}.\n", backup.display()));
    let check = hint::command("doctor");
    let found: String = logins.logins.iter().map(describe).collect();
    let message =
        format!("Wrote {}.\n{backup}{found}Check with: {check}\n{}", path.display(), logins.second_logins());
    term::print(&without_tokens(&message))?;
    Ok(Exit::Success)
}

/// One line about a login.
fn describe(one: &DetectedLogin) -> String {
    let (id, location) = (&one.id, sanitize(&one.location));
    match &one.same_as {
        Some(other) => format!("  not added: {location} has the same login as {other}\n"),
        None => format!("  {id}: {} ({location})\n", one.login.describe()),
    }
}

/// Finds the logins on this machine.
fn detect() -> Result<DetectedLogins, CliError> {
    scope::run(async |scope| {
        // On macOS a child process reads the keychain. A signal ends it too.
        scope.listen()?;
        Ok(DetectedLogins::detect().await)
    })
}

fn print_json(path: &Path, backup: Option<&Path>, logins: &DetectedLogins) -> Result<Exit, CliError> {
    let text = |path: &Path| without_tokens(&path.display().to_string()).into_owned();
    let added = logins.logins.iter().filter(|one| one.same_as.is_none());
    let accounts = added.map(|one| one.id.to_string()).collect();
    let document = InitJson { version: 2, path: text(path), backup: backup.map(text), accounts };
    term::print(&json::one_line(&document))?;
    Ok(Exit::Success)
}

/// The JSON of `quota init`, which docs/init-json.md describes.
#[derive(Serialize)]
struct InitJson {
    version: u32,
    path: String,
    backup: Option<String>,
    accounts: Vec<String>,
}

fn target(named: Option<&Path>) -> Result<PathBuf, CliError> {
    named.map(Path::to_owned).or_else(config::default_path).ok_or_else(|| {
        let why = "neither XDG_CONFIG_HOME nor HOME is set; choose a file with --config";
        CliError::new(Exit::Usage, why)
    })
}

/// Asks at the terminal whether to overwrite the file.
fn confirm(path: &Path) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let why = format!("{} already exists; --force overwrites it and keeps a backup", path.display());
        return Err(CliError::new(Exit::Usage, why));
    }
    term::eprint(&format!("{} already exists. Overwrite (a backup is kept)? [y/N] ", path.display()));
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        CliError::new(
            Exit::NoInput,
            format!("could not read the answer: {}; use --force", io_cause::plain(&error)),
        )
    })?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
