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
use crate::outage::{OutageLevel, OutageStore};
use crate::policy::{Policy, PolicyError, StoreOutagePolicy};
use crate::provider::{CredentialSource, UsageFetcher};
use crate::store::QuotaStore;

type SharedSource = Arc<dyn CredentialSource>;

/// Builds a [`QuotaManager`].
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
    outage_levels: Vec<Arc<dyn OutageLevel>>,
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
            outage_levels: Vec::new(),
        }
    }

    /// Adds a provider: the fetcher that calls it, and the source of its accounts' credentials.
    ///
    /// Replaces an earlier fetcher of the same provider, and its source. Both can be an `Arc` that other code shares.
    pub fn provider(mut self, fetcher: impl UsageFetcher, credentials: impl CredentialSource) -> Self {
        self.providers.push((Arc::new(fetcher), Some(Arc::new(credentials))));
        self
    }

    /// Adds a fetcher without a credential source.
    ///
    /// For providers that need no credential, and for providers whose accounts each have their own source. Replaces an earlier
    /// fetcher of the same provider, and its source.
    pub fn fetcher(mut self, fetcher: impl UsageFetcher) -> Self {
        self.providers.push((Arc::new(fetcher), None));
        self
    }

    /// Sets the credential source of one account, in place of its provider's.
    pub fn credentials_for(mut self, account: AccountId, source: impl CredentialSource) -> Self {
        self.credentials.push((account, Arc::new(source)));
        self
    }

    /// Sets the policy.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the policy of one provider, in place of the general one.
    pub fn policy_for(mut self, provider: ProviderId, policy: Policy) -> Self {
        self.provider_policies.insert(provider, policy);
        self
    }

    /// Sets the clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the name of this process in the list of calls, such as `router@host-a`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how long after [`build`](Self::build) this program ends, for commands and other short-lived programs.
    ///
    /// - A call that the deadline ends fails with [`FetchError::TimedOut`](crate::FetchError::TimedOut), and the error backoff
    ///   applies. Otherwise a program that runs repeatedly would call a hanging provider each time.
    /// - If the deadline ends the read of the credential, the refresh fails with
    ///   [`FetchError::CredentialUnavailable`](crate::FetchError::CredentialUnavailable), and no hold is armed.
    /// - With less than two seconds left, no call starts: the refresh fails with
    ///   [`QuotaError::DeadlineExceeded`](crate::QuotaError::DeadlineExceeded).
    ///
    /// Without a deadline, the default, a refresh outlives its caller.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Sets the levels that hold the documents while the store is unavailable. The first level that works is used.
    ///
    /// This is for commands and other short-lived programs, which have no state of their own. With a level, the
    /// processes of this user on this machine share their state during an outage as they do with the store.
    /// `quota::outage_files` supplies the levels of the program `quota`. [`OutageStore`] explains their use.
    ///
    /// If no level works, only an explicit refresh calls the provider, as with [`StoreOutagePolicy::RefreshOnly`].
    /// Providers with [`StoreOutagePolicy::FailClosed`] use no level.
    pub fn outage_store(mut self, levels: impl IntoIterator<Item = Arc<dyn OutageLevel>>) -> Self {
        self.outage_levels.extend(levels);
        self
    }

    /// Builds the manager.
    ///
    /// The manager's tasks run on the tokio runtime of this call. Without one, or after it has shut down, each task runs on the
    /// runtime of the call that starts it.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if settings of a policy contradict each other.
    pub fn build(mut self) -> Result<QuotaManager, BuildError> {
        self.policy.validate()?;
        for policy in self.provider_policies.values() {
            policy.validate()?;
        }
        let tasks = Tasks::new();
        let events = EventSender::default();
        let outage_store = self.take_outage_store().map(Arc::new);
        let client = |store, timeout| {
            StoreClient::new(store, self.clock.clone(), timeout, Arc::clone(&tasks), events.clone())
        };
        let plain = client(Arc::clone(&self.store), self.policy.store_timeout);
        let shared_client = match &outage_store {
            Some(store) => client(Arc::clone(store) as Arc<dyn QuotaStore>, store.max_duration()),
            None => Arc::clone(&plain),
        };
        let fail_closed_client = outage_store.is_some().then_some(plain);
        let mut registry = Registry::new(
            shared_client,
            fail_closed_client,
            self.clock.clone(),
            self.policy,
            self.provider_policies,
        );
        for (fetcher, source) in self.providers {
            registry.add(fetcher, source);
        }
        for (account, source) in self.credentials {
            registry.set_credentials(account, source);
        }
        let deadline = self.deadline.and_then(|after| self.clock.instant().after(after));
        let records = Arc::default();
        let context = TaskContext { tasks, events, records, process_name: self.name, deadline };
        let shared = Shared { context, clock: self.clock, registry, outage_store };
        Ok(QuotaManager { shared: Arc::new(shared) })
    }

    /// The store with its levels; `None` if there are none, or if no policy uses them. With levels, policies that
    /// continue without the store do so only for an explicit refresh.
    fn take_outage_store(&mut self) -> Option<OutageStore> {
        let levels = std::mem::take(&mut self.outage_levels);
        let mut policies: Vec<_> =
            std::iter::once(&mut self.policy).chain(self.provider_policies.values_mut()).collect();
        let fails_closed =
            |policy: &&mut Policy| policy.on_store_unavailable == StoreOutagePolicy::FailClosed;
        if levels.is_empty() || policies.iter().all(fails_closed) {
            return None;
        }
        for policy in &mut policies {
            if policy.on_store_unavailable == StoreOutagePolicy::Standalone {
                policy.on_store_unavailable = StoreOutagePolicy::RefreshOnly;
            }
        }
        let timeout = self.policy.store_timeout;
        Some(OutageStore::new(Arc::clone(&self.store), levels, timeout).with_clock(self.clock.clone()))
    }
}

/// Why [`QuotaManagerBuilder::build`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Settings of a policy contradict each other.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
