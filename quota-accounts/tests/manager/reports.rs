//! What a report changes.

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

pub(crate) fn spent(what: &str) -> RequestOutcome {
    RequestOutcome::from_response(429, [("x-ratelimit-spent", what)])
}

pub(crate) async fn reading(kind: Kind) -> (World, quota_accounts::FallbackAccountManager) {
    let world = world(kind);
    world.answers(40.0);
    let accounts = world.builder().response_parser(ExampleTraffic).build().expect("there are accounts");
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&world.clock, 1).await;
    (world, accounts)
}

#[tokio::test(start_paused = true)]
async fn what_headers_say_is_what_is_known_next() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, served("77")).await.unwrap();

        assert_eq!((report.failure, report.next), (None, RetryAdvice::Done), "{kind:?}");
        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_headers_say_is_kept_within_seconds() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let _ = accounts.report(&route, served("77.77")).await.unwrap();
        minutes(&world.clock, 1).await;
        accounts.flush().await.unwrap();

        assert!(world.kept().contains("7777"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_account_is_left_until_its_reset_and_the_next_try_goes_elsewhere() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, spent("account")).await.unwrap();

        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?}");
        let next = accounts.route(Request::new()).await.unwrap();
        assert_eq!(
            (next.account(), next.skipped()[0].reason),
            (&id("b"), Reason::QuotaExhausted),
            "{kind:?}"
        );
        minutes(&world.clock, 181).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_model_leaves_the_account_to_the_others() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let big = || Request::new().with_model("big-1");
        let route = accounts.route(big()).await.unwrap();

        let _ = accounts.report(&route, spent("model")).await.unwrap();

        assert_eq!(accounts.route(big()).await.unwrap().account(), &id("b"), "{kind:?}");
        let small = accounts.route(Request::new().with_model("small-1")).await.unwrap();
        assert_eq!(small.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_spent_windows_each_counts_until_its_own_reset() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = quota_accounts::AccountsConfig::new(id("main"));
        let accounts = world.builder().response_parser(ExampleTraffic).build().expect("there is an account");
        let big = || Request::new().with_model("big-1");
        let route = accounts.route(big()).await.unwrap();

        let spent =
            RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=1 seven_day/oi=96")]);
        let _ = accounts.report(&route, spent).await.unwrap();

        let wait = |request| {
            let accounts = &accounts;
            async move { accounts.route(request).await.err().and_then(|error| error.retry_after()) }
        };
        let hours = |hours: u64| Some(Duration::from_secs(3600 * hours));
        assert_eq!(wait(big()).await, hours(96), "{kind:?}");
        assert_eq!(wait(Request::new().with_model("small-1")).await, hours(1), "{kind:?}");
        minutes(&world.clock, 61).await;
        assert_eq!(wait(big()).await, Some(Duration::from_secs(95 * 3600 - 60)), "{kind:?}");
        assert_eq!(wait(Request::new().with_model("small-1")).await, None, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_model_leaves_the_account_to_models_whose_names_begin_alike() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new().with_model("gpt-5")).await.unwrap();

        let _ = accounts.report(&route, spent("model")).await.unwrap();

        let next = accounts.route(Request::new().with_model("gpt-5")).await.unwrap();
        let mini = accounts.route(Request::new().with_model("gpt-5-mini")).await.unwrap();
        assert_eq!((next.account(), mini.account()), (&id("b"), &id("main")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_that_says_nothing_is_a_pause_of_seconds() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let _ = accounts.report(&route, RequestOutcome::from_response(429, [("a", "b")])).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
        minutes(&world.clock, 1).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_provider_changes_nothing_for_the_account() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, RequestOutcome::from_response(529, [("a", "b")])).await.unwrap();

        assert!(matches!(report.next, RetryAdvice::After(_)), "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_report_of_one_route_changes_nothing() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("50")).await.unwrap();

        let _ = accounts.report(&route, spent("account")).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_survives_a_restart() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, spent("account")).await.unwrap();

        let route = world.restarted().accounts().route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
    }
}

/// Breaks on every answer.
#[derive(Debug)]
struct Broken;

impl ResponseParser for Broken {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, _response: &ResponseMeta<'_>) -> ParsedResponse {
        panic!("a reader that breaks on purpose")
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
async fn a_reader_that_breaks_fails_no_response_that_was_served_and_is_told_of_once_for_each_status() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.builder().response_parser(Broken).build().unwrap();
        let warnings = Warnings::default();
        let _told = tracing::subscriber::set_default(warnings.clone());

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
async fn a_refresh_that_ends_late_does_not_undo_what_was_learned_meanwhile() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        minutes(&world.clock, 5).await;
        world.answers(10.0);
        drop(world.provider.clone().taking(Duration::from_secs(10)));
        // Old numbers that pass: they are asked for behind the request's back.
        let route = accounts.route(Request::new()).await.unwrap();
        world.clock.sleep(Duration::from_secs(5)).await;

        let _ = accounts.report(&route, served("100")).await.unwrap();
        minutes(&world.clock, 1).await;

        assert_eq!(world.provider.calls_about(&id("main")), 2, "{kind:?}: it was asked");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_fails_no_response_that_was_served() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        std::fs::write(world.state_path(), "{ damaged").unwrap();
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, spent("account")).await;

        assert_eq!(report.unwrap().next, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_another_process_is_changing_holds_no_response_up_and_is_written_when_it_is_free() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        accounts.flush().await.unwrap();
        let (lock, began) = (world.locked(), world.clock.now());

        let report = accounts.report(&route, spent("account")).await.unwrap();

        let took = world.clock.now().duration_since(began);
        assert!(took <= jiff::SignedDuration::from_millis(250), "{kind:?} {took:?}");
        assert_eq!(report.next, RetryAdvice::OtherAccount, "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
        assert!(!world.kept().contains("quota_spent"), "{kind:?}: another process is writing");
        drop(lock);
        world.clock.sleep(Duration::from_secs(1)).await;
        assert!(world.kept().contains("quota_spent"), "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_for_too_long_is_written_at_the_next_occasion() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        accounts.flush().await.unwrap();
        let lock = world.locked();
        let _ = accounts.report(&route, spent("account")).await.unwrap();
        minutes(&world.clock, 1).await;

        drop(lock);
        accounts.flush().await.unwrap();

        assert!(world.kept().contains("quota_spent"), "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_of_another_manager_is_refused() {
    let (_world, accounts) = reading(Kind::With).await;
    let mut other = world(Kind::With);
    other.config = quota_accounts::AccountsConfig::new(id("stranger"));
    let route = other.accounts().route(Request::new()).await.unwrap();

    let error = accounts.report(&route, served("99")).await.unwrap_err();

    assert!(matches!(error, ReportError::UnknownAccount { .. }));
    assert_eq!(used(&accounts, "main"), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn an_old_model_window_is_refreshed_for_requests_of_that_model_only() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = quota_accounts::AccountsConfig::new(id("main"));
        let opus = quota_core::WindowReading::new(
            quota_core::WindowId::new("seven_day/opus").unwrap(),
            percent(10.0),
        );
        let opus = opus.scope(quota_core::model::Scope::model("Opus"));
        world.provider.answer(quota_core::UsageReport::polled([world.five_hour(40.0), opus]));
        let accounts = world.builder().response_parser(ExampleTraffic).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;
        for _ in 0..2 {
            minutes(&world.clock, 4).await;
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("41")).await.unwrap();
        }

        let _ = accounts.route(Request::new().with_model("claude-sonnet-4-5")).await.unwrap();
        minutes(&world.clock, 1).await;
        let of_another = world.provider.calls();
        let _ = accounts.route(Request::new().with_model("claude-opus-4-5")).await.unwrap();
        minutes(&world.clock, 1).await;

        assert_eq!((of_another, world.provider.calls()), (1, 2), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_does_not_last_until_a_reset_that_cannot_be_true() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = quota_accounts::AccountsConfig::new(id("main"));
        let accounts = world.builder().response_parser(ExampleTraffic).build().unwrap();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.unwrap();
        let in_years = RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=10000")]);

        let _ = accounts.report(&route, in_years).await.unwrap();

        let wait = accounts.route(Request::new()).await.unwrap_err().retry_after().unwrap();
        assert_eq!(wait, world.policy.exhausted_cooldown, "{kind:?}");
    }
}
