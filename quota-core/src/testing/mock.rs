//! The mockall mock of [`UsageFetcher`].
//! To count calls or to script answers, [`FakeProvider`](super::FakeProvider) is shorter.

use async_trait::async_trait;

use crate::model::{AccountId, ProviderId, UsageReport};
use crate::provider::{Credential, FetchError, UsageFetcher};

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
