//! What is kept on disk, when it is in trouble.

use std::time::Duration;

use quota_accounts::{AccountsFile, BuildError, Request, RequestOutcome, RoutingMode, RoutingPolicy};
use quota_core::file::FileError;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_told_and_left_as_it_is_and_routing_goes_on() {
    for kind in BOTH {
        let world = world(kind);
        std::fs::write(world.state_path(), "{ damaged").unwrap();
        let accounts = world.accounts();

        let loaded = accounts.load().await.unwrap_err();
        let route = accounts.route(Request::new()).await;
        let flushed = accounts.flush().await.unwrap_err();

        assert!(matches!(loaded, FileError::Malformed { .. }), "{kind:?} {loaded:?}");
        assert!(matches!(flushed, FileError::Malformed { .. }), "{kind:?} {flushed:?}");
        assert!(route.is_ok(), "{kind:?}");
        assert_eq!(world.kept(), "{ damaged");
    }
}

#[tokio::test(start_paused = true)]
async fn two_managers_of_different_accounts_keep_each_others_numbers() {
    for kind in BOTH {
        let one = world(kind);
        let mut other = one.restarted();
        other.config = quota_accounts::AccountsConfig::new(id("x"));

        one.accounts().refresh_quota_for_due_accounts().await;
        other.accounts().refresh_quota_for_due_accounts().await;
        one.accounts().refresh_quota_for_due_accounts().await;

        for name in ["main", "b", "c", "x"] {
            assert!(one.kept().contains(&format!("\"example/{name}\"")), "{kind:?} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_process_writes_while_this_one_waits_for_its_turn_is_not_lost() {
    for kind in BOTH {
        let one = world(kind);
        let mut other = one.restarted();
        other.config = quota_accounts::AccountsConfig::new(id("x"));
        other.accounts().refresh_quota_for_due_accounts().await;
        let theirs = one.kept();
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
            assert!(one.kept().contains(&format!("\"example/{name}\"")), "{kind:?} {name} {}", one.kept());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_program_keeps_of_an_account_survives() {
    for kind in BOTH {
        let world = world(kind);
        let text = r#"{"version":1,"accounts":{"example/main":{"colour":"green"}},"more":"too"}"#;
        std::fs::write(world.state_path(), text).unwrap();

        world.accounts().refresh_quota_for_due_accounts().await;

        assert!(world.kept().contains("green") && world.kept().contains("too"), "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_program_keeps_of_a_session_survives() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        let _ = accounts.route(Request::new().with_session("used")).await.expect("all have room");
        let _ = accounts.route(Request::new().with_session("quiet")).await.expect("all have room");
        accounts.flush().await.expect("the disk is in order");
        let colours = world.kept().replace("\"session\":", "\"colour\": \"green\", \"session\":");
        assert_eq!(colours.matches("green").count(), 2, "{kind:?} {colours}");
        std::fs::write(world.state_path(), colours).unwrap();

        let accounts = world.restarted().accounts();
        minutes(&world.clock, 1).await;
        let _ = accounts.route(Request::new().with_session("used")).await.expect("all have room");
        accounts.flush().await.expect("the disk is in order");

        assert_eq!(world.kept().matches("green").count(), 2, "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_a_hand_has_written_twice_is_told_before_anything_is_routed() {
    for kind in BOTH {
        let mut world = world(kind);
        let text = r#"{"accounts":[{"id":"example/main"},{"id":"example/b"},{"id":"example/main"}]}"#;
        let file = AccountsFile::at(world.dir.path().join("accounts.json"));
        std::fs::write(file.path(), text).unwrap();
        world.config = file.load().await.unwrap();

        let error = world.builder().build().err();

        assert!(
            matches!(&error, Some(BuildError::Duplicate { account, .. }) if *account == id("main")),
            "{kind:?}"
        );
        assert_eq!(error.unwrap().to_string(), "example/main is listed twice; remove one of the entries");
    }
}

#[tokio::test(start_paused = true)]
async fn routing_leaves_the_users_file_as_a_hand_has_written_it_even_during_a_run() {
    for kind in BOTH {
        let mut world = world(kind);
        let file = AccountsFile::at(world.dir.path().join("accounts.json"));
        let by_hand = "{ \"accounts\": [ {\"id\":\"example/main\"},\n\n {\"id\":\"example/b\"} ] }";
        std::fs::write(file.path(), by_hand).unwrap();
        world.config = file.load().await.unwrap();
        let accounts = world.builder().state_file(file.state_path()).build().unwrap();
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
        assert!(world.kept().contains("throttled"), "{kind:?} {}", world.kept());
    }
}
