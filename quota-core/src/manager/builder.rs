//! The builder of a manager: its store, providers, credential sources and settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::events::EventSender;
use super::registry::Registry;
use super::store_client::StoreClient;
use super::tasks::Tasks;
use super::{QuotaManager, Shared};
use crate::clock::Clock;
use crate::model::{AccountId, ProviderId};
use crate::policy::{Policy, PolicyError};
use crate::provider::{CredentialSource, UsageFetcher};
use crate::store::QuotaStore;

type SharedSource = Arc<dyn CredentialSource>;

/// Puts a manager together.
#[derive(Debug)]
#[must_use]
pub struct QuotaManagerBuilder {
    store: Arc<dyn QuotaStore>,
    providers: Vec<(Arc<dyn UsageFetcher>, Option<SharedSource>)>,
    credentials: Vec<(AccountId, SharedSource)>,
    policy: Policy,
    provider_policies: HashMap<ProviderId, Policy>,
    clock: Clock,
    name: Arc<str>,
    deadline: Option<Duration>,
}

impl QuotaManagerBuilder {
    pub(crate) fn new(store: Arc<dyn QuotaStore>) -> Self {
        Self {
            store,
            providers: Vec::new(),
            credentials: Vec::new(),
            policy: Policy::default(),
            provider_policies: HashMap::new(),
            clock: Clock::system(),
            name: Arc::from(""),
            deadline: None,
        }
    }

    /// Adds a provider: the fetcher that calls it, and the source of its accounts' credentials. Replaces an earlier fetcher of the
    /// same provider, and its source. Both can be an `Arc` that other code shares.
    pub fn provider(mut self, fetcher: impl UsageFetcher, credentials: impl CredentialSource) -> Self {
        self.providers.push((Arc::new(fetcher), Some(Arc::new(credentials))));
        self
    }

    /// Adds a fetcher without a credential source: for providers that need no credential, and where each account has a source of
    /// its own. Replaces an earlier fetcher of the same provider, and its source.
    pub fn fetcher(mut self, fetcher: impl UsageFetcher) -> Self {
        self.providers.push((Arc::new(fetcher), None));
        self
    }

    /// Gives an account a credential source of its own, instead of its provider's.
    pub fn credentials_for(mut self, account: AccountId, source: impl CredentialSource) -> Self {
        self.credentials.push((account, Arc::new(source)));
        self
    }

    /// Sets the policy.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets a policy for one provider, in place of the general one.
    pub fn policy_for(mut self, provider: ProviderId, policy: Policy) -> Self {
        self.provider_policies.insert(provider, policy);
        self
    }

    /// Sets the clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Names this process in the list of calls that were made, such as `router@host-a`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Says that this program ends so long after [`build`](Self::build), for commands and other short-lived programs.
    ///
    /// A call is given no more than the time that is left, and none is started with less than two seconds left. A call that the
    /// deadline cuts off fails with [`FetchError::TimedOut`](crate::FetchError::TimedOut): the transient backoff follows, as
    /// after any timeout. Otherwise a program that is run again and again would call a hanging provider each time. If the credential was
    /// not read yet, it fails with [`FetchError::CredentialUnavailable`](crate::FetchError::CredentialUnavailable) and arms no hold. Refreshes
    /// that find no time for a call are [`QuotaError::DeadlineExceeded`](crate::QuotaError::DeadlineExceeded). Without a
    /// deadline, the default, a refresh outlives its caller.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Builds the manager. Its tasks run on the tokio runtime this is called in. Without one, or after that one has shut down, they
    /// run on the runtime of the call that starts them.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a policy contradicts itself.
    pub fn build(self) -> Result<QuotaManager, BuildError> {
        self.policy.validate()?;
        for policy in self.provider_policies.values() {
            policy.validate()?;
        }
        let tasks = Tasks::new();
        let events = EventSender::default();
        let patience = self.policy.store_timeout;
        let store_client =
            StoreClient::new(self.store, self.clock.clone(), patience, Arc::clone(&tasks), events.clone());
        let mut registry =
            Registry::new(store_client, self.clock.clone(), self.policy, self.provider_policies);
        for (fetcher, source) in self.providers {
            registry.add(fetcher, source);
        }
        for (account, source) in self.credentials {
            registry.set_credentials(account, source);
        }
        let deadline = self.deadline.and_then(|after| self.clock.instant().after(after));
        let context = TaskContext { tasks, events, by: self.name, deadline };
        let shared = Shared { context, clock: self.clock, registry };
        Ok(QuotaManager { shared: Arc::new(shared) })
    }
}

/// Why a manager was not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The policy contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
