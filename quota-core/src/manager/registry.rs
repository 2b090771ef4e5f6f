//! The accounts and providers of a manager.
//! `entry` has the state of an account, `provider` that of a provider.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{RwLock, RwLockReadGuard};

use super::account_state::Selection;
use super::cooldown::SharedCooldown;
use super::credential_sources::CredentialSources;
use super::entry::{AccountEntry, RecordEntry};
use super::provider::Provider;
use super::store_client::StoreClient;
use super::store_metrics::StoreStats;
use super::view::{View, ViewFlags};
use super::view_table::ViewTable;
use crate::clock::Clock;
use crate::model::{AccountId, ProviderId};
use crate::policy::{CooldownScope, Policy, StoreOutagePolicy};
use crate::provider::{CredentialSource, UsageFetcher};
use crate::record::Record;
use crate::store::StoreKey;

/// The accounts and providers of a manager, and the settings for new ones.
pub(crate) struct Registry {
    store_client: Arc<StoreClient>,
    /// The client for providers that fail closed, if the other client uses outage files. With a single client, a
    /// failure of the store would prevent the other providers from using the file.
    fail_closed_client: Option<Arc<StoreClient>>,
    clock: Clock,
    policy: Policy,
    policies: HashMap<ProviderId, Policy>,
    providers: RwLock<HashMap<ProviderId, Arc<Provider>>>,
    accounts: RwLock<Accounts>,
}

/// The accounts that have had a handle, and the tables of their views.
#[derive(Default)]
struct Accounts {
    entries: HashSet<ByName>,
    view_tables: HashMap<ProviderId, ViewTable>,
    /// The initial views, which all unread accounts of a provider share.
    empty_views: HashMap<(ProviderId, Selection), Weak<View>>,
}

impl Accounts {
    /// The initial view of a new account.
    fn empty_view(&mut self, provider: &Arc<Provider>, selection: Selection) -> Arc<View> {
        static EMPTY: LazyLock<Arc<Record>> = LazyLock::new(Arc::default);
        let cached = self.empty_views.entry((provider.id.clone(), selection)).or_default();
        cached.upgrade().unwrap_or_else(|| {
            let flags = ViewFlags { is_unchecked: selection == Selection::Unchecked, ..ViewFlags::default() };
            let view = Arc::new(View::new(0, Arc::clone(&EMPTY), Arc::clone(provider), flags, None));
            *cached = Arc::downgrade(&view);
            view
        })
    }
}

/// An entry, hashed by its account's name. A map would store each name twice.
struct ByName(Arc<AccountEntry>);

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

impl Registry {
    /// Creates an empty registry. A provider gets its policy from `policies`, otherwise `policy`. One that fails closed uses
    /// `fail_closed_client`, if there is one.
    pub(crate) fn new(
        store_client: Arc<StoreClient>,
        fail_closed_client: Option<Arc<StoreClient>>,
        clock: Clock,
        policy: Policy,
        policies: HashMap<ProviderId, Policy>,
    ) -> Self {
        let (providers, accounts) = (RwLock::default(), RwLock::default());
        Self { store_client, fail_closed_client, clock, policy, policies, providers, accounts }
    }

    fn client(&self, policy: &Policy) -> &Arc<StoreClient> {
        let fails_closed = policy.on_store_unavailable == StoreOutagePolicy::FailClosed;
        self.fail_closed_client.as_ref().filter(|_| fails_closed).unwrap_or(&self.store_client)
    }

    fn clients(&self) -> impl Iterator<Item = &Arc<StoreClient>> {
        [&self.store_client].into_iter().chain(&self.fail_closed_client)
    }

    /// Adds a provider, replacing the previous one of the same name. `fetcher` calls it with credentials of `source`.
    pub(crate) fn add(&mut self, fetcher: Arc<dyn UsageFetcher>, source: Option<Arc<dyn CredentialSource>>) {
        let provider = self.new_provider(fetcher.provider(), Some(fetcher), source);
        let providers = self.providers.get_mut();
        providers.insert(provider.id.clone(), provider);
    }

    /// Sets the credential source of one account.
    pub(crate) fn set_credentials(&self, account: AccountId, source: Arc<dyn CredentialSource>) {
        self.provider(account.provider()).credentials.set(account, source);
    }

    /// The account's entry, created on the first call.
    pub(crate) fn entry(&self, id: &AccountId) -> Arc<AccountEntry> {
        if let Some(entry) = self.find(id) {
            return entry;
        }
        let provider = self.provider(id.provider());
        let mut accounts = self.accounts.write();
        // Another thread may have added it between the two locks.
        if let Some(ByName(entry)) = accounts.entries.get(id.as_str()) {
            return Arc::clone(entry);
        }
        // Without a fetcher, the alias states the login.
        let states_login = provider.credentials.has(id) || provider.fetcher.is_none();
        let selection = if states_login { Selection::Unchecked } else { Selection::Source };
        let view = accounts.empty_view(&provider, selection);
        let view_handle = accounts.view_tables.entry(provider.id.clone()).or_default().add(&view);
        let record = RecordEntry::new(StoreKey::account(id), provider, None);
        let entry = AccountEntry::new(id.clone(), record, view_handle, selection);
        accounts.entries.insert(ByName(Arc::clone(&entry)));
        entry
    }

    /// Removes the account. Existing handles keep their entry; the next handle gets a new one.
    pub(crate) fn forget(&self, entry: Arc<AccountEntry>) {
        let mut accounts = self.accounts.write();
        let is_same = |ByName(current): &ByName| Arc::ptr_eq(current, &entry);
        if !accounts.entries.get(entry.id.as_str()).is_some_and(is_same) {
            return;
        }
        accounts.entries.remove(entry.id.as_str());
        if Arc::strong_count(&entry) > 1 {
            drop(accounts);
            // The source is kept for remaining handles, but no secret of a removed account is.
            entry.provider.credentials.clear(&entry.id);
            return;
        }
        // Remove the source before the lock is released, because another thread may then register the account again, with a new
        // source under the same name.
        let source = entry.provider.credentials.remove(&entry.id);
        let empty = accounts.empty_view(&entry.provider, Selection::Source);
        drop(accounts);
        drop(source);
        // The table's chunk lives as long as any of its accounts, so drop this account's readings now.
        entry.view_handle.store(empty);
    }

    pub(crate) fn store_stats(&self) -> StoreStats {
        self.clients().map(|client| client.metrics()).fold(StoreStats::default(), StoreStats::plus)
    }

    /// The entry of an account that has had a handle.
    pub(crate) fn find(&self, id: &AccountId) -> Option<Arc<AccountEntry>> {
        self.accounts().entries.get(id.as_str()).map(|ByName(entry)| Arc::clone(entry))
    }

    /// The accounts that show a record with changes that are not in the store.
    pub(crate) fn unsaved(&self) -> Vec<Arc<AccountEntry>> {
        let accounts = self.accounts();
        let unsaved = accounts.entries.iter().filter(|ByName(entry)| !entry.record().local().is_saved());
        unsaved.map(|ByName(entry)| Arc::clone(entry)).collect()
    }

    /// Lets the next call try the store although it is unavailable.
    pub(crate) fn try_store_again(&self) {
        self.clients().for_each(|client| client.try_again());
    }

    /// The general policy, for providers without their own.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The general policy and those of single providers.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.policy).chain(self.policies.values())
    }

    fn accounts(&self) -> RwLockReadGuard<'_, Accounts> {
        self.accounts.read()
    }

    /// The provider of an account. Without a fetcher its accounts can still be read from the store.
    fn provider(&self, id: &ProviderId) -> Arc<Provider> {
        if let Some(provider) = self.providers.read().get(id) {
            return Arc::clone(provider);
        }
        let mut providers = self.providers.write();
        Arc::clone(providers.entry(id.clone()).or_insert_with(|| self.new_provider(id.clone(), None, None)))
    }

    fn new_provider(
        &self,
        id: ProviderId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Arc<Provider> {
        let policy = self.policies.get(&id).unwrap_or(&self.policy).clone();
        let store_client = Arc::clone(self.client(&policy));
        let shared_cooldown = match policy.cooldown.scope {
            CooldownScope::Account => None,
            CooldownScope::Provider => {
                Some(SharedCooldown::new(StoreKey::provider(&id), Arc::clone(&store_client)))
            }
        };
        Provider::new(
            id,
            fetcher,
            CredentialSources::new(source),
            policy,
            store_client,
            self.clock.clone(),
            shared_cooldown,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::store::MemoryStore;
    use crate::testing::FakeProvider;

    #[test]
    fn forgetting_keeps_the_source_of_an_account_registered_again() {
        let fetcher = FakeProvider::answering("example", 40.0);
        let quota =
            crate::QuotaManager::builder(MemoryStore::new()).fetcher(fetcher.clone()).build().unwrap();
        let registry = &quota.shared.registry;
        let id: AccountId = "example/main".parse().unwrap();
        let source = || Arc::new(fetcher.clone()) as Arc<dyn CredentialSource>;
        for round in 0..2_000 {
            let old = registry.entry(&id);
            old.provider.credentials.set(id.clone(), source());
            thread::scope(|scope| {
                scope.spawn(|| {
                    while registry.accounts().entries.contains(id.as_str()) {
                        std::hint::spin_loop();
                    }
                    registry.entry(&id).provider.credentials.set(id.clone(), source());
                });
                registry.forget(old);
            });
            assert!(registry.entry(&id).provider.credentials.has(&id), "round {round}");
        }
    }
}
