//! The mockall mock of [`UsageFetcher`].
//! To count calls or to script answers, [`FakeProvider`](super::FakeProvider) is shorter.

use async_trait::async_trait;

use crate::{AccountId, FetchError, LoginInfo, ProviderId, UsageFetcher, UsageReport};

mockall::mock! {
    /// A [`UsageFetcher`] whose calls are expected one by one.
    #[derive(Debug)]
    pub UsageFetcher {}

    #[async_trait]
    impl UsageFetcher for UsageFetcher {
        fn provider(&self) -> ProviderId;
        async fn fetch(&self, account: &AccountId) -> Result<UsageReport, FetchError>;
        async fn login(&self, account: &AccountId) -> Result<LoginInfo, FetchError>;
        async fn renew(&self, account: &AccountId) -> bool;
    }
}
