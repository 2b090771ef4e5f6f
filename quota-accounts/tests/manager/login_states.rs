//! The state file keeps what it knows about each login: a switch there and back, with a restart in between, makes no call.

use std::sync::Arc;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome};

use crate::logins::{Logins, next};
use crate::support::*;

const LOGINS: [(&str, u64); 2] = [("old", 1), ("new", 2)];

/// The router of a new process whose main account holds this login.
async fn process(env: &Env, login: usize) -> (Env, Arc<Logins>, FallbackAccountManager) {
    let env = env.restarted();
    let logins = Arc::new(Logins::default());
    log_in(&logins, login);
    let accounts = env.builder_with(logins.clone()).response_parser(ExampleParser).build();
    let accounts = accounts.expect("a valid configuration");
    accounts.load().await.expect("the file can be read");
    (env, logins, accounts)
}

fn log_in(logins: &Logins, login: usize) {
    let (name, token) = LOGINS[login];
    logins.set("main", Some(token), name);
}

async fn end(accounts: FallbackAccountManager) {
    accounts.flush().await.expect("the file can be written");
}

/// A state file of a process that has used the old login, and then the new one if `has_both`.
async fn used_by(kind: Kind, has_both: bool) -> Env {
    let mut first = env(kind);
    first.config = AccountsConfig::new(id("main"));
    let (env, logins, accounts) = process(&first, 0).await;
    env.set_usage(30.0);
    accounts.refresh_quota_for_due_accounts().await;
    if has_both {
        minutes(&env.clock, 1).await;
        log_in(&logins, 1);
        env.set_usage(70.0);
        assert_eq!(next(&accounts).await, id("main"));
    }
    end(accounts).await;
    minutes(&env.clock, 1).await;
    env
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_either_login_shows_its_readings_without_a_call() {
    for kind in BOTH {
        let env = used_by(kind, true).await;
        let calls = env.provider.calls();

        for (login, expected) in [(0, 30.0), (1, 70.0), (0, 30.0)] {
            let (env, _logins, accounts) = process(&env, login).await;

            assert_eq!(next(&accounts).await, id("main"));
            assert_eq!(used(&accounts, "main"), Some(expected), "{kind:?} {login} {}", env.stored());
            end(accounts).await;
        }

        assert_eq!(env.provider.calls(), calls, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_of_another_login_keeps_the_readings_that_were_never_in_memory() {
    for kind in BOTH {
        let env = used_by(kind, false).await;
        let (process_of_new, _logins, accounts) = process(&env, 1).await;
        process_of_new.set_usage(70.0);
        assert_eq!(next(&accounts).await, id("main"));
        assert_eq!(used(&accounts, "main"), Some(70.0), "{kind:?}");
        end(accounts).await;
        let calls = env.provider.calls();

        let (env, _logins, accounts) = process(&env, 0).await;

        assert_eq!(next(&accounts).await, id("main"));
        assert_eq!((used(&accounts, "main"), env.provider.calls()), (Some(30.0), calls), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_back_restores_the_readings_of_the_file() {
    for kind in BOTH {
        let env = used_by(kind, false).await;
        let (env, logins, accounts) = process(&env, 1).await;
        env.set_usage(70.0);
        assert_eq!(next(&accounts).await, id("main"));
        let calls = env.provider.calls();

        log_in(&logins, 0);
        minutes(&env.clock, 1).await;
        assert_eq!(next(&accounts).await, id("main"));

        assert_eq!((used(&accounts, "main"), env.provider.calls()), (Some(30.0), calls), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_counts_again_once_its_login_is_back() {
    for kind in BOTH {
        let env = used_by(kind, false).await;
        let (env, logins, accounts) = process(&env, 0).await;
        let route = accounts.route(Request::new()).await.expect("main is available");
        let exhausted = RequestOutcome::from_response(429, [("x-ratelimit-exhausted", "account")]);
        let _ = accounts.report(&route, exhausted).await.expect("a route of this manager");
        log_in(&logins, 1);
        minutes(&env.clock, 1).await;
        assert_eq!(next(&accounts).await, id("main"), "{kind:?}: the new login is not exhausted");
        end(accounts).await;

        for (login, is_available) in [(1, true), (0, false), (1, true), (0, false)] {
            let (env, _logins, accounts) = process(&env, login).await;

            let routed = accounts.route(Request::new()).await;
            assert_eq!(routed.is_ok(), is_available, "{kind:?} {login} {}", env.stored());
            end(accounts).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_disappears_is_written_with_the_logins_that_no_account_holds() {
    for kind in BOTH {
        let env = used_by(kind, true).await;
        let (env, _logins, accounts) = process(&env, 1).await;
        std::fs::remove_file(env.state_path()).expect("the file exists");

        minutes(&env.clock, 6).await;
        env.set_usage(80.0);
        accounts.refresh_quota_for_due_accounts().await;
        end(accounts).await;

        assert!(env.stored().contains("\"old\""), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_was_not_used_for_a_month_leaves_the_file() {
    for kind in BOTH {
        let env = used_by(kind, true).await;
        assert!(env.stored().contains("\"old\""), "{kind:?} {}", env.stored());
        minutes(&env.clock, 31 * 24 * 60).await;

        let (env, _logins, accounts) = process(&env, 1).await;
        assert_eq!(next(&accounts).await, id("main"));
        end(accounts).await;

        assert!(!env.stored().contains("\"old\""), "{kind:?} {}", env.stored());
    }
}
