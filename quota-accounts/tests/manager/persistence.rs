//! Saves of the state file: in order, only after changes, and independent of their waiters.

use std::time::Duration;

use quota_accounts::{Request, RequestOutcome, RoutingMode, RoutingPolicy};
use quota_core::FetchError;

use crate::reports::{reading, served};
use crate::support::*;

async fn millis(env: &Env, millis: u64) {
    env.clock.sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_block_cleared_before_its_save_does_not_return() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let first = accounts.route(Request::new()).await.unwrap();
        let second = accounts.route(Request::new()).await.unwrap();
        let lock = env.locked();
        let _ = accounts.report(&first, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();

        // This writer has only the first response, and polls the lock at other times.
        millis(&env, 5).await;
        let _ = accounts.report(&second, served("41")).await.unwrap();
        millis(&env, 3_007).await;
        drop(lock);
        accounts.flush().await.unwrap();

        assert!(!env.stored().contains("forbidden"), "{kind:?} {}", env.stored());
        let restarted = env.restarted().accounts();
        assert_eq!(restarted.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_failures_cause_one_save() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let mut routes = Vec::new();
        for _ in 0..5 {
            routes.push(accounts.route(Request::new()).await.unwrap());
        }
        let lock = env.locked();
        for route in &routes {
            let _ = accounts.report(route, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();
            // They poll the lock at different times.
            millis(&env, 1).await;
        }
        std::fs::remove_file(env.state_path()).unwrap();
        drop(lock);
        while env.stored().is_empty() {
            millis(&env, 1).await;
        }

        std::fs::remove_file(env.state_path()).unwrap();
        minutes(&env.clock, 1).await;
        accounts.flush().await.unwrap();

        assert_eq!(env.stored(), "", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_flush_cancels_no_background_task() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("77.77")).await.unwrap();

        let lock = env.locked();
        let flushed = env.clock.bounded(Duration::from_secs(1), accounts.flush()).await;
        drop(lock);
        minutes(&env.clock, 1).await;

        assert!(flushed.is_none(), "{kind:?}");
        assert!(env.stored().contains("7777"), "{kind:?} {}", env.stored());

        // The next report is saved too, without a flush.
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("88.88")).await.unwrap();
        minutes(&env.clock, 1).await;

        assert!(env.stored().contains("8888"), "{kind:?} {}", env.stored());
    }
}

/// A runtime of one thread with paused time.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime")
}

#[test]
fn a_runtime_that_ends_early_does_not_block_later_refreshes() {
    for kind in BOTH {
        let first = runtime();
        let (env, accounts) = first.block_on(reading(kind));
        let before = env.provider.calls();
        first.block_on(async {
            minutes(&env.clock, 6).await;
            let _ = accounts.route(Request::new()).await.unwrap();
        });
        assert_eq!(env.provider.calls(), before, "{kind:?}: the refresh never started");
        drop(first);

        runtime().block_on(async {
            // The readings are this old by the clock of this runtime.
            minutes(&env.clock, 9).await;
            let _ = accounts.route(Request::new()).await.unwrap();
            minutes(&env.clock, 1).await;
        });

        assert_eq!(env.provider.calls(), before + 1, "{kind:?}");
    }
}

#[test]
fn a_runtime_that_ends_early_does_not_block_later_saves() {
    for kind in BOTH {
        let first = runtime();
        let (env, accounts) = first.block_on(reading(kind));
        let report = async {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("77.77")).await.unwrap();
        };
        first.block_on(report);
        drop(first);

        runtime().block_on(async {
            minutes(&env.clock, 1).await;
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("88.88")).await.unwrap();
            minutes(&env.clock, 1).await;
        });

        assert!(env.stored().contains("8888"), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_without_news_writes_nothing() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        (0..200).for_each(|_| env.provider.then_fail(FetchError::not_logged_in("no login")));
        let request = || Request::new().with_session("a-session");
        let _ = accounts.route(request()).await.unwrap();
        accounts.flush().await.unwrap();
        std::fs::remove_file(env.state_path()).unwrap();

        for _ in 0..5 {
            let _ = accounts.route(request()).await.unwrap();
            accounts.flush().await.unwrap();
        }

        assert_eq!(env.stored(), "", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failing_refreshes_do_not_save_session_times_more_often() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        (0..200).for_each(|_| env.provider.then_fail(FetchError::not_logged_in("no login")));
        let mut writes = 0;

        for _ in 0..30 {
            let _ = accounts.route(Request::new().with_session("a-session")).await.unwrap();
            millis(&env, 100).await;
            writes += usize::from(std::fs::remove_file(env.state_path()).is_ok());
        }

        assert!(writes <= 2, "{kind:?}: {writes}");
    }
}

/// A router with this many stored sessions, on a clock some seconds later.
async fn with_sessions(kind: Kind, count: usize) -> (Env, quota_accounts::FallbackAccountManager) {
    let mut env = env(kind);
    env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
    let accounts = env.accounts();
    for number in 0..count {
        let _ = accounts.route(Request::new().with_session(&number.to_string())).await.expect("an account");
    }
    accounts.flush().await.expect("the disk has space");
    millis(&env, 5_000).await;
    (env, accounts)
}

/// The content of each stored file.
fn stored_files(env: &Env) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let paths = env.session_files().into_iter().chain([env.state_path()]);
    paths.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

#[tokio::test(start_paused = true)]
async fn one_request_of_ten_thousand_sessions_writes_one_shard() {
    for kind in BOTH {
        let (env, accounts) = with_sessions(kind, 10_000).await;
        let before = stored_files(&env);
        assert!(before[&env.state_path()].len() < 10_000, "{kind:?}: the state file has no sessions");

        let _ = accounts.route(Request::new().with_session("77")).await.unwrap();
        accounts.flush().await.unwrap();

        let written: Vec<usize> = stored_files(&env)
            .into_iter()
            .filter(|(path, contents)| before.get(path) != Some(contents))
            .map(|(_, contents)| contents.len())
            .collect();
        assert_eq!(written.len(), 1, "{kind:?}");
        let total: usize = before.values().map(Vec::len).sum();
        assert!(written[0] * 30 < total, "{kind:?}: {} of {total} bytes", written[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_of_an_older_program_are_moved_to_their_shards() {
    for kind in BOTH {
        let (env, accounts) = with_sessions(kind, 3).await;
        drop(accounts);
        let mut sessions = Vec::new();
        for path in env.session_files() {
            let shard = std::fs::read(&path).unwrap();
            let shard: serde_json::Value = serde_json::from_slice(&shard).unwrap();
            sessions.extend(shard["sessions"].as_array().unwrap().clone());
            std::fs::remove_file(path).unwrap();
        }
        // An account that this router does not have.
        sessions[0]["account"] = "anthropic/of-another-router".into();
        let mut state: serde_json::Value = serde_json::from_str(&env.stored()).unwrap();
        state["sessions"] = sessions.into();
        std::fs::write(env.state_path(), state.to_string()).unwrap();

        let restarted = env.restarted().accounts();
        let _ = restarted.route(Request::new()).await.unwrap();
        restarted.flush().await.unwrap();

        assert!(!env.stored().contains("sessions"), "{kind:?} {}", env.stored());
        let text = env.stored_sessions();
        assert_eq!(text.matches("\"session\"").count(), 3, "{kind:?} {text}");
        assert!(text.contains("of-another-router"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_file_that_disappears_is_written_completely() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let first = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&first, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();
        accounts.flush().await.unwrap();
        let account = first.account().to_string();
        assert!(env.stored().contains("forbidden"), "{kind:?}");
        std::fs::remove_file(env.state_path()).unwrap();

        let second = accounts.route(Request::new()).await.unwrap();
        assert_ne!(second.account(), first.account());
        let _ = accounts.report(&second, served("55.55")).await.unwrap();
        accounts.flush().await.unwrap();

        let state: serde_json::Value = serde_json::from_str(&env.stored()).unwrap();
        assert_eq!(state["accounts"][&account]["blocks"][0]["kind"], "forbidden", "{kind:?} {state}");
    }
}
