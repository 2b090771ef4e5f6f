//! The state that the accounts of one provider share in this process: fetcher, credential sources, limiter, policy and
//! cooldown. `cooldown` shares the cooldown with other processes.

use std::sync::Arc;

use jiff::Timestamp;

use super::cooldown::SharedCooldown;
use super::credential_sources::CredentialSources;
use super::limiter::CallLimiter;
use super::store_client::StoreClient;
use crate::clock::Clock;
use crate::model::ProviderId;
use crate::policy::Policy;
use crate::provider::UsageFetcher;
use crate::record::Hold;

/// One provider in this process.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) fetcher: Option<Arc<dyn UsageFetcher>>,
    pub(crate) credentials: CredentialSources,
    pub(crate) policy: Policy,
    pub(crate) limiter: Arc<CallLimiter>,
    pub(crate) store_client: Arc<StoreClient>,
    pub(crate) clock: Clock,
    /// `None` if the policy limits a 429 to its own account.
    pub(crate) shared_cooldown: Option<Arc<SharedCooldown>>,
}

impl Provider {
    pub(crate) fn new(
        id: ProviderId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        credentials: CredentialSources,
        policy: Policy,
        store_client: Arc<StoreClient>,
        clock: Clock,
        shared_cooldown: Option<Arc<SharedCooldown>>,
    ) -> Arc<Self> {
        let limiter = CallLimiter::new(clock.clone(), policy.min_call_interval, policy.max_concurrent_calls);
        Arc::new(Self { id, fetcher, credentials, policy, limiter, store_client, clock, shared_cooldown })
    }

    /// The cooldown in force at `now`; see [`SharedCooldown::at`].
    pub(crate) fn cooldown_at(&self, now: Timestamp) -> Option<Hold> {
        self.shared_cooldown.as_ref().and_then(|shared_cooldown| shared_cooldown.at(now))
    }

    /// The end of the cooldown by this process's wall clock, in milliseconds; `i64::MIN` if none is in force at `now_ms`.
    #[inline]
    pub(crate) fn cooldown_until_ms(&self, now_ms: i64) -> i64 {
        self.shared_cooldown.as_ref().map_or(i64::MIN, |cooldown| cooldown.until_ms(now_ms))
    }
}
