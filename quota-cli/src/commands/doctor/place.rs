//! Whether the configuration and the store can be used.
//! What the configuration names is looked at in `logins` and `reach`.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quota::{CasOutcome, Clock, StoreError, StoreKey};

use super::{Area, Check, reach};
use crate::config::{self, Config};
use crate::exit::CliError;
use crate::store::{self, OpenedStore};

/// How the configuration is; and what it says, unless it is broken.
pub(super) fn config(named: Option<&Path>) -> (Vec<Check>, Option<Config>) {
    let usual = config::default_path();
    let path = named.or(usual.as_deref().filter(|path| path.symlink_metadata().is_ok()));
    let subject =
        path.or(usual.as_deref()).map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let config = match Config::load(named) {
        Ok(config) => config,
        Err(failure) => {
            let advice = "fix it there; `quota status --help` shows how it is written";
            return (vec![refused(subject, &failure, advice)], None);
        }
    };
    let check = match path {
        None if config.is_default() => {
            Check::good(Area::Config, subject, "not found; using Claude Code's login")
        }
        None => Check::good(Area::Config, subject, "not found; using the accounts of accounts.json"),
        Some(_) => Check::good(Area::Config, subject, "can be read"),
    };
    (vec![check], Some(config))
}

/// A file that cannot be used. Its own advice comes before the usual one.
fn refused(subject: impl Into<String>, failure: &CliError, usual_advice: &str) -> Check {
    let told = failure.to_string();
    match told.split_once("; run: ") {
        Some((told, command)) => Check::failure(Area::Config, subject, told, format!("run: {command}")),
        None => Check::failure(Area::Config, subject, told, usual_advice),
    }
}

/// Whether the store can be read and written, and what time it has.
pub(super) async fn store(opened: Result<&OpenedStore, &CliError>, clock: &Clock) -> Vec<Check> {
    let store = match opened {
        Ok(store) => store,
        Err(failure) => {
            let advice = "fix the URL in --store or QUOTA_STORE";
            return vec![Check::failure(Area::Store, "its URL", failure.to_string(), advice)];
        }
    };
    // The rest of a URL may hold a password.
    let subject = store.url.expose().split(':').next().unwrap_or_default().to_owned();
    if !store.is_shared {
        return vec![if store.no_home {
            let told = "neither XDG_STATE_HOME nor HOME is set, so nothing is shared with other processes";
            Check::failure(Area::Store, subject, told, "set one of them, or name a store with --store")
        } else {
            Check::good(Area::Store, subject, "private to this process, as requested")
        }];
    }
    let failed = |error: &StoreError, what: &str| {
        let told = format!("{what}: {}", store::cause(error));
        match told.split_once("; run: ") {
            Some((told, command)) => {
                Check::failure(Area::Store, subject.clone(), told, format!("run: {command}"))
            }
            None if error.is_transient() => {
                let advice =
                    "check that it runs and can be reached from here; until then every process goes on alone";
                Check::failure(Area::Store, subject.clone(), told, advice)
            }
            None => {
                let advice = "fix it, or name another store with --store or QUOTA_STORE";
                Check::failure(Area::Store, subject.clone(), told, advice)
            }
        }
    };
    // A key of its own: an account of a provider that does not exist. The store forgets it in a minute.
    let key = StoreKey::account_extension(&"quota/doctor".parse().expect("the name is valid"), "doctor");
    let before = clock.now();
    let reading = match store.store.read(&key).await {
        Ok(reading) => reading,
        Err(error) => return vec![failed(&error, "cannot be read")],
    };
    let skew = reach::skew(reading.now, before, clock.now());
    let swapped =
        store.store.compare_and_swap(&key, reading.version(), Bytes::from_static(b"{}"), KEPT).await;
    let usable = match swapped {
        // On a conflict another process has just written.
        Ok(CasOutcome::Applied { .. } | CasOutcome::Conflict(_)) => {
            Check::good(Area::Store, subject.clone(), "can be read and written")
        }
        Err(error) => failed(&error, "cannot be written"),
        Ok(_) => Check::good(Area::Store, subject.clone(), "can be read"),
    };
    vec![usable, reach::clock("the store", skew)]
}

/// How long the document stays by which it is seen that one can be written.
const KEPT: Duration = Duration::from_secs(60);

/// Whether somebody but its owner has one of these rights to a file.
#[cfg(unix)]
pub(super) fn others_may(path: &Path, rights: u32) -> Option<()> {
    use std::os::unix::fs::MetadataExt as _;

    let found = path.metadata().ok()?;
    (found.mode() & rights != 0).then_some(())
}

#[cfg(not(unix))]
pub(super) fn others_may(_path: &Path, _rights: u32) -> Option<()> {
    None
}
