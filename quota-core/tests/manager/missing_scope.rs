//! A token without the scope for usage: it makes one call, and the readings of its account arrive from headers.

use crate::support::*;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{FetchError, QuotaError};

#[tokio::test(start_paused = true)]
async fn a_replaced_token_is_called_soon_after_a_missing_scope() {
    let env = env();
    let with_fingerprint =
        |fingerprint| Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)));
    env.provider.set_login(&id("main"), with_fingerprint(1));
    env.provider.then_fail(FetchError::missing_scope("user:profile"));
    let main = env.quota.account(&id("main"));
    let _kept_fresh = main.keep_fresh();
    env.clock.sleep(MINUTE * 60).await;
    let calls_with_old_token = env.provider.calls();

    env.provider.set_login(&id("main"), with_fingerprint(2));
    env.clock.sleep(MINUTE * 6).await;

    assert_eq!((calls_with_old_token, five_hours(&main.peek())), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn headers_provide_readings_for_a_token_without_the_scope() {
    let env = env();
    env.provider.then_fail(FetchError::missing_scope("user:profile"));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);

    main.observe(&headers(30.0)).unwrap();
    let refreshed = main.refresh().await.unwrap();

    assert!(is_exact(&refreshed.usage));
    assert!(matches!(refreshed.error, Some(QuotaError::CredentialRejected { .. })), "{:?}", refreshed.error);
    assert_eq!((five_hours(&refreshed.usage), env.provider.calls()), (Some(30.0), 1));
}
