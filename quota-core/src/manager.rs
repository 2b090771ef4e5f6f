//! The one place that asks: shared refreshes, lock-free reads, and going on when the store is away.
//! The rules it obeys are in `record`; what it asks with is a [`UsageFetcher`].

pub(crate) mod account;
pub(crate) mod answer;
mod changes;
pub(crate) mod error;
pub(crate) mod events;
mod exchange;
mod flight;
mod gate;
pub(crate) mod get;
mod link;
mod provider;
mod refresh;
mod shelf;
mod slot;
mod tasks;
mod view;

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::broadcast;

use self::account::Account;
use self::error::ObserveError;
use self::events::Events;
use self::flight::Crew;
use self::link::Link;
use self::provider::Provider;
use self::shelf::Shelf;
use self::slot::Slot;
use self::tasks::Tasks;
use crate::{AccountId, Clock, Policy, PolicyError, ProviderId, QuotaStore, Usage, UsageFetcher};

/// The single gateway to the usage endpoints of LLM providers, and the cache in front of it.
///
/// Concurrent refreshes become one call, across tasks, and across processes and hosts that share the store. Cheap to
/// clone; when the last clone and the last [`Account`] are gone, its tasks end.
///
/// ```
/// use quota_core::{AccountId, MemoryStore, QuotaManager};
/// # use quota_core::testing::FakeProvider;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let fetcher = FakeProvider::answering("example", 42.0);
/// let quota = QuotaManager::builder(MemoryStore::new()).fetcher(fetcher).build()?;
/// let main = quota.account(&"example/main".parse::<AccountId>()?);
///
/// let answer = main.get().await?;
/// for window in answer.snapshot().windows() {
///     println!("{}: {:?}", window.id(), answer.used(window.id()));
/// }
/// quota.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct QuotaManager {
    shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    crew: Crew,
    clock: Clock,
    link: Arc<Link>,
    policy: Policy,
    providers: RwLock<HashMap<ProviderId, Arc<Provider>>>,
    register: RwLock<Register>,
}

/// A slot that is found by its account's name. A map would keep each name twice.
struct ByName(Arc<Slot>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.id.as_str()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.as_str().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ByName {}

/// The accounts that were asked for, and where their views stand.
#[derive(Default)]
struct Register {
    slots: HashSet<ByName>,
    shelves: HashMap<ProviderId, Shelf>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.crew.tasks.close();
    }
}

impl QuotaManager {
    /// Builds a manager on `store`.
    pub fn builder(store: impl QuotaStore) -> QuotaManagerBuilder {
        Self::builder_on(Arc::new(store))
    }

    /// Builds a manager on a store that others use as well.
    pub fn builder_on(store: Arc<dyn QuotaStore>) -> QuotaManagerBuilder {
        QuotaManagerBuilder {
            store,
            fetchers: Vec::new(),
            policy: Policy::default(),
            provider_policies: HashMap::new(),
            clock: Clock::system(),
            name: Arc::from(""),
        }
    }

    /// A handle to an account. No I/O; the account need not exist yet.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Account {
        Account::new(self.shared.slot(id), Arc::clone(&self.shared))
    }

    /// Joins readings to an account that this manager has a handle to, or had one.
    ///
    /// For code that sees traffic of many accounts; see [`Account::observe`].
    ///
    /// # Errors
    ///
    /// [`ObserveError::UnknownAccount`] if there never was a handle to it: readings are not filed under a name nobody
    /// uses, and never under another account's.
    pub fn observe(&self, id: &AccountId, usage: &Usage) -> Result<(), ObserveError> {
        let slot =
            self.shared.known(id).ok_or_else(|| ObserveError::UnknownAccount { account: id.clone() })?;
        Account::new(slot, Arc::clone(&self.shared)).observe(usage)
    }

    /// What happens from now on, as this process sees it.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(&self.shared.crew.events)
    }

    /// Ends all that this manager has begun: waits for calls that are under way and writes what is pending, but no
    /// longer than a call and a write may take. From now on only [`Account::peek`] is of use.
    ///
    /// Returns whether all of it ended in that time.
    pub async fn close(&self) -> bool {
        let policy = &self.shared.policy;
        let bound = policy.fetch_timeout + policy.store_patience * 4;
        changes::wind_up(&self.shared.crew.tasks, &self.shared.clock, bound).await
    }
}

impl fmt::Debug for QuotaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaManager").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}

impl Shared {
    fn slot(&self, id: &AccountId) -> Arc<Slot> {
        if let Some(slot) = self.known(id) {
            return slot;
        }
        let provider = self.provider(id.provider());
        let mut register = self.register.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been here between the two locks.
        if let Some(ByName(slot)) = register.slots.get(id.as_str()) {
            return Arc::clone(slot);
        }
        let sight = register.shelves.entry(provider.id.clone()).or_default().place(&provider.nothing_known());
        let slot = Slot::new(id.clone(), provider, sight);
        register.slots.insert(ByName(Arc::clone(&slot)));
        slot
    }

    /// The slot of an account that was asked for before.
    fn known(&self, id: &AccountId) -> Option<Arc<Slot>> {
        let register = self.register.read().unwrap_or_else(PoisonError::into_inner);
        register.slots.get(id.as_str()).map(|ByName(slot)| Arc::clone(slot))
    }

    /// The provider of an account; one that nobody fetches from can still be read about.
    fn provider(&self, id: &ProviderId) -> Arc<Provider> {
        if let Some(provider) = self.providers.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Arc::clone(provider);
        }
        let mut providers = self.providers.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Provider::new(id.clone(), None, self.policy.clone(), Arc::clone(&self.link), self.clock.clone())
        };
        Arc::clone(providers.entry(id.clone()).or_insert_with(new))
    }
}

/// Puts a manager together.
#[derive(Debug)]
#[must_use]
pub struct QuotaManagerBuilder {
    store: Arc<dyn QuotaStore>,
    fetchers: Vec<Arc<dyn UsageFetcher>>,
    policy: Policy,
    provider_policies: HashMap<ProviderId, Policy>,
    clock: Clock,
    name: Arc<str>,
}

impl QuotaManagerBuilder {
    /// Adds who asks a provider. A second one for the same provider takes the place of the first.
    pub fn fetcher(self, fetcher: impl UsageFetcher) -> Self {
        self.shared_fetcher(Arc::new(fetcher))
    }

    /// Adds a fetcher that others use as well.
    pub fn shared_fetcher(mut self, fetcher: Arc<dyn UsageFetcher>) -> Self {
        self.fetchers.push(fetcher);
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

    /// Builds the manager. It lives on the runtime this is called in.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a policy contradicts itself, or this is not called within a tokio runtime.
    pub fn build(self) -> Result<QuotaManager, BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        self.policy.validate()?;
        for policy in self.provider_policies.values() {
            policy.validate()?;
        }
        let tasks = Tasks::on(runtime);
        let (events, _) = broadcast::channel(Events::KEPT);
        let patience = self.policy.store_patience;
        let link = Link::new(self.store, self.clock.clone(), patience, Arc::clone(&tasks), events.clone());
        let mut providers = HashMap::new();
        for fetcher in self.fetchers {
            let id = fetcher.provider();
            let policy = self.provider_policies.get(&id).unwrap_or(&self.policy).clone();
            let (link, clock) = (Arc::clone(&link), self.clock.clone());
            providers.insert(id.clone(), Provider::new(id, Some(fetcher), policy, link, clock));
        }
        let shared = Shared {
            crew: Crew { tasks, events, by: self.name },
            clock: self.clock,
            link,
            policy: self.policy,
            providers: RwLock::new(providers),
            register: RwLock::default(),
        };
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
    /// A manager spawns tasks, and there is no runtime to spawn them on.
    #[error("a quota manager must be built within a tokio runtime")]
    NoRuntime,
}
