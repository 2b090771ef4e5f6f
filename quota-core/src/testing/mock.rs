//! The mockall mock of [`UsageFetcher`].
//! To count calls or to script answers, [`FakeProvider`](super::FakeProvider) is shorter.

use async_trait::async_trait;

use crate::{AccountId, Credential, FetchError, ProviderId, UsageFetcher, UsageReport};

mockall::mock! {
    /// A [`UsageFetcher`] whose calls are expected one by one.
    #[derive(Debug)]
    pub UsageFetcher {}

    #[async_trait]
    impl UsageFetcher for UsageFetcher {
        fn provider(&self) -> ProviderId;
        async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError>;
    }
}
