//! How long a request without an available account must wait, according to the headers of the provider.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota::accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome};
use quota::anthropic::AnthropicResponseParser;
use quota::testing::FakeProvider;
use quota::{Clock, MemoryStore, QuotaManager, UsageReport, WindowId, WindowReading};

use crate::fixture::{id, percent};

const NOON: Timestamp = Timestamp::constant(1_790_000_000, 0);
const OPUS: &str = "claude-opus-4-5";
const SONNET: &str = "claude-sonnet-4-5";

/// Whether the accounts use a given quota manager or a private one.
#[derive(Debug, Clone, Copy)]
enum ManagerKind {
    Shared,
    Private,
}

/// A report of the usage endpoint.
fn five_hours(used: f64, reset: SignedDuration) -> UsageReport {
    UsageReport::polled([WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(NOON + reset)])
}

/// Creates one account at a scripted provider.
fn one_account(manager_kind: ManagerKind, clock: &Clock, provider: FakeProvider) -> FallbackAccountManager {
    let builder = FallbackAccountManager::builder(AccountsConfig::new(id("main")));
    let builder = builder.response_parser(AnthropicResponseParser);
    let builder = match manager_kind {
        ManagerKind::Private => builder.fetcher(provider).clock(clock.clone()),
        ManagerKind::Shared => {
            let store = MemoryStore::with_clock(clock.clone());
            let quota = QuotaManager::builder(store).fetcher(provider).clock(clock.clone());
            builder.quota_manager(quota.build().unwrap())
        }
    };
    builder.build().unwrap()
}

/// A response that rejects a request: the five-hour window is exhausted, and so is the model's seven-day window.
fn exhausted() -> RequestOutcome {
    let at = |span: SignedDuration| (NOON + span).as_second().to_string();
    let headers = [
        ("status", "rejected".to_owned()),
        ("5h-status", "rejected".to_owned()),
        ("5h-utilization", "1.0".to_owned()),
        ("5h-reset", at(SignedDuration::from_mins(10))),
        ("7d-status", "allowed".to_owned()),
        ("7d-utilization", "0.6".to_owned()),
        ("7d-reset", at(SignedDuration::from_hours(30))),
        ("7d_oi-status", "rejected".to_owned()),
        ("7d_oi-utilization", "1.0".to_owned()),
        ("7d_oi-reset", at(SignedDuration::from_hours(96))),
    ];
    let headers = headers.map(|(name, value)| (format!("anthropic-ratelimit-unified-{name}"), value));
    // Retry-After may belong to the five-hour window, which is not the wait for the model.
    RequestOutcome::from_response(
        429,
        headers.into_iter().chain([("retry-after".to_owned(), "600".to_owned())]),
    )
}

/// The wait of a request for a model, in minutes; `None` if it gets the account.
async fn wait_of(accounts: &FallbackAccountManager, model: &str) -> Option<u64> {
    let refused = accounts.route(Request::new().with_model(model)).await.err()?;
    Some(refused.retry_after().unwrap().as_secs() / 60)
}

#[tokio::test(start_paused = true)]
async fn each_exhausted_model_waits_for_its_own_window() {
    for manager_kind in [ManagerKind::Shared, ManagerKind::Private] {
        let clock = Clock::virtual_at(NOON);
        let provider = FakeProvider::answering("anthropic", 0.0);
        provider.then_answer(five_hours(60.0, SignedDuration::from_mins(10)));
        let accounts = one_account(manager_kind, &clock, provider.clone());
        let route = accounts.route(Request::new().with_model(OPUS)).await.unwrap();

        let _ = accounts.report(&route, exhausted()).await.unwrap();

        let waits = (wait_of(&accounts, OPUS).await, wait_of(&accounts, SONNET).await);
        assert_eq!(waits, (Some(96 * 60), Some(10)), "{manager_kind:?}");
        clock.sleep(Duration::from_secs(11 * 60)).await;
        provider.answer(five_hours(0.0, SignedDuration::from_hours(5)));
        let waits = (wait_of(&accounts, OPUS).await, wait_of(&accounts, SONNET).await);
        assert_eq!(waits, (Some(96 * 60 - 11), None), "{manager_kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_page_of_cloudflare_does_not_block_the_login() {
    for manager_kind in [ManagerKind::Shared, ManagerKind::Private] {
        let clock = Clock::virtual_at(NOON);
        let provider = FakeProvider::answering("anthropic", 40.0);
        let accounts = one_account(manager_kind, &clock, provider);
        let route = accounts.route(Request::new()).await.unwrap();

        let challenge = RequestOutcome::from_response(403, [("CF-Mitigated", "challenge")]);
        let _ = accounts.report(&route, challenge).await.unwrap();

        assert!(accounts.route(Request::new()).await.is_ok(), "{manager_kind:?}");
    }
}
