//! The promises of the integration, with and without a quota manager.

use std::time::Duration;

use quota_accounts::{AccountsConfig, Idempotency, Request, RequestOutcome, Route};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, Scope};
use quota_core::{FetchError, MemoryStore, QuotaManager, UsageReport, WindowId, WindowReading};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

// Each entry point comes first once, so seeding must precede every one.
#[tokio::test(start_paused = true)]
async fn a_restart_with_fresh_snapshots_on_disk_makes_no_call() {
    for kind in BOTH {
        let mut env = env(kind);
        for name in 0..19 {
            env.config = env.config.fallback(id(&format!("f{name}")));
        }
        env.accounts().refresh_quota_for_due_accounts().await;
        let before = env.provider.calls();
        assert_eq!(before, 22, "{kind:?}");

        for question in 0..5 {
            let restarted = env.restarted();
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

        assert_eq!(env.provider.calls(), before, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_stale_snapshots_on_disk_refreshes() {
    for kind in BOTH {
        let env = env(kind);
        env.accounts().refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;

        env.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(env.provider.calls(), 6, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn staleness_comes_from_the_quota_manager_not_from_the_file() {
    let env = env(Kind::With);
    let accounts = env.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&env.clock, 6).await;
    // Another user of the quota manager refreshes. The file stays old.
    for name in ["main", "b", "c"] {
        let _ = env.quota.account(&id(name)).get().await.unwrap();
    }
    let (before, stored) = (env.provider.calls(), env.stored());

    let usable = accounts.usable_fallback_accounts().await;
    // A router that refreshes stale readings saves them.
    assert_eq!(env.stored(), stored, "no account was due");
    let due = accounts.refresh_quota_for_due_accounts().await;

    assert_eq!((usable.len(), due.len()), (2, 0));
    assert_eq!(env.provider.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn readings_fresh_on_disk_are_stale_if_the_quota_manager_says_so() {
    let mut env = env(Kind::With);
    env.accounts().refresh_quota_for_due_accounts().await;
    let policy = env.usage_policy.clone().max_age(Duration::from_secs(60));
    let store = MemoryStore::with_clock(env.clock.clone());
    let quota = QuotaManager::builder(store).fetcher(env.provider.clone()).clock(env.clock.clone());
    env.quota = quota.policy(policy).build().unwrap();
    minutes(&env.clock, 2).await;
    let accounts = env.accounts();

    let usable = accounts.usable_fallback_accounts().await;
    assert_eq!((usable.len(), env.provider.calls()), (2, 3 + 2));
    let due = accounts.refresh_quota_for_due_accounts().await;
    assert_eq!((due.len(), env.provider.calls()), (1, 3 + 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_quota_manager_staleness_comes_from_the_readings() {
    let env = env(Kind::Without);
    let accounts = env.accounts();
    accounts.refresh_quota_for_due_accounts().await;

    minutes(&env.clock, 4).await;
    assert_eq!(accounts.refresh_quota_for_due_accounts().await.len(), 0);

    // Exactly at the max age, a reading is stale.
    minutes(&env.clock, 1).await;
    assert_eq!(accounts.refresh_quota_for_due_accounts().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn every_refresh_is_saved() {
    for kind in BOTH {
        let env = env(kind);
        env.set_usage(67.89);

        env.accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(env.stored().matches("6789").count(), 3, "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_for_the_choice_of_fallbacks_is_saved() {
    for kind in BOTH {
        let env = env(kind);
        env.set_usage(67.89);

        env.accounts().usable_fallback_accounts().await;

        assert_eq!(env.stored().matches("6789").count(), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_request_waited_for_is_saved() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.set_usage(67.89);

        let _ = accounts.route(Request::new()).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!(env.stored().matches("6789").count(), 1, "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_is_saved() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        env.set_usage(67.89);

        let _ = accounts.route(Request::new()).await.unwrap();
        minutes(&env.clock, 1).await;

        assert_eq!(env.stored().matches("6789").count(), 1, "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_after_every_n_requests_is_saved() {
    for kind in BOTH {
        let mut env = env(kind);
        env.refresh_every(2);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 1).await;
        env.set_usage(67.89);

        for _ in 0..2 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        minutes(&env.clock, 1).await;

        assert_eq!(env.stored().matches("6789").count(), 1, "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_vanished_window_is_removed_on_disk_and_after_a_restart() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main"));
        let opus = WindowReading::new(WindowId::new("seven_day/opus").unwrap(), percent(100.0));
        env.provider
            .then_answer(UsageReport::polled([env.five_hour(40.0), opus.scope(Scope::model("opus"))]));
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_model("opus");
        assert!(env.stored().contains("seven_day/opus"), "{kind:?} {}", env.stored());
        assert!(accounts.explain(&request()).chosen().is_none(), "{kind:?}: the model is exhausted");
        minutes(&env.clock, 6).await;

        accounts.refresh_quota_for_due_accounts().await;

        assert!(accounts.explain(&request()).chosen().is_some(), "{kind:?}");
        assert!(!env.stored().contains("seven_day/opus"), "{kind:?} {}", env.stored());
        let restarted = env.restarted().accounts();
        restarted.load().await.unwrap();
        assert!(restarted.explain(&request()).chosen().is_some(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_visible_to_all_users_of_the_quota_manager() {
    let env = env(Kind::With);
    env.set_usage(67.0);

    env.accounts().refresh_quota_for_due_accounts().await;

    let usage = env.quota.account(&id("b")).peek();
    assert!(!usage.is_stale());
    assert_eq!(usage.used(&WindowId::five_hour()).lower_bound(), Some(percent(67.0)));
}

#[tokio::test(start_paused = true)]
async fn routing_uses_the_readings_of_the_quota_manager() {
    let env = env(Kind::With);
    let accounts = env.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    minutes(&env.clock, 1).await;

    env.quota.account(&id("main")).observe(&UsageReport::from_headers([env.five_hour(100.0)])).unwrap();

    assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"));
}

#[tokio::test(start_paused = true)]
async fn stored_readings_are_seeded_with_their_own_age() {
    let env = env(Kind::With);
    env.set_usage(67.0);
    env.accounts().refresh_quota_for_due_accounts().await;
    minutes(&env.clock, 3).await;
    let restarted = env.restarted();

    restarted.accounts().load().await.unwrap();

    let usage = restarted.quota.account(&id("main")).peek();
    assert!(!usage.is_stale());
    assert_eq!(usage.age(), Some(Duration::from_secs(180)));
}

#[tokio::test(start_paused = true)]
async fn a_stored_hold_prevents_a_refresh_after_a_restart() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main")).fallback(id("b"));
        let accounts = env.accounts();
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.usable_fallback_accounts().await;
        accounts.flush().await.unwrap();
        minutes(&env.clock, 2).await;
        let before = env.provider.calls_for(&id("b"));

        env.restarted().accounts().usable_fallback_accounts().await;

        assert_eq!((before, env.provider.calls_for(&id("b"))), (1, 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_stored_without_a_login_survives_token_rotation() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main"));
        env.set_usage(40.0);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        accounts.refresh_quota_for_due_accounts().await;
        assert!(!env.stored().contains("login_id"), "{kind:?} {}", env.stored());
        let before = env.provider.calls();

        for token in 1..=3 {
            let login =
                LoginInfo::new(LoginId::new("someone")).fingerprint(CredentialFingerprint::from_hash(token));
            env.provider.set_login(&id("main"), Ok(login));
            let accounts = env.restarted().accounts();
            accounts.refresh_quota_for_due_accounts().await;
            let _ = accounts.route(Request::new()).await.unwrap();
            accounts.flush().await.unwrap();

            assert_eq!((env.provider.calls(), used(&accounts, "main")), (before, Some(40.0)), "{kind:?}");
            minutes(&env.clock, 9).await;
        }
        minutes(&env.clock, 4).await;
        env.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(env.provider.calls(), before + 1, "{kind:?}: the hold is over");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_stored_hold_has_no_effect() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main")).fallback(id("b"));
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));
        env.accounts().usable_fallback_accounts().await;
        minutes(&env.clock, 31).await;

        env.restarted().accounts().usable_fallback_accounts().await;

        assert_eq!(env.provider.calls_for(&id("b")), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_refresh_is_reported_and_the_others_succeed() {
    for kind in BOTH {
        let env = env(kind);
        env.provider.then_fail(FetchError::unavailable("it is out of service"));

        let reports = env.accounts().refresh_quota_for_due_accounts().await;

        assert_eq!(reports.len(), 3, "{kind:?}");
        assert_eq!(reports.iter().filter(|report| report.error.is_some()).count(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disabled_account_is_not_refreshed() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config.account_mut(&id("b")).unwrap().disabled = true;
        let accounts = env.accounts();

        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!(env.provider.calls_for(&id("b")), 0, "{kind:?}");
        assert_eq!(accounts.usable_fallback_accounts().await, [id("c")], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_window_of_another_model_causes_no_calls() {
    for kind in BOTH {
        let env = env(kind);
        let week = WindowId::seven_day();
        let opus = WindowReading::new(week.for_model("Opus").unwrap(), percent(30.0));
        let opus = opus.scope(Scope::model("Opus")).resets_at(env.clock.now() + HOUR * 96);
        let five_hour = env.five_hour(40.0).resets_at(env.clock.now() + HOUR * 4);
        env.provider.answer(UsageReport::polled([five_hour, opus]));
        let accounts = env.builder().response_parser(ExampleParser).build().unwrap();
        let sonnet = || Request::new().with_model("claude-sonnet-4-5");

        for minute in 0..60 {
            let route = accounts.route(sonnet()).await.unwrap();
            assert_eq!(route.account(), &id("main"));
            let used = (40 + minute / 2).to_string();
            let outcome = RequestOutcome::from_response(200, [("x-ratelimit-used", &*used)]);
            let _ = accounts.report(&route, outcome).await.unwrap();
            minutes(&env.clock, 1).await;
        }
        assert_eq!(env.provider.calls(), 1, "{kind:?}: the first refresh");

        // Only a request for that model refreshes its window.
        let _ = accounts.route(Request::new().with_model("claude-opus-4-5")).await.unwrap();
        minutes(&env.clock, 1).await;
        assert_eq!(env.provider.calls(), 2, "{kind:?}");
    }
}
