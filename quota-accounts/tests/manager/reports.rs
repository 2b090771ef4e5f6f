//! The effects of a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;
use quota_accounts::routing::Reason;
use quota_accounts::{ReportError, Request, RequestOutcome, RetryAdvice};
use quota_core::ProviderId;
use quota_core::provider::{ParsedResponse, ResponseMeta, ResponseParser};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

pub(crate) fn served(used: &str) -> RequestOutcome {
    RequestOutcome::from_response(200, [("x-ratelimit-used", used)])
}

pub(crate) fn exhausted(what: &str) -> RequestOutcome {
    RequestOutcome::from_response(429, [("x-ratelimit-exhausted", what)])
}

pub(crate) async fn reading(kind: Kind) -> (Env, quota_accounts::FallbackAccountManager) {
    let env = env(kind);
    env.set_usage(40.0);
    let accounts = env.builder().response_parser(ExampleParser).build().expect("a valid configuration");
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&env.clock, 1).await;
    (env, accounts)
}

#[tokio::test(start_paused = true)]
async fn readings_in_headers_count_for_the_next_decision() {
    for kind in BOTH {
        let (_env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, served("77")).await.unwrap();

        assert_eq!((report.failure, report.next), (None, RetryAdvice::Done), "{kind:?}");
        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readings_in_headers_are_saved_within_seconds() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let _ = accounts.report(&route, served("77.77")).await.unwrap();
        minutes(&env.clock, 1).await;
        accounts.flush().await.unwrap();

        assert!(env.stored().contains("7777"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_account_is_skipped_until_its_reset() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, exhausted("account")).await.unwrap();

        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?}");
        let next = accounts.route(Request::new()).await.unwrap();
        assert_eq!(
            (next.account(), next.skipped()[0].reason),
            (&id("b"), Reason::QuotaExhausted),
            "{kind:?}"
        );
        minutes(&env.clock, 181).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_model_leaves_the_account_to_other_models() {
    for kind in BOTH {
        let (_env, accounts) = reading(kind).await;
        let big = || Request::new().with_model("big-1");
        let route = accounts.route(big()).await.unwrap();

        let _ = accounts.report(&route, exhausted("model")).await.unwrap();

        assert_eq!(accounts.route(big()).await.unwrap().account(), &id("b"), "{kind:?}");
        let small = accounts.route(Request::new().with_model("small-1")).await.unwrap();
        assert_eq!(small.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_exhausted_window_counts_until_its_own_reset() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = quota_accounts::AccountsConfig::new(id("main"));
        let accounts = env.builder().response_parser(ExampleParser).build().expect("a valid configuration");
        let big = || Request::new().with_model("big-1");
        let route = accounts.route(big()).await.unwrap();

        let exhausted =
            RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=1 seven_day/oi=96")]);
        let _ = accounts.report(&route, exhausted).await.unwrap();

        let wait = |request| {
            let accounts = &accounts;
            async move { accounts.route(request).await.err().and_then(|error| error.retry_after()) }
        };
        let hours = |hours: u64| Some(Duration::from_secs(3600 * hours));
        assert_eq!(wait(big()).await, hours(96), "{kind:?}");
        assert_eq!(wait(Request::new().with_model("small-1")).await, hours(1), "{kind:?}");
        minutes(&env.clock, 61).await;
        assert_eq!(wait(big()).await, Some(Duration::from_secs(95 * 3600 - 60)), "{kind:?}");
        assert_eq!(wait(Request::new().with_model("small-1")).await, None, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_model_does_not_block_models_with_longer_names() {
    for kind in BOTH {
        let (_env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new().with_model("gpt-5")).await.unwrap();

        let _ = accounts.report(&route, exhausted("model")).await.unwrap();

        let next = accounts.route(Request::new().with_model("gpt-5")).await.unwrap();
        let mini = accounts.route(Request::new().with_model("gpt-5-mini")).await.unwrap();
        assert_eq!((next.account(), mini.account()), (&id("b"), &id("main")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_without_details_is_a_cooldown_of_seconds() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let _ = accounts.report(&route, RequestOutcome::from_response(429, [("a", "b")])).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
        minutes(&env.clock, 1).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_provider_changes_nothing_for_the_account() {
    for kind in BOTH {
        let (_env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, RequestOutcome::from_response(529, [("a", "b")])).await.unwrap();

        assert!(matches!(report.next, RetryAdvice::After(_)), "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_report_of_one_route_changes_nothing() {
    for kind in BOTH {
        let (_env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("50")).await.unwrap();

        let _ = accounts.report(&route, exhausted("account")).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_survives_a_restart() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, exhausted("account")).await.unwrap();

        let route = env.restarted().accounts().route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
    }
}

/// Panics on every response.
#[derive(Debug)]
struct Panicking;

impl ResponseParser for Panicking {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, _response: &ResponseMeta<'_>) -> ParsedResponse {
        panic!("panics on purpose")
    }
}

/// Counts warnings.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_panicking_parser_fails_no_report_and_is_logged_once_a_status() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.builder().response_parser(Panicking).build().unwrap();
        let warnings = Warnings::default();
        let _guard = tracing::subscriber::set_default(warnings.clone());

        for _ in 0..3 {
            let route = accounts.route(Request::new()).await.unwrap();
            let report = accounts.report(&route, served("99")).await.unwrap();
            assert_eq!((report.failure, report.next), (None, RetryAdvice::Done), "{kind:?}");
        }
        let route = accounts.route(Request::new()).await.unwrap();
        let report = accounts.report(&route, RequestOutcome::from_response(401, [("a", "b")])).await.unwrap();

        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(warnings.0.load(Ordering::Relaxed), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_refresh_does_not_undo_a_report() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        minutes(&env.clock, 5).await;
        env.set_usage(10.0);
        drop(env.provider.clone().with_delay(Duration::from_secs(10)));
        // Stale readings that admit the account, so the refresh runs in the background.
        let route = accounts.route(Request::new()).await.unwrap();
        env.clock.sleep(Duration::from_secs(5)).await;

        let _ = accounts.report(&route, served("100")).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!(env.provider.calls_for(&id("main")), 2, "{kind:?}: it was refreshed");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unwritable_file_fails_no_report() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        std::fs::write(env.state_path(), "{ damaged").unwrap();
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, exhausted("account")).await;

        assert_eq!(report.unwrap().next, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_file_delays_no_report_and_is_written_later() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        accounts.flush().await.unwrap();
        let (lock, began) = (env.locked(), env.clock.now());

        let report = accounts.report(&route, exhausted("account")).await.unwrap();

        let took = env.clock.now().duration_since(began);
        assert!(took <= jiff::SignedDuration::from_millis(250), "{kind:?} {took:?}");
        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
        assert!(!env.stored().contains("quota_exhausted"), "{kind:?}: another process is writing");
        drop(lock);
        env.clock.sleep(Duration::from_secs(1)).await;
        assert!(env.stored().contains("quota_exhausted"), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_save_is_retried_by_the_next_one() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        accounts.flush().await.unwrap();
        let lock = env.locked();
        let _ = accounts.report(&route, exhausted("account")).await.unwrap();
        minutes(&env.clock, 1).await;

        drop(lock);
        accounts.flush().await.unwrap();

        assert!(env.stored().contains("quota_exhausted"), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_of_a_later_configuration_takes_the_report() {
    let (_env, accounts) = reading(Kind::With).await;
    let mut other = env(Kind::With);
    other.config = quota_accounts::AccountsConfig::new(id("b"));
    let route = other.accounts().route(Request::new()).await.unwrap();

    let _ = accounts.report(&route, served("99")).await.unwrap();

    assert_eq!((used(&accounts, "main"), used(&accounts, "b")), (Some(40.0), Some(99.0)));
}

#[tokio::test(start_paused = true)]
async fn a_route_of_another_manager_is_rejected() {
    let (_env, accounts) = reading(Kind::With).await;
    let mut other = env(Kind::With);
    other.config = quota_accounts::AccountsConfig::new(id("stranger"));
    let route = other.accounts().route(Request::new()).await.unwrap();

    let error = accounts.report(&route, served("99")).await.unwrap_err();

    assert!(matches!(error, ReportError::UnknownAccount { .. }));
    assert_eq!(used(&accounts, "main"), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn an_old_model_window_is_refreshed_for_requests_of_that_model_only() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = quota_accounts::AccountsConfig::new(id("main"));
        let opus = quota_core::WindowReading::new(
            quota_core::WindowId::new("seven_day/opus").unwrap(),
            percent(10.0),
        );
        let opus = opus.scope(quota_core::model::Scope::model("Opus"));
        env.provider.answer(quota_core::UsageReport::polled([env.five_hour(40.0), opus]));
        let accounts = env.builder().response_parser(ExampleParser).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;
        for _ in 0..2 {
            minutes(&env.clock, 4).await;
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("41")).await.unwrap();
        }

        let _ = accounts.route(Request::new().with_model("claude-sonnet-4-5")).await.unwrap();
        minutes(&env.clock, 1).await;
        let of_another = env.provider.calls();
        let _ = accounts.route(Request::new().with_model("claude-opus-4-5")).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!((of_another, env.provider.calls()), (1, 2), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_does_not_last_until_an_implausible_reset() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = quota_accounts::AccountsConfig::new(id("main"));
        let accounts = env.builder().response_parser(ExampleParser).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.unwrap();
        let in_years = RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=10000")]);

        let _ = accounts.report(&route, in_years).await.unwrap();

        let wait = accounts.route(Request::new()).await.unwrap_err().retry_after().unwrap();
        assert_eq!(wait, env.policy.exhausted_cooldown, "{kind:?}");
    }
}
