//! What the integration with the quota manager promises, each with and without it.

use std::time::Duration;

use quota_accounts::{AccountsConfig, Idempotency, Request, RequestOutcome, Route};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, Scope};
use quota_core::{FetchError, MemoryStore, QuotaManager, UsageReport, WindowId, WindowReading};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

// The first question of each kind, so that seeding must come before any of them.
#[tokio::test(start_paused = true)]
async fn a_restart_with_fresh_snapshots_on_disk_makes_no_call() {
    for kind in BOTH {
        let mut world = world(kind);
        for name in 0..19 {
            world.config = world.config.fallback(id(&format!("f{name}")));
        }
        world.accounts().refresh_quota_for_due_accounts().await;
        let before = world.provider.calls();
        assert_eq!(before, 22, "{kind:?}");

        for question in 0..5 {
            let restarted = world.restarted();
            let accounts = restarted.accounts();
            match question {
                0 => assert!(accounts.refresh_quota_for_due_accounts().await.is_empty()),
                1 => assert_eq!(accounts.usable_fallback_accounts().await.len(), 21),
                2 => assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main")),
                3 => assert_eq!(accounts.decide(&Request::new()).await.chosen().unwrap().account, id("main")),
                _ => {
                    let send = |route: &Route| {
                        let account = route.account().clone();
                        async move { (account, RequestOutcome::from_response(200, [("a", "b")])) }
                    };
                    let (served, _) = accounts
                        .send_with_retry(Request::new(), Idempotency::NotIdempotent, send)
                        .await
                        .unwrap();
                    assert_eq!(served, id("main"));
                }
            }
            accounts.flush().await.unwrap();
        }

        assert_eq!(world.provider.calls(), before, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_old_snapshots_on_disk_asks_anew() {
    for kind in BOTH {
        let world = world(kind);
        world.accounts().refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;

        world.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(world.provider.calls(), 6, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn staleness_is_the_quota_managers_and_not_that_of_what_lies_on_disk() {
    let world = world(Kind::With);
    let accounts = world.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&world.clock, 6).await;
    // Another user of the quota manager refreshes; the file stays old.
    for name in ["main", "b", "c"] {
        let _ = world.quota.account(&id(name)).get().await.unwrap();
    }
    let (before, kept) = (world.provider.calls(), world.kept());

    let usable = accounts.usable_fallback_accounts().await;
    // A router that finds them stale writes what its refresh brings.
    assert_eq!(world.kept(), kept, "nothing was due");
    let due = accounts.refresh_quota_for_due_accounts().await;

    assert_eq!((usable.len(), due.len()), (2, 0));
    assert_eq!(world.provider.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_fresh_on_disk_is_stale_where_the_quota_manager_says_so() {
    let mut world = world(Kind::With);
    world.accounts().refresh_quota_for_due_accounts().await;
    let policy = world.usage_policy.clone().max_age(Duration::from_secs(60));
    let store = MemoryStore::with_clock(world.clock.clone());
    let quota = QuotaManager::builder(store).fetcher(world.provider.clone()).clock(world.clock.clone());
    world.quota = quota.policy(policy).build().unwrap();
    minutes(&world.clock, 2).await;
    let accounts = world.accounts();

    let usable = accounts.usable_fallback_accounts().await;
    assert_eq!((usable.len(), world.provider.calls()), (2, 3 + 2));
    let due = accounts.refresh_quota_for_due_accounts().await;
    assert_eq!((due.len(), world.provider.calls()), (1, 3 + 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_quota_manager_each_account_is_as_stale_as_its_own_numbers() {
    let world = world(Kind::Without);
    let accounts = world.accounts();
    accounts.refresh_quota_for_due_accounts().await;

    minutes(&world.clock, 4).await;
    assert_eq!(accounts.refresh_quota_for_due_accounts().await.len(), 0);

    // Exactly at the max age it is stale.
    minutes(&world.clock, 1).await;
    assert_eq!(accounts.refresh_quota_for_due_accounts().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn every_refresh_is_written_back_to_the_kept_account() {
    for kind in BOTH {
        let world = world(kind);
        world.answers(67.89);

        world.accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(world.kept().matches("6789").count(), 3, "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_only_the_choice_of_fallbacks_needed_is_written_back() {
    for kind in BOTH {
        let world = world(kind);
        world.answers(67.89);

        world.accounts().usable_fallback_accounts().await;

        assert_eq!(world.kept().matches("6789").count(), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_request_waited_for_is_written_back() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.answers(67.89);

        let _ = accounts.route(Request::new()).await.unwrap();
        minutes(&world.clock, 1).await;

        assert_eq!(world.kept().matches("6789").count(), 1, "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_behind_a_requests_back_is_written_back() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        world.answers(67.89);

        let _ = accounts.route(Request::new()).await.unwrap();
        minutes(&world.clock, 1).await;

        assert_eq!(world.kept().matches("6789").count(), 1, "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_after_so_many_requests_is_written_back() {
    for kind in BOTH {
        let mut world = world(kind);
        world.counting(2);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 1).await;
        world.answers(67.89);

        for _ in 0..2 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        minutes(&world.clock, 1).await;

        assert_eq!(world.kept().matches("6789").count(), 1, "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_gone_is_gone_on_disk_and_after_a_restart() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = AccountsConfig::new(id("main"));
        let opus = WindowReading::new(WindowId::new("seven_day/opus").unwrap(), percent(100.0));
        world
            .provider
            .then_answer(UsageReport::polled([world.five_hour(40.0), opus.scope(Scope::model("opus"))]));
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_model("opus");
        assert!(world.kept().contains("seven_day/opus"), "{kind:?} {}", world.kept());
        assert!(accounts.explain(&request()).chosen().is_none(), "{kind:?}: it is spent");
        minutes(&world.clock, 6).await;

        accounts.refresh_quota_for_due_accounts().await;

        assert!(accounts.explain(&request()).chosen().is_some(), "{kind:?}");
        assert!(!world.kept().contains("seven_day/opus"), "{kind:?} {}", world.kept());
        let restarted = world.restarted().accounts();
        restarted.load().await.unwrap();
        assert!(restarted.explain(&request()).chosen().is_some(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_visible_to_all_users_of_the_quota_manager() {
    let world = world(Kind::With);
    world.answers(67.0);

    world.accounts().refresh_quota_for_due_accounts().await;

    let answer = world.quota.account(&id("b")).peek();
    assert!(!answer.is_stale());
    assert_eq!(answer.used(&WindowId::five_hour()).lower_bound(), Some(percent(67.0)));
}

#[tokio::test(start_paused = true)]
async fn routing_reads_the_quota_managers_numbers_and_never_an_older_copy() {
    let world = world(Kind::With);
    let accounts = world.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&world.clock, 1).await;

    world.quota.account(&id("main")).observe(&UsageReport::from_headers([world.five_hour(100.0)])).unwrap();

    assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_reaches_the_quota_manager_at_its_own_age() {
    let world = world(Kind::With);
    world.answers(67.0);
    world.accounts().refresh_quota_for_due_accounts().await;
    minutes(&world.clock, 3).await;
    let restarted = world.restarted();

    restarted.accounts().load().await.unwrap();

    let answer = restarted.quota.account(&id("main")).peek();
    assert!(!answer.is_stale());
    assert_eq!(answer.age(), Some(Duration::from_secs(180)));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_was_on_hold_when_it_was_kept_is_not_asked_about() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = AccountsConfig::new(id("main")).fallback(id("b"));
        let accounts = world.accounts();
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.usable_fallback_accounts().await;
        accounts.flush().await.unwrap();
        minutes(&world.clock, 2).await;
        let before = world.provider.calls_about(&id("b"));

        world.restarted().accounts().usable_fallback_accounts().await;

        assert_eq!((before, world.provider.calls_about(&id("b"))), (1, 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_without_a_login_is_the_known_logins_and_its_hold_survives_new_tokens() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = AccountsConfig::new(id("main"));
        world.answers(40.0);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.refresh_quota_for_due_accounts().await;
        assert!(!world.kept().contains("lineage"), "{kind:?} {}", world.kept());
        let before = world.provider.calls();

        for token in 1..=3 {
            let login =
                LoginInfo::new(LoginId::new("someone")).fingerprint(CredentialFingerprint::from_hash(token));
            world.provider.set_login(&id("main"), Ok(login));
            let accounts = world.restarted().accounts();
            accounts.refresh_quota_for_due_accounts().await;
            let _ = accounts.route(Request::new()).await.unwrap();
            accounts.flush().await.unwrap();

            assert_eq!((world.provider.calls(), used(&accounts, "main")), (before, Some(40.0)), "{kind:?}");
            minutes(&world.clock, 9).await;
        }
        minutes(&world.clock, 4).await;
        world.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(world.provider.calls(), before + 1, "{kind:?}: the hold is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_hold_that_is_over_is_nothing() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = AccountsConfig::new(id("main")).fallback(id("b"));
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));
        world.accounts().usable_fallback_accounts().await;
        minutes(&world.clock, 31).await;

        world.restarted().accounts().usable_fallback_accounts().await;

        assert_eq!(world.provider.calls_about(&id("b")), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_told_and_the_others_are_refreshed() {
    for kind in BOTH {
        let world = world(kind);
        world.provider.then_fail(FetchError::unavailable("it is out of service"));

        let reports = world.accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(reports.len(), 3, "{kind:?}");
        assert_eq!(reports.iter().filter(|report| report.error.is_some()).count(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_switched_off_is_not_asked_about() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config.account_mut(&id("b")).unwrap().disabled = true;
        let accounts = world.accounts();

        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!(world.provider.calls_about(&id("b")), 0, "{kind:?}");
        assert_eq!(accounts.usable_fallback_accounts().await, [id("c")], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_traffic_costs_one_call_whatever_the_age_of_another_models_window() {
    for kind in BOTH {
        let world = world(kind);
        let week = WindowId::seven_day();
        let opus = WindowReading::new(week.for_model("Opus").unwrap(), percent(30.0));
        let opus = opus.scope(Scope::model("Opus")).resets_at(world.clock.now() + HOUR * 96);
        let five_hour = world.five_hour(40.0).resets_at(world.clock.now() + HOUR * 4);
        world.provider.answer(UsageReport::polled([five_hour, opus]));
        let accounts = world.builder().response_parser(ExampleTraffic).build().unwrap();
        let sonnet = || Request::new().with_model("claude-sonnet-4-5");

        for minute in 0..60 {
            let route = accounts.route(sonnet()).await.unwrap();
            assert_eq!(route.account(), &id("main"));
            let used = (40 + minute / 2).to_string();
            let outcome = RequestOutcome::from_response(200, [("x-ratelimit-used", &*used)]);
            let _ = accounts.report(&route, outcome).await.unwrap();
            minutes(&world.clock, 1).await;
        }
        assert_eq!(world.provider.calls(), 1, "{kind:?}: one call made it known");

        // A request of that model reads its window again, and only that.
        let _ = accounts.route(Request::new().with_model("claude-opus-4-5")).await.unwrap();
        minutes(&world.clock, 1).await;
        assert_eq!(world.provider.calls(), 2, "{kind:?}");
    }
}
