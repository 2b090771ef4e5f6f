//! Exchanges that fail, break or cannot be written.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::{CredentialError, CredentialSource};
use quota_core::{FetchError, TokenError};

use super::{HOUR, World, id, token};

async fn ended(world: &World) -> quota_credentials::TokenStore {
    let logins = world.process();
    world.log_in(&logins, "main", 0).await;
    logins
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_is_left_alone_for_as_long_as_it_says() {
    let world = World::new();
    let logins = ended(&world).await;
    let hour = TokenError::transient("the provider asked to slow down").after(HOUR);
    world.provider.set_fails(Some(hour));

    let error = token(&logins, "main").await.unwrap_err();
    token(&world.process(), "main").await.unwrap_err();

    let CredentialError::TemporarilyUnavailable { retry_after: Some(wait), .. } = &error else {
        panic!("{error:?}")
    };
    assert!(*wait <= HOUR && *wait > HOUR - Duration::from_secs(1), "{wait:?}");
    assert!(matches!(
        FetchError::from(error),
        FetchError::CredentialUnavailable { retry_after: Some(_), .. }
    ));
    assert_eq!(world.provider.asked(), 1, "of all processes");

    world.provider.set_fails(None);
    world.clock.sleep(HOUR).await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}

// B39
#[tokio::test(start_paused = true)]
async fn a_dead_login_says_what_to_do_and_is_not_sent_again() {
    let world = World::new();
    let logins = ended(&world).await;
    world.provider.set_fails(Some(TokenError::invalid_grant("it was ended elsewhere")));

    for _ in 0..20 {
        let error = token(&logins, "main").await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        let text = "the login of example/main is no longer good (it was ended elsewhere): log in again with `example login`";
        assert_eq!(error.to_string(), text);
        world.clock.sleep(24 * HOUR).await;
    }

    assert_eq!(world.provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_access_token_that_is_good_is_given_although_its_renewal_fails() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 8 * 3600).await;
    world.provider.set_fails(Some(TokenError::invalid_grant("refused")));
    world.clock.sleep(8 * HOUR - Duration::from_secs(60)).await;

    token(&logins, "main").await.unwrap();
    logins.close().await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_breaks_strands_nobody() {
    let world = World::new();
    let logins = ended(&world).await;
    *world.provider.breaks.lock().unwrap() = true;

    let error = token(&logins, "main").await.unwrap_err();
    assert!(!matches!(error, CredentialError::Unreadable { .. }), "{error:?}");

    // Its lock is gone with it: another one can log in and renew.
    *world.provider.breaks.lock().unwrap() = false;
    world.log_in(&logins, "main", 0).await;
    assert!(token(&world.process(), "main").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_given_up_and_the_next_one_is_asked() {
    let world = World::new();
    let logins = ended(&world).await;
    world.provider.set_takes(Duration::from_secs(3600));

    token(&logins, "main").await.unwrap_err();
    logins.close().await;
    let error = token(&logins, "main").await.unwrap_err();

    assert!(matches!(error, CredentialError::TemporarilyUnavailable { .. }), "{error:?}");
    assert_eq!(world.provider.asked(), 1);
}

/// What stands where the new file is written beside the old one keeps it from being written.
fn block(world: &World) -> std::path::PathBuf {
    let path = world.dir.path().join("logins.json.quota-new");
    fs::create_dir(&path).unwrap();
    path
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_sent_if_what_comes_of_it_could_not_be_written() {
    let world = World::new();
    let logins = ended(&world).await;
    let _block = block(&world);

    token(&logins, "main").await.unwrap_err();

    assert_eq!(world.provider.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_cannot_be_written_serves_from_memory_until_it_can() {
    let world = World::new();
    let logins = ended(&world).await;
    world.provider.set_takes(Duration::from_secs(4));
    let caller = token(&logins, "main");
    let spoil = async {
        world.clock.sleep(Duration::from_secs(2)).await;
        block(&world)
    };
    let (given, block) = tokio::join!(caller, spoil);

    assert_eq!(given.unwrap(), "access-main-1");
    assert!(!fs::read_to_string(logins.path()).unwrap().contains("access-main-1"));
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    fs::remove_dir(block).unwrap();
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert!(fs::read_to_string(logins.path()).unwrap().contains("access-main-1"));
    assert_eq!((world.provider.asked(), world.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_for_a_moment_is_written_before_anybody_else_has_the_turn() {
    let world = World::new();
    let logins = ended(&world).await;
    let other = world.process();
    world.provider.set_takes(Duration::from_secs(4));
    let spoil = async {
        world.clock.sleep(Duration::from_secs(2)).await;
        let block = block(&world);
        world.clock.sleep(Duration::from_millis(2_500)).await;
        fs::remove_dir(block).unwrap();
    };

    let (one, another, ()) = tokio::join!(token(&logins, "main"), token(&other, "main"), spoil);

    assert_eq!((one.unwrap(), another.unwrap()), ("access-main-1".into(), "access-main-1".into()));
    assert_eq!((world.provider.asked(), world.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

// B38
#[tokio::test(start_paused = true)]
async fn a_login_that_is_made_during_an_exchange_stays() {
    let world = World::new();
    let logins = ended(&world).await;
    world.provider.set_takes(Duration::from_secs(4));
    let renewed = token(&logins, "main");
    let log_in = async {
        world.clock.sleep(Duration::from_secs(2)).await;
        world.log_in(&world.process(), "main", 3600).await;
    };
    let (given, ()) = tokio::join!(renewed, log_in);

    assert_eq!(given.unwrap(), "access-main-2");
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-2");
}

// B93
#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_an_error_stays_as_it_is_and_sends_nothing() {
    let world = World::new();
    let logins = ended(&world).await;
    fs::write(logins.path(), "{\"logins\": \"n33dle\"").unwrap();

    let error = logins.credential(&id("main")).await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("n33dle"));
    assert!(fs::read_to_string(logins.path()).unwrap().contains("n33dle"));
    assert_eq!(world.provider.asked(), 0);
}

// B97
#[tokio::test(start_paused = true)]
async fn a_file_of_a_newer_program_is_read_and_no_token_in_it_is_sent() {
    let world = World::new();
    let logins = ended(&world).await;
    let text = fs::read_to_string(logins.path()).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(logins.path(), &text).unwrap();

    token(&logins, "main").await.unwrap_err();

    assert_eq!(fs::read_to_string(logins.path()).unwrap(), text);
    assert_eq!(world.provider.asked(), 0);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_file_that_others_may_read_is_refused_with_what_mends_it() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    let logins = ended(&world).await;
    let mode = |mode| fs::set_permissions(logins.path(), fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(logins.path()).unwrap().permissions().mode() & 0o777, 0o600);

    mode(0o644);
    let error = token(&logins, "main").await.unwrap_err();
    assert!(error.to_string().contains("run `chmod 600 "), "{error}");
    assert_eq!(world.provider.asked(), 0);

    mode(0o600);
    assert!(token(&logins, "main").await.is_ok());
}
