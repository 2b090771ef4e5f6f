//! Every provider against its simulation: usage, and failures in the format of the provider.

use std::time::Duration;

use quota::http::{Fetcher, PROVIDERS};
use quota::{Credential, FetchError, ProviderId, Secret, UsageFetcher, UsageReport};
use quota_sim::{Account, Answer, Change, Window};

use crate::fixture::*;

/// One call to an account of each provider, after a change to the account.
async fn fetch_each(
    change: Option<Change>,
    token: &str,
) -> Vec<(ProviderId, Result<UsageReport, FetchError>)> {
    let account = |provider: &str| {
        let account = Account::new(provider).provider(provider);
        account.windows([Window::seven_day().used(55.0).resets_in(Duration::from_secs(3 * 24 * 3600))])
    };
    let simulator = provider(PROVIDERS.iter().map(|provider| account(provider.id_str()))).await;
    let mut fetched = Vec::new();
    for provider in PROVIDERS {
        let name = provider.id_str();
        if let Some(change) = &change {
            simulator.set(name, change.clone()).unwrap();
        }
        let fetcher = Fetcher::builder(provider).base_url(simulator.url()).build().unwrap();
        let credential = Credential::new(Secret::new(format!("{token}{name}")));
        let report = fetcher.fetch(&format!("{name}/main").parse().unwrap(), &credential).await;
        fetched.push((provider.id(), report));
    }
    fetched
}

#[tokio::test]
async fn every_provider_reports_usage() {
    for (provider, fetched) in fetch_each(None, "sim-token-").await {
        assert!(fetched.is_ok(), "{provider} {fetched:?}");
    }
}

#[tokio::test]
async fn every_provider_states_that_a_token_is_unknown() {
    for (provider, fetched) in fetch_each(None, "unknown-").await {
        assert!(matches!(fetched, Err(FetchError::Unauthorized)), "{provider} {fetched:?}");
    }
}

#[tokio::test]
async fn every_provider_states_that_a_login_has_expired() {
    for (provider, fetched) in fetch_each(Some(Change::answer(Answer::Unauthorized)), "sim-token-").await {
        assert!(matches!(fetched, Err(FetchError::Unauthorized)), "{provider} {fetched:?}");
    }
}

#[tokio::test]
async fn every_provider_states_how_long_to_wait() {
    let pause = Duration::from_secs(600);
    let throttled = Change::answer_for(Answer::ThrottleUntilEnd, pause);
    for (provider, fetched) in fetch_each(Some(throttled), "sim-token-").await {
        let Err(FetchError::Throttled { retry_after: Some(wait), .. }) = fetched else {
            panic!("{provider} {fetched:?}")
        };
        assert!(wait <= pause, "{provider} {wait:?}");
    }
}
