//! State files that are malformed, locked, shared or written by newer programs.

use std::time::Duration;

use quota_accounts::{AccountsFile, BuildError, Request, RequestOutcome, RoutingMode, RoutingPolicy};
use quota_core::file::FileError;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_malformed_file_is_reported_and_unchanged_and_routing_continues() {
    for kind in BOTH {
        let env = env(kind);
        std::fs::write(env.state_path(), "{ damaged").unwrap();
        let accounts = env.accounts();

        let loaded = accounts.load().await.unwrap_err();
        let route = accounts.route(Request::new()).await;
        let flushed = accounts.flush().await.unwrap_err();

        assert!(matches!(loaded, FileError::Malformed { .. }), "{kind:?} {loaded:?}");
        assert!(matches!(flushed, FileError::Malformed { .. }), "{kind:?} {flushed:?}");
        assert!(route.is_ok(), "{kind:?}");
        assert_eq!(env.stored(), "{ damaged");
    }
}

#[tokio::test(start_paused = true)]
async fn two_managers_of_different_accounts_preserve_each_others_readings() {
    for kind in BOTH {
        let one = env(kind);
        let mut other = one.restarted();
        other.config = quota_accounts::AccountsConfig::new(id("x"));

        one.accounts().refresh_quota_for_due_accounts().await;
        other.accounts().refresh_quota_for_due_accounts().await;
        one.accounts().refresh_quota_for_due_accounts().await;

        for name in ["main", "b", "c", "x"] {
            assert!(one.stored().contains(&format!("\"example/{name}\"")), "{kind:?} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_preserves_changes_made_while_it_waited_for_the_lock() {
    for kind in BOTH {
        let one = env(kind);
        let mut other = one.restarted();
        other.config = quota_accounts::AccountsConfig::new(id("x"));
        other.accounts().refresh_quota_for_due_accounts().await;
        let theirs = one.stored();
        std::fs::remove_file(one.state_path()).unwrap();
        let lock = one.locked();

        let accounts = one.accounts();
        let ours = accounts.refresh_quota_for_due_accounts();
        let change = async {
            one.clock.sleep(Duration::from_secs(1)).await;
            std::fs::write(one.state_path(), theirs).unwrap();
            drop(lock);
        };
        let _ = tokio::join!(ours, change);

        for name in ["main", "b", "c", "x"] {
            assert!(
                one.stored().contains(&format!("\"example/{name}\"")),
                "{kind:?} {name} {}",
                one.stored()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_of_an_account_survive() {
    for kind in BOTH {
        let env = env(kind);
        let text = r#"{"version":2,"accounts":{"example/main":{"color":"green"}},"more":"too"}"#;
        std::fs::write(env.state_path(), text).unwrap();

        env.accounts().refresh_quota_for_due_accounts().await;

        assert!(env.stored().contains("green") && env.stored().contains("too"), "{kind:?} {}", env.stored());
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_of_a_session_survive() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        let _ = accounts.route(Request::new().with_session("used")).await.expect("all are available");
        let _ = accounts.route(Request::new().with_session("quiet")).await.expect("all are available");
        accounts.flush().await.expect("the file can be written");
        for path in env.session_files() {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("\"session\":", "\"color\": \"green\", \"session\":"))
                .unwrap();
        }
        assert_eq!(env.stored_sessions().matches("green").count(), 2, "{kind:?} {}", env.stored_sessions());

        let accounts = env.restarted().accounts();
        minutes(&env.clock, 1).await;
        let _ = accounts.route(Request::new().with_session("used")).await.expect("all are available");
        accounts.flush().await.expect("the file can be written");

        assert_eq!(env.stored_sessions().matches("green").count(), 2, "{kind:?} {}", env.stored_sessions());
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_listed_twice_is_a_build_error() {
    for kind in BOTH {
        let mut env = env(kind);
        let text = r#"{"accounts":[{"id":"example/main"},{"id":"example/b"},{"id":"example/main"}]}"#;
        let file = AccountsFile::at(env.dir.path().join("accounts.json"));
        std::fs::write(file.path(), text).unwrap();
        env.config = file.load().await.unwrap();

        let error = env.builder().build().err();

        assert!(
            matches!(&error, Some(BuildError::Duplicate { account, .. }) if *account == id("main")),
            "{kind:?}"
        );
        assert_eq!(error.unwrap().to_string(), "example/main is listed twice; remove one of the entries");
    }
}

#[tokio::test(start_paused = true)]
async fn routing_never_changes_the_users_file() {
    for kind in BOTH {
        let mut env = env(kind);
        let file = AccountsFile::at(env.dir.path().join("accounts.json"));
        let by_hand = "{ \"accounts\": [ {\"id\":\"example/main\"},\n\n {\"id\":\"example/b\"} ] }";
        std::fs::write(file.path(), by_hand).unwrap();
        env.config = file.load().await.unwrap();
        let accounts = env.builder().state_file(file.state_path()).build().unwrap();
        let request = || async {
            let route = accounts.route(Request::new().with_session("s")).await.unwrap();
            let _ = accounts
                .report(&route, RequestOutcome::from_response(429, [("retry-after", "9")]))
                .await
                .unwrap();
            accounts.refresh_quota_for_due_accounts().await;
            accounts.flush().await.unwrap();
            std::fs::read_to_string(file.path()).unwrap()
        };
        assert_eq!(request().await, by_hand, "{kind:?}");

        let edited = by_hand.replace("/b", "/other");
        std::fs::write(file.path(), &edited).unwrap();

        assert_eq!(request().await, edited, "{kind:?}");
        assert!(env.stored().contains("throttled"), "{kind:?} {}", env.stored());
    }
}
