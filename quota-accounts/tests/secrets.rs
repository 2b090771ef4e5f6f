//! No output of this crate and none of its files contains a token.

use std::fmt::Debug;
use std::fs;
use std::sync::Arc;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome};
use quota_core::{AccountId, Secret};
use quota_credentials::StaticCredential;

/// The part of the token that must not appear.
const NEEDLE: &str = "n33dle";
const TOKEN: &str = "sk-ant-oat01-n33dle";

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

fn debug(value: &dyn Debug) -> String {
    format!("{value:?} {value:#?} ")
}

#[tokio::test]
async fn no_output_error_or_file_contains_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("accounts.state.json");
    let accounts = FallbackAccountManager::builder(AccountsConfig::new(account()))
        .credentials(Arc::new(StaticCredential::new(Secret::new(TOKEN))))
        .state_file(&state)
        .build()
        .unwrap();

    let route = accounts.route(Request::new().with_session(TOKEN)).await.unwrap();
    let outcome = RequestOutcome::from_response(401, [("authorization", TOKEN), ("x-ratelimit-a", TOKEN)]);
    let outcome = outcome.body(TOKEN.as_bytes());
    let texts = debug(&route) + &debug(&outcome) + &debug(&accounts);
    let report = accounts.report(&route, outcome).await.unwrap();
    let error = accounts.route(Request::new()).await.unwrap_err();
    accounts.flush().await.unwrap();
    let stored = fs::read_to_string(&state).unwrap();

    let texts = texts + &debug(&report) + &debug(&error) + &error.to_string() + &stored;
    assert!(stored.contains("unauthorized"));
    assert!(!texts.contains(NEEDLE), "{texts}");
}
