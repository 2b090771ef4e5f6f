//! The router of the gateway, which chooses accounts for clients according to the configuration.

use std::sync::Arc;

use quota::QuotaManager;
use quota::accounts::FallbackAccountManager;
use quota::http::AnyResponseParser;

use crate::config::{self, Config};
use crate::exit::{CliError, Exit};
use crate::store::OpenedStore;
use crate::term;

/// Builds the router of these accounts, without reading its state; `None` without an account.
///
/// # Errors
///
/// [`CliError`] if the settings contradict each other.
pub(super) fn build(
    config: &Config,
    store: &OpenedStore,
    manager: &QuotaManager,
) -> Result<Option<FallbackAccountManager>, CliError> {
    if config.accounts.is_empty() {
        return Ok(None);
    }
    let mut builder = FallbackAccountManager::builder(config.routed())
        .quota_manager(manager.clone())
        .policy(config.routing.clone())
        .reservations(Arc::clone(&store.store));
    for provider in config.used_providers() {
        builder = builder.response_parser(AnyResponseParser::new(provider.id()));
    }
    // With a memory store, nothing is saved to disk.
    if let Some(file) = config::accounts_file().filter(|_| store.is_shared) {
        builder = builder.state_file(file.state_path());
    }
    builder.build().map(Some).map_err(|error| CliError::new(Exit::Config, error.to_string()))
}

/// Reads the state of a router from its file.
pub(super) async fn load(router: &FallbackAccountManager) {
    if let Err(error) = router.load().await {
        // The state can be rebuilt. The file is not changed, so that the user can inspect it.
        term::eprint(&format!("quota: {}; continuing without it\n", config::unusable(&error)));
    }
}
