//! Users: the permissions that suffice, and the errors without them.

use quota_core::QuotaStore;
use quota_core::store::StoreError;
use quota_redis::RedisStore;
use redis_harness::{Server, redis};

use crate::env::{applied, body, key, open, swap};

/// The permissions that the front page of the crate lists for a single server.
const REQUIRED_PERMISSIONS: [&str; 11] = [
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

/// A store whose user has exactly the required permissions.
pub(crate) fn store_with_required_permissions(server: &Server) -> RedisStore {
    let () = server
        .command(&[&["ACL", "SETUSER", "quota", "reset", "on", ">pw"][..], &REQUIRED_PERMISSIONS].concat());
    open(&format!("redis://quota:pw@127.0.0.1:{}", server.port()))
}

#[test]
fn the_front_page_lists_the_required_permissions() {
    let front_page = include_str!("../../src/lib.rs");

    for permissions in [&REQUIRED_PERMISSIONS[..], &crate::cluster::REQUIRED_PERMISSIONS] {
        let permissions = permissions.join(" ");
        assert!(front_page.contains(&permissions), "the front page should list: {permissions}");
    }
}

#[tokio::test]
async fn each_listed_permission_is_required() {
    let server = Server::start();
    let store = store_with_required_permissions(&server);
    let key = key("main");
    applied(swap(&store, &key, None, "one").await);

    for permission in ["+evalsha", "+eval", "+get", "+set"] {
        let revoked = permission.replace('+', "-");
        let () = server.command(&["ACL", "SETUSER", "quota", &revoked]);
        let () = server.command(&["SCRIPT", "FLUSH"]);

        let error = swap(&store, &key, None, "two")
            .await
            .map(|swap| assert!(matches!(swap, quota_core::store::CasOutcome::Conflict(_))));
        let read = store.read(&key).await.map(drop);

        let written = swap(&store, &crate::env::key(&permission[1..]), None, "new").await.map(drop);
        let rejected = [error, read, written].into_iter().filter_map(Result::err).next();
        assert!(matches!(rejected, Some(StoreError::Rejected { .. })), "{permission}: {rejected:?}");
        let () = server.command(&["ACL", "SETUSER", "quota", permission]);
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
async fn a_wrong_password_is_rejected_and_not_repeated() {
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
                "the store rejected the operation: redis rejected this user and password; check both in the URL"
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

    assert_eq!(
        error.to_string(),
        "the store rejected the operation: redis requires a password; add it to the URL"
    );
}
