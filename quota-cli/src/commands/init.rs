//! `quota init`: writes a configuration with comments, of the logins that it finds.
//! What a configuration may say is in `config`; the logins are only looked for, and never written down.

mod save;
mod template;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::{GlobalOptions, InitArgs};
use crate::config;
use crate::detected_logins::DetectedLogins;
use crate::exit::{CliError, Exit};
use crate::hint;
use crate::io_cause;
use crate::runtime;
use crate::scope;
use crate::term;
use crate::token_like::without_tokens;

/// Writes the configuration, or shows it.
///
/// # Errors
///
/// [`CliError`] if one is there and nobody said that it may be written over, or it cannot be written.
pub(crate) fn run(options: &InitArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    if options.print {
        term::print(&drafted()?)?;
        return Ok(Exit::Success);
    }
    let path = place(global.config.as_deref())?;
    let is_there = path.symlink_metadata().is_ok();
    // Asked before anything listens for signals: they end the question as they end any program.
    if is_there && !options.force && !is_agreed(&path)? {
        term::eprint("quota: nothing was written\n");
        return Ok(Exit::Incomplete);
    }
    let text = drafted()?;
    let kept = runtime::run(async {
        save::whole(&path, &text, is_there).await.map_err(|error| {
            let why = io_cause::of_write(&error);
            CliError::new(Exit::IoErr, format!("could not write {}: {why}", path.display()))
        })
    })?;
    if global.json {
        return tell_json(&path, kept.as_deref());
    }
    let kept = kept.map_or_else(String::new, |kept| format!("The one before is {}.\n", kept.display()));
    let check = hint::command("doctor");
    let done = format!("Wrote {}.\n{kept}Check with: {check}\n", path.display());
    term::print(&without_tokens(&done))?;
    Ok(Exit::Success)
}

/// A configuration of the logins that it finds.
fn drafted() -> Result<String, CliError> {
    scope::run(async |scope| {
        // On macOS a program reads the keychain.
        scope.listen()?;
        Ok(template::render(&DetectedLogins::detect().await))
    })
}

fn tell_json(path: &Path, kept: Option<&Path>) -> Result<Exit, CliError> {
    let text = |path: &Path| without_tokens(&path.display().to_string()).into_owned();
    let document = Document { version: 1, path: text(path), kept: kept.map(text) };
    let told = serde_json::to_string(&document).expect("it has only text keys");
    term::print(&(told + "\n"))?;
    Ok(Exit::Success)
}

/// What `quota init --json` writes; its fields are told in docs/init-json.md.
#[derive(Serialize)]
struct Document {
    version: u32,
    path: String,
    kept: Option<String>,
}

fn place(named: Option<&Path>) -> Result<PathBuf, CliError> {
    named.map(Path::to_owned).or_else(config::default_path).ok_or_else(|| {
        let why = "neither XDG_CONFIG_HOME nor HOME is set; name a file with --config";
        CliError::new(Exit::Usage, why)
    })
}

/// Whether somebody at the terminal says that the file may be written over.
fn is_agreed(path: &Path) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let why = format!("{} is there already; --force writes over it and keeps a copy", path.display());
        return Err(CliError::new(Exit::Usage, why));
    }
    term::eprint(&format!("{} is there already. Write over it, and keep a copy? [y/N] ", path.display()));
    let _ = io::stderr().flush();
    let mut said = String::new();
    io::stdin().read_line(&mut said).map_err(|error| {
        CliError::new(
            Exit::NoInput,
            format!("could not read the answer: {}; use --force", io_cause::plain(&error)),
        )
    })?;
    Ok(matches!(said.trim().to_lowercase().as_str(), "y" | "yes"))
}
