//! The router of a process, and the parser of the provider's ordinary responses.

use quota_accounts::{AccountsConfig, FallbackAccountManager};
use quota_core::model::ProviderId;
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::{QuotaManager, UsageReport, WindowId};

use crate::names::account_id;
use crate::numbers::Numbers;

/// Creates the router of a process: the first account is the main one, and the others are its fallbacks.
pub(crate) fn open(quota: &QuotaManager, accounts: usize) -> FallbackAccountManager {
    let config = (1..accounts)
        .fold(AccountsConfig::new(account_id(0)), |config, account| config.fallback(account_id(account)));
    FallbackAccountManager::builder(config)
        .quota_manager(quota.clone())
        .response_parser(Parser)
        .build()
        .expect("the accounts differ")
}

/// Parses the responses of the simulated provider.
#[derive(Debug)]
struct Parser;

impl ResponseParser for Parser {
    fn provider(&self) -> ProviderId {
        ProviderId::new("example").expect("a valid name")
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let numbers = response.header(Numbers::HEADER).and_then(Numbers::parse);
        let usage = numbers.map_or_else(|| UsageReport::from_headers([]), |numbers| numbers.headers());
        let wait = response.header("retry-after").and_then(|seconds| seconds.parse().ok());
        let failure = Rejection::of_status(response.status).map(|rejection| match numbers {
            // The provider states the use only if it counts the request, or if the window is exhausted.
            Some(numbers) => Rejection::new(RejectionKind::QuotaExhausted)
                .window(WindowId::five_hour())
                .resets_at(numbers.resets_at()),
            None => rejection.retry_after(wait.map(std::time::Duration::from_secs)),
        });
        ParsedResponse::new(usage, failure)
    }
}
