//! The accounts that a command works on.

use std::path::Path;

use crate::config::{self, Config};
use crate::exit::Failure;
use crate::{detected_logins, term};

/// Loads the named configuration or the default one, or uses Claude Code's login. `None` if there is neither, which is printed.
///
/// # Errors
///
/// [`Failure`] if the configuration cannot be used.
pub(crate) async fn configuration(named: Option<&Path>) -> Result<Option<Config>, Failure> {
    let config = Config::named_or_usual(named)?;
    if !config.is_implied() {
        return Ok(Some(config));
    }
    match detected_logins::find_claude_code().await {
        Ok(()) => Ok(Some(config)),
        Err(searched) => {
            term::eprint(&detected_logins::nothing_found(&searched, config::usual_path().as_deref()));
            Ok(None)
        }
    }
}

/// Loads the same, but without accounts if there is none. Prints nothing.
///
/// # Errors
///
/// [`Failure`] if the configuration cannot be used.
pub(crate) async fn configuration_or_empty(named: Option<&Path>) -> Result<Config, Failure> {
    let mut config = Config::maybe_empty(named)?;
    if config.is_implied() && detected_logins::find_claude_code().await.is_err() {
        config.accounts.clear();
    }
    Ok(config)
}
