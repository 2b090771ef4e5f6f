//! A token that may not read usage: it makes one call, and the numbers of its account arrive without calls.

use crate::support::*;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{FetchError, QuotaError};

#[tokio::test(start_paused = true)]
async fn an_account_whose_token_lacks_the_scope_is_called_again_soon_after_the_token_is_replaced() {
    let world = world();
    let with_mark =
        |fingerprint| Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)));
    world.provider.set_login(&id("main"), with_mark(1));
    world.provider.then_fail(FetchError::missing_scope("user:profile"));
    let main = world.quota.account(&id("main"));
    let _kept_fresh = main.keep_fresh();
    world.clock.sleep(MINUTE * 60).await;
    let calls_with_the_old = world.provider.calls();

    world.provider.set_login(&id("main"), with_mark(2));
    world.clock.sleep(MINUTE * 6).await;

    assert_eq!((calls_with_the_old, five_hours(&main.peek())), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn headers_give_the_numbers_of_an_account_whose_token_lacks_the_scope() {
    let world = world();
    world.provider.then_fail(FetchError::missing_scope("user:profile"));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);

    main.observe(&headers(30.0)).unwrap();
    let refreshed = main.refresh().await.unwrap();

    assert!(is_exact(&refreshed.usage));
    assert!(matches!(refreshed.error, Some(QuotaError::CredentialRejected { .. })), "{:?}", refreshed.error);
    assert_eq!((five_hours(&refreshed.usage), world.provider.calls()), (Some(30.0), 1));
}
