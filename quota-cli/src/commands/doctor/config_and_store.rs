//! Checks that the configuration and the store can be used.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quota::Clock;
use quota::store::{CasOutcome, StoreError, StoreKey};

use super::{Area, Check, Incident, network};
use crate::config::{self, Config};
use crate::exit::CliError;
use crate::format::LocalTime;
use crate::hint;
use crate::store::{self, OpenedStore};
use crate::store_probe;

/// Checks the configuration, and returns it unless it is invalid.
pub(super) fn config(named: Option<&Path>) -> (Vec<Check>, Option<Config>) {
    let default_path = config::default_path();
    let path = named.or(default_path.as_deref().filter(|path| path.symlink_metadata().is_ok()));
    let subject =
        path.or(default_path.as_deref()).map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let config = match Config::load(named) {
        Ok(config) => config,
        Err(failure) => {
            let hint = "fix the file; `quota status --help` describes its format";
            return (vec![invalid(subject, &failure, hint)], None);
        }
    };
    let check = match path {
        None if config.is_default() => {
            Check::ok(Area::Config, subject, "not found; using Claude Code's login")
        }
        None => Check::ok(Area::Config, subject, "not found; using the accounts of accounts.json"),
        Some(_) => match config.accounts.first() {
            Some(first) if config.accounts.iter().all(|account| account.disabled) => {
                let enable = hint::command_without_store(&format!("accounts enable {}", first.id));
                let hint = format!("enable one with: {enable}");
                Check::warning(Area::Config, subject, "all accounts are disabled", hint)
            }
            _ => Check::ok(Area::Config, subject, "can be read"),
        },
    };
    (vec![check], Some(config))
}

/// The check of an unusable file. If the error contains a command, that replaces the default hint.
fn invalid(subject: impl Into<String>, failure: &CliError, default_hint: &str) -> Check {
    let message = failure.to_string();
    match message.split_once("; run: ") {
        Some((message, command)) => Check::problem(Area::Config, subject, message, format!("run: {command}")),
        None => Check::problem(Area::Config, subject, message, default_hint),
    }
}

/// Checks that the store can be read and written, and its clock.
pub(super) async fn store(opened: Result<&OpenedStore, &CliError>, clock: &Clock) -> Vec<Check> {
    let store = match opened {
        Ok(store) => store,
        Err(failure) => {
            let hint = "fix the URL in --store or QUOTA_STORE";
            return vec![Check::problem(Area::Store, "URL", failure.to_string(), hint)];
        }
    };
    // Show only the scheme, because the rest of the URL may contain a password.
    let subject = store.url.expose().split(':').next().unwrap_or_default().to_owned();
    if !store.is_shared {
        return vec![if store.no_home {
            let hint = "set one of them, or select a store with --store";
            Check::problem(Area::Store, subject, store_probe::NO_HOME, hint)
        } else {
            Check::ok(Area::Store, subject, "not shared with other processes, as requested")
        }];
    }
    let failed = |error: &StoreError, summary: &str| {
        let message = format!("{summary}: {}", store::cause(error));
        match message.split_once("; run: ") {
            Some((message, command)) => {
                Check::problem(Area::Store, subject.clone(), message, format!("run: {command}"))
            }
            None if error.is_transient() => {
                let hint = "check that it is running and reachable; until then the processes of this machine use a local file";
                Check::problem(Area::Store, subject.clone(), message, hint)
            }
            None => {
                let hint = "fix it, or select another store with --store or QUOTA_STORE";
                Check::problem(Area::Store, subject.clone(), message, hint)
            }
        }
    };
    // Use the key of a provider that does not exist.
    let key = StoreKey::account_extension(&"quota/doctor".parse().expect("the name is valid"), "doctor");
    let before = clock.now();
    let read = match store.store.read(&key).await {
        Ok(read) => read,
        Err(error) => return vec![failed(&error, "cannot be read")],
    };
    let skew = network::skew(read.now, before, clock.now());
    let swapped =
        store.store.compare_and_swap(&key, read.version(), Bytes::from_static(b"{}"), PROBE_TTL).await;
    let usable = match swapped {
        // A conflict means that another process has just written, so writes work.
        Ok(CasOutcome::Applied { .. } | CasOutcome::Conflict(_)) => {
            Check::ok(Area::Store, subject.clone(), "can be read and written")
        }
        Err(error) => failed(&error, "cannot be written"),
        Ok(_) => Check::ok(Area::Store, subject.clone(), "can be read"),
    };
    vec![usable, network::clock("the store", skew)]
}

/// Checks the file that replaces the store during an outage, if there is one.
pub(super) async fn outage(store: &OpenedStore) -> Option<Check> {
    let outage = store.find_outage().await?;
    let local = LocalTime::now();
    let hint = "no action is needed: the first command that reaches the store merges the file into it and removes the file";
    let check = Check::warning(
        Area::Store,
        outage.place.clone().unwrap_or_default(),
        store_probe::outage_warning(&outage, &local),
        hint,
    );
    let incident = Incident {
        reason: "outage".to_owned(),
        at: Some(outage.since),
        until: outage.retry_at,
        requested: None,
    };
    Some(check.with_incident(incident))
}

/// The TTL of the document that the check writes.
const PROBE_TTL: Duration = Duration::from_secs(60);

/// Whether users other than the owner have one of these permissions.
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
