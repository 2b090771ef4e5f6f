//! The mockall mock of [`UsageFetcher`]. [`FakeProvider`](super::FakeProvider) needs less code to count calls or to script
//! responses.

use async_trait::async_trait;

use crate::model::{AccountId, ProviderId, UsageReport};
use crate::provider::{Credential, FetchError, UsageFetcher};

mockall::mock! {
    /// A [`UsageFetcher`] with an expectation for each call.
    #[derive(Debug)]
    pub UsageFetcher {}

    #[async_trait]
    impl UsageFetcher for UsageFetcher {
        fn provider(&self) -> ProviderId;
        async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError>;
    }
}
