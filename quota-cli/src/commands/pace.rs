//! `quota pace`: shows how fast windows are used, and when they run out. It makes no provider calls.
//! quota-journal estimates the rates; `text`, `plot` and `svg` render them.

mod plot;
mod svg;
mod text;

use std::fs;
use std::path::Path;

#[cfg(test)]
use quota::AccountId;
use quota_view::pace::{AccountPace, AccountPaceJson, JSON_VERSION};

use crate::cli::{GlobalOptions, PaceArgs};
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::io_cause;
use crate::read_context::ReadContext;
use crate::sanitize::sanitize;
use crate::scope;
use crate::term::{self, Screen};
use crate::view::json;
#[cfg(test)]
use crate::view::line::Line;
#[cfg(test)]
use quota_journal::JournalUpdate;

/// Shows the pace of every window.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &PaceArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut local = LocalTime::now();
        let mut all = Vec::new();
        for account in &shared.config.accounts {
            let update = shared.load(&account.id).await?;
            local.now = update.now;
            let max_age = shared.config.policy_of(account.id.provider()).max_age;
            let (snapshot, history) = (update.record.snapshot(), update.journal.history());
            let only = options.window.as_deref();
            all.push(AccountPace::of(&account.id, snapshot, history, update.now, max_age, only));
        }
        if let Some(window) = &options.window
            && all.iter().all(|account| account.windows.is_empty())
        {
            return Err(CliError::new(Exit::Usage, format!("no account has a window {}", sanitize(window))));
        }
        show(options, global.json, &all, &local)?;
        shared.print_hook_failures().await;
        let has_gaps = all.iter().any(|account| account.windows.iter().any(|window| window.rate().is_none()));
        let is_empty = all.iter().all(|account| account.windows.is_empty());
        Ok(if has_gaps || is_empty { Exit::Incomplete } else { Exit::Success })
    })
}

/// The document of all accounts, with a final line break.
fn json(all: &[AccountPace], local: &LocalTime) -> String {
    let accounts = all.iter().map(|account| AccountPaceJson::of(account, local.now)).collect();
    json::accounts(JSON_VERSION, accounts, local)
}

fn show(options: &PaceArgs, is_json: bool, all: &[AccountPace], local: &LocalTime) -> Result<(), CliError> {
    if let Some(path) = &options.svg {
        let drawing = svg::render(all, local);
        if path == Path::new("-") {
            return term::print(&drawing);
        }
        fs::write(path, drawing).map_err(|error| {
            CliError::new(
                Exit::IoErr,
                format!("could not write {}: {}", path.display(), io_cause::of_write(&error)),
            )
        })?;
    }
    if is_json {
        return term::print(&json(all, local));
    }
    let screen = Screen::stdout();
    term::print(&screen.show(&text::lines(all, local, screen.width, options.plot)))
}

/// Renders these accounts with `--plot`, for the captures.
#[cfg(test)]
pub(crate) fn captured(updates: &[(AccountId, JournalUpdate)], local: &LocalTime, width: usize) -> Vec<Line> {
    let max_age = quota::Policy::default().max_age;
    let of = |(account, update): &(AccountId, JournalUpdate)| {
        let (snapshot, history) = (update.record.snapshot(), update.journal.history());
        AccountPace::of(account, snapshot, history, update.now, max_age, None)
    };
    let all: Vec<_> = updates.iter().map(of).collect();
    text::lines(&all, local, width, true)
}

#[cfg(test)]
mod tests;
