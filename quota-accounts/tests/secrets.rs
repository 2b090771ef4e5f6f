//! No token is shown by what this crate hands out, or kept in its files.

use std::fmt::Debug;
use std::fs;
use std::sync::Arc;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome};
use quota_core::{AccountId, Secret};
use quota_credentials::StaticCredential;

/// What must not be seen: the middle of the token below.
const NEEDLE: &str = "n33dle";
const TOKEN: &str = "sk-ant-oat01-n33dle";

fn account() -> AccountId {
    "anthropic/main".parse().expect("a well-formed account")
}

fn debug(value: &dyn Debug) -> String {
    format!("{value:?} {value:#?} ")
}

#[tokio::test]
async fn a_manager_of_accounts_shows_no_token_in_what_it_gives_says_or_keeps() {
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
    let refused = accounts.route(Request::new()).await.unwrap_err();
    accounts.flush().await.unwrap();
    let kept = fs::read_to_string(&state).unwrap();

    let texts = texts + &debug(&report) + &debug(&refused) + &refused.to_string() + &kept;
    assert!(kept.contains("login_dead"));
    assert!(!texts.contains(NEEDLE), "{texts}");
}
