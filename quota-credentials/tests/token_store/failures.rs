//! Renewals that fail, panic or cannot be written.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::provider::TokenError;
use quota_core::{CredentialError, CredentialSource, FetchError};

use super::{Env, HOUR, id, token};

async fn expired(env: &Env) -> quota_credentials::TokenStore {
    let logins = env.process();
    env.log_in(&logins, "main", 0).await;
    logins
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_the_provider_blocks_all_processes() {
    let env = Env::new();
    let logins = expired(&env).await;
    let hour = TokenError::transient("rate limited").with_retry_after(HOUR);
    env.provider.set_error(Some(hour));

    let error = token(&logins, "main").await.unwrap_err();
    token(&env.process(), "main").await.unwrap_err();

    let CredentialError::TemporarilyUnavailable { retry_after: Some(wait), .. } = &error else {
        panic!("{error:?}")
    };
    assert!(*wait <= HOUR && *wait > HOUR - Duration::from_secs(1), "{wait:?}");
    assert!(matches!(
        FetchError::from(error),
        FetchError::CredentialUnavailable { retry_after: Some(_), .. }
    ));
    assert_eq!(env.provider.request_count(), 1, "requests of all processes");

    env.provider.set_error(None);
    env.clock.sleep(HOUR).await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_refresh_token_is_not_sent_again() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_error(Some(TokenError::invalid_grant("the user logged out")));

    for _ in 0..20 {
        let error = token(&logins, "main").await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        let text = "the login of example/main is no longer valid (the user logged out); log in again with `example login`";
        assert_eq!(error.to_string(), text);
        env.clock.sleep(24 * HOUR).await;
    }

    assert_eq!(env.provider.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_valid_access_token_is_used_while_its_renewal_fails() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 8 * 3600).await;
    env.provider.set_error(Some(TokenError::invalid_grant("refused")));
    env.clock.sleep(8 * HOUR - Duration::from_secs(60)).await;

    token(&logins, "main").await.unwrap();
    logins.close().await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_panics_releases_lock_and_callers() {
    let env = Env::new();
    let logins = expired(&env).await;
    *env.provider.panics.lock().unwrap() = true;

    let error = token(&logins, "main").await.unwrap_err();
    assert!(!matches!(error, CredentialError::Unreadable { .. }), "{error:?}");

    // The panic released the lock, so another process can log in and renew.
    *env.provider.panics.lock().unwrap() = false;
    env.log_in(&logins, "main", 0).await;
    assert!(token(&env.process(), "main").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_responds_times_out() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_latency(Duration::from_secs(3600));

    token(&logins, "main").await.unwrap_err();
    logins.close().await;
    let error = token(&logins, "main").await.unwrap_err();

    assert!(matches!(error, CredentialError::TemporarilyUnavailable { .. }), "{error:?}");
    assert_eq!(env.provider.request_count(), 1);
}

/// Creates a folder at the path of the temporary file, so that writing the file fails.
fn block_writes(env: &Env) -> std::path::PathBuf {
    let path = env.dir.path().join("logins.json.quota-new");
    fs::create_dir(&path).unwrap();
    path
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_sent_if_the_file_cannot_be_written() {
    let env = Env::new();
    let logins = expired(&env).await;
    let _block = block_writes(&env);

    token(&logins, "main").await.unwrap_err();

    assert_eq!(env.provider.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unsaved_token_is_used_until_it_can_be_written() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_latency(Duration::from_secs(4));
    let caller = token(&logins, "main");
    let break_file = async {
        env.clock.sleep(Duration::from_secs(2)).await;
        block_writes(&env)
    };
    let (result, block) = tokio::join!(caller, break_file);

    assert_eq!(result.unwrap(), "access-main-1");
    assert!(!fs::read_to_string(logins.path()).unwrap().contains("access-main-1"));
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    fs::remove_dir(block).unwrap();
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert!(fs::read_to_string(logins.path()).unwrap().contains("access-main-1"));
    assert_eq!((env.provider.request_count(), env.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unsaved_token_is_written_before_the_lease_is_released() {
    let env = Env::new();
    let logins = expired(&env).await;
    let other = env.process();
    env.provider.set_latency(Duration::from_secs(4));
    let break_file = async {
        env.clock.sleep(Duration::from_secs(2)).await;
        let block = block_writes(&env);
        env.clock.sleep(Duration::from_millis(2_500)).await;
        fs::remove_dir(block).unwrap();
    };

    let (one, another, ()) = tokio::join!(token(&logins, "main"), token(&other, "main"), break_file);

    assert_eq!((one.unwrap(), another.unwrap()), ("access-main-1".into(), "access-main-1".into()));
    assert_eq!((env.provider.request_count(), env.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

/// Renews an expired token while the file is missing for `missing`, from a second after the request.
async fn renew_while_the_file_is_missing(env: &Env, missing: Duration) -> quota_credentials::TokenStore {
    let logins = expired(env).await;
    env.provider.set_latency(Duration::from_secs(4));
    let elsewhere = env.dir.path().join("elsewhere.json");
    let move_file = async {
        env.clock.sleep(Duration::from_secs(1)).await;
        fs::rename(logins.path(), &elsewhere).unwrap();
        env.clock.sleep(missing).await;
        assert!(!logins.path().exists(), "a renewal does not create the file");
        fs::rename(&elsewhere, logins.path()).unwrap();
    };
    let (_, ()) = tokio::join!(token(&logins, "main"), move_file);
    logins
}

#[tokio::test(start_paused = true)]
async fn new_tokens_survive_a_file_that_is_missing_for_a_moment() {
    for missing in [4, 60] {
        let env = Env::new();

        let logins = renew_while_the_file_is_missing(&env, Duration::from_secs(missing)).await;

        assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1", "{missing}");
        assert!(fs::read_to_string(logins.path()).unwrap().contains("access-main-1"), "{missing}");
        assert_eq!((env.provider.request_count(), env.provider.reuses.load(Ordering::SeqCst)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn new_tokens_survive_reads_while_the_file_is_missing() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_latency(Duration::from_secs(4));
    let elsewhere = env.dir.path().join("elsewhere.json");
    let renewed = token(&logins, "main");
    let block = async {
        env.clock.sleep(Duration::from_secs(2)).await;
        block_writes(&env)
    };
    let (result, block) = tokio::join!(renewed, block);
    assert_eq!(result.unwrap(), "access-main-1", "it is not written yet");

    fs::rename(logins.path(), &elsewhere).unwrap();
    token(&logins, "main").await.unwrap_err();
    assert_eq!(logins.accounts().await.unwrap(), []);
    fs::remove_dir(block).unwrap();
    token(&logins, "main").await.unwrap_err();
    fs::rename(&elsewhere, logins.path()).unwrap();

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(env.provider.reuses.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_survives_a_file_that_is_missing_for_a_moment() {
    let env = Env::new();
    env.provider.set_error(Some(TokenError::invalid_grant("the user logged out")));

    let logins = renew_while_the_file_is_missing(&env, Duration::from_secs(60)).await;
    let error = token(&logins, "main").await.unwrap_err();
    let error_of_another_process = token(&env.process(), "main").await.unwrap_err();

    assert!(error.to_string().contains("the user logged out"), "{error}");
    assert_eq!(error_of_another_process.to_string(), error.to_string());
    assert_eq!(env.provider.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_login_drops_tokens_that_were_not_written() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_latency(Duration::from_secs(4));
    let remove = async {
        env.clock.sleep(Duration::from_secs(2)).await;
        assert!(env.process().remove(&id("main")).await.unwrap());
    };
    let (_, ()) = tokio::join!(token(&logins, "main"), remove);

    logins.close().await;

    assert!(!fs::read_to_string(logins.path()).unwrap().contains("access-main-1"));
}

#[tokio::test(start_paused = true)]
async fn a_login_stored_during_a_renewal_is_not_replaced() {
    let env = Env::new();
    let logins = expired(&env).await;
    env.provider.set_latency(Duration::from_secs(4));
    let renewed = token(&logins, "main");
    let log_in = async {
        env.clock.sleep(Duration::from_secs(2)).await;
        env.log_in(&env.process(), "main", 3600).await;
    };
    let (result, ()) = tokio::join!(renewed, log_in);

    assert_eq!(result.unwrap(), "access-main-2");
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-2");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_file_is_an_error_and_stays_unchanged() {
    let env = Env::new();
    let logins = expired(&env).await;
    fs::write(logins.path(), "{\"logins\": \"n33dle\"").unwrap();

    let error = logins.credential(&id("main")).await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("n33dle"));
    assert!(fs::read_to_string(logins.path()).unwrap().contains("n33dle"));
    assert_eq!(env.provider.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_a_newer_program_is_read_but_not_renewed() {
    let env = Env::new();
    let logins = expired(&env).await;
    let text = fs::read_to_string(logins.path()).unwrap().replace("\"version\": 2", "\"version\": 3");
    fs::write(logins.path(), &text).unwrap();

    token(&logins, "main").await.unwrap_err();

    assert_eq!(fs::read_to_string(logins.path()).unwrap(), text);
    assert_eq!(env.provider.request_count(), 0);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_file_accessible_to_others_is_rejected_with_a_hint() {
    use std::os::unix::fs::PermissionsExt;

    let env = Env::new();
    let logins = expired(&env).await;
    let mode = |mode| fs::set_permissions(logins.path(), fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(logins.path()).unwrap().permissions().mode() & 0o777, 0o600);

    mode(0o644);
    let error = token(&logins, "main").await.unwrap_err();
    assert!(error.to_string().contains("run `chmod 600 "), "{error}");
    assert_eq!(env.provider.request_count(), 0);

    mode(0o600);
    assert!(token(&logins, "main").await.is_ok());
}
