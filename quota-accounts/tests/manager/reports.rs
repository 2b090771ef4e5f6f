//! What a report changes.

use std::sync::Arc;

use crate::support::*;
use quota_accounts::{NextTry, Outcome, ReportError, Request, Rule};

fn served(used: &str) -> Outcome {
    Outcome::from_response(200, [("x-ratelimit-used", used)])
}

fn spent(what: &str) -> Outcome {
    Outcome::from_response(429, [("x-ratelimit-spent", what)])
}

async fn reading(kind: Kind) -> (World, quota_accounts::FallbackAccountManager) {
    let world = world(kind);
    world.answers(40.0);
    let accounts = world.builder().traffic(Arc::new(ExampleTraffic)).build().expect("there are accounts");
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

        assert_eq!((report.failure, report.next), (None, NextTry::Done), "{kind:?}");
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

        assert_eq!(report.next, NextTry::Elsewhere, "{kind:?}");
        let next = accounts.route(Request::new()).await.unwrap();
        assert_eq!((next.account(), next.passed()[0].rule), (&id("b"), Rule::QuotaSpent), "{kind:?}");
        minutes(&world.clock, 181).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

// B68
#[tokio::test(start_paused = true)]
async fn a_spent_model_leaves_the_account_to_the_others() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let big = || Request::new().model("big-1");
        let route = accounts.route(big()).await.unwrap();

        let _ = accounts.report(&route, spent("model")).await.unwrap();

        assert_eq!(accounts.route(big()).await.unwrap().account(), &id("b"), "{kind:?}");
        let small = accounts.route(Request::new().model("small-1")).await.unwrap();
        assert_eq!(small.account(), &id("main"), "{kind:?}");
    }
}

// B69
#[tokio::test(start_paused = true)]
async fn a_429_that_says_nothing_is_a_pause_of_seconds() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let _ = accounts.report(&route, Outcome::from_response(429, [("a", "b")])).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
        minutes(&world.clock, 1).await;
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

// B87
#[tokio::test(start_paused = true)]
async fn an_overloaded_provider_changes_nothing_for_the_account() {
    for kind in BOTH {
        let (_world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, Outcome::from_response(529, [("a", "b")])).await.unwrap();

        assert!(matches!(report.next, NextTry::After(_)), "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

// B76
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

// B92
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_fails_no_response_that_was_served() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        std::fs::write(world.state_path(), "{ damaged").unwrap();
        let route = accounts.route(Request::new()).await.unwrap();

        let report = accounts.report(&route, spent("account")).await;

        assert_eq!(report.unwrap().next, NextTry::Elsewhere, "{kind:?}");
        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
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
