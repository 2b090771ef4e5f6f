//! Users: the least sufficient rights, and the errors without them.

use quota_core::QuotaStore;
use quota_core::store::StoreError;
use quota_redis::RedisStore;
use redis_harness::{Server, redis};

use crate::env::{applied, body, key, open, swap};

/// The rights that the front page of the crate lists for a single server.
const LEAST: [&str; 11] = [
    "~quota:1:*",
    "&quota:1:*",
    "+evalsha",
    "+eval",
    "+get",
    "+set",
    "+getrange",
    "+time",
    "+publish",
    "+subscribe",
    "+unsubscribe",
];

/// A store whose user has exactly the required rights.
pub(crate) fn store_of_least(server: &Server) -> RedisStore {
    let () = server.command(&[&["ACL", "SETUSER", "quota", "reset", "on", ">pw"][..], &LEAST].concat());
    open(&format!("redis://quota:pw@127.0.0.1:{}", server.port()))
}

#[test]
fn the_least_rights_are_those_on_the_front_page() {
    let front_page = include_str!("../../src/lib.rs");

    for rights in [&LEAST[..], &crate::cluster::LEAST] {
        let rights = rights.join(" ");
        assert!(front_page.contains(&rights), "the front page should say: {rights}");
    }
}

#[tokio::test]
async fn each_listed_right_is_required() {
    let server = Server::start();
    let store = store_of_least(&server);
    let key = key("main");
    applied(swap(&store, &key, None, "one").await);

    for right in ["+evalsha", "+eval", "+get", "+set"] {
        let taken = right.replace('+', "-");
        let () = server.command(&["ACL", "SETUSER", "quota", &taken]);
        let () = server.command(&["SCRIPT", "FLUSH"]);

        let error = swap(&store, &key, None, "two")
            .await
            .map(|swap| assert!(matches!(swap, quota_core::store::CasOutcome::Conflict(_))));
        let read = store.read(&key).await.map(drop);

        let written = swap(&store, &crate::env::key(&right[1..]), None, "new").await.map(drop);
        let refused = [error, read, written].into_iter().filter_map(Result::err).next();
        assert!(matches!(refused, Some(StoreError::Rejected { .. })), "{right}: {refused:?}");
        let () = server.command(&["ACL", "SETUSER", "quota", right]);
    }
}

#[tokio::test]
async fn a_user_that_may_not_publish_can_write() {
    let server = Server::start();
    let () = server.command(&["ACL", "SETUSER", "mute", "on", ">pw", "~*", "resetchannels", "+@all"]);
    let store = open(&format!("redis://mute:pw@127.0.0.1:{}", server.port()));
    let key = key("main");

    let one = applied(swap(&store, &key, None, "one").await);
    applied(swap(&store, &key, Some(one), "two").await);

    assert_eq!(body(store.read(&key).await).as_deref(), Some(&b"two"[..]));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut execute = |command: &[&str]| redis::cmd(command[0]).arg(&command[1..]).exec(&mut admin).unwrap();
    execute(&["ACL", "SETUSER", "quota", "on", ">right", "~*", "&*", "+@all"]);
    execute(&["CONFIG", "SET", "requirepass", "right"]);

    for login in ["quota:hunter2", "unknown:hunter2", ":hunter2"] {
        let store = open(&format!("redis://{login}@127.0.0.1:{}", server.port()));
        for error in [
            store.read(&key("main")).await.unwrap_err(),
            swap(&store, &key("main"), None, "x").await.unwrap_err(),
            store.wait_for_change(&key("main"), None).await.unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                "the store refused: redis rejected this user and password; check both in the URL"
            );
            assert!(!format!("{error:?} {store:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_password_is_reported() {
    let server = Server::builder().with("requirepass right").start();
    let store = open(&server.url());

    let error = store.read(&key("main")).await.unwrap_err();

    assert_eq!(error.to_string(), "the store refused: redis requires a password; add it to the URL");
}
