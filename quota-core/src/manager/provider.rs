//! What all accounts of one provider share in this process: who asks, how fast, by which policy, and the quiet time.
//! How the quiet time is shared with other processes is in `quieted`.

use std::sync::Arc;

use jiff::Timestamp;

use super::credential_sources::CredentialSources;
use super::gate::Gate;
use super::link::Link;
use super::quieted::SharedCooldown;
use crate::{Clock, Hold, Policy, ProviderId, UsageFetcher};

/// One provider, as this process sees it.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) fetcher: Option<Arc<dyn UsageFetcher>>,
    pub(crate) credentials: CredentialSources,
    pub(crate) policy: Policy,
    pub(crate) gate: Arc<Gate>,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Clock,
    /// `None` if a 429 concerns its own account only.
    pub(crate) quieted: Option<Arc<SharedCooldown>>,
}

impl Provider {
    pub(crate) fn new(
        id: ProviderId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        credentials: CredentialSources,
        policy: Policy,
        link: Arc<Link>,
        clock: Clock,
        quieted: Option<Arc<SharedCooldown>>,
    ) -> Arc<Self> {
        let gate = Gate::new(clock.clone(), policy.min_call_interval, policy.max_concurrent_calls);
        Arc::new(Self { id, fetcher, credentials, policy, gate, link, clock, quieted })
    }

    /// The quiet time in force, as far as this process has heard.
    pub(crate) fn quiet_at(&self, now: Timestamp) -> Option<Hold> {
        self.quieted.as_ref().and_then(|quieted| quieted.at(now))
    }
}
