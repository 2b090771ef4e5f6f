//! The state that all requests share: the tokens, and the accounts, which a reload replaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use quota::accounts::FallbackAccountManager;
use quota::outage::OutageStore;
use quota::{AccountId, QuotaManager};
use quota_journal::Rules;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::AccessTokens;
use crate::adopted::Adopted;
use crate::changes::Changes;
use crate::credential_index::CredentialIndex;
use crate::events::Events;
use crate::journals::Journals;
use crate::last_responses::LastResponses;
use crate::limits::Limits;
use crate::listed::Listed;
use crate::metrics::Metrics;
use crate::open_routes::OpenRoutes;
use crate::served::{Accounts, ServedAccount};
use crate::store_outages::StoreOutages;
use crate::work::Work;

/// Answers requests from the readings of a manager. Cheap to clone.
///
/// The gateway keeps the enabled accounts fresh, so that its responses need not wait for the provider.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Current>,
    tokens: ArcSwap<AccessTokens>,
    responses: LastResponses,
    adopted: Option<Adopted>,
    max_age: Duration,
    changes: Changes,
    events: Events,
    journals: Option<Journals>,
    max_event_streams: AtomicUsize,
    router: ArcSwapOption<FallbackAccountManager>,
    open_routes: OpenRoutes,
    hands_out_credentials: bool,
    metrics: Metrics,
    work: Work,
    stopping: watch::Sender<bool>,
}

/// The accounts of one configuration.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) accounts: Accounts,
    pub(crate) credentials: Arc<CredentialIndex>,
    pub(crate) listed: Listed,
    rules: Vec<(AccountId, Rules)>,
    /// The tasks that number the changes and count the manager's calls.
    _tasks: [JoinSet<()>; 2],
    /// The task that updates the journals.
    journal_tasks: JoinSet<()>,
}

impl Current {
    fn new(
        manager: &QuotaManager,
        accounts: impl IntoIterator<Item = ServedAccount>,
        (changes, events, metrics): (&Changes, &Events, &Metrics),
        outages: &StoreOutages,
    ) -> Self {
        let accounts: Vec<_> = accounts.into_iter().collect();
        let rules = accounts.iter().map(|account| (account.id.clone(), account.rules.clone())).collect();
        let accounts = Accounts::new(manager, accounts, outages);
        let credentials = Arc::new(CredentialIndex::new(accounts.all.clone()));
        events.serve(accounts.all.iter().map(|served| served.id()));
        let tasks = [changes.follow(&accounts.all, events), metrics.follow(manager)];
        let listed = Listed::default();
        Self { accounts, credentials, listed, rules, _tasks: tasks, journal_tasks: JoinSet::new() }
    }

    /// Keeps the journals of the accounts current as long as this lives.
    fn follow_journals(mut self, journals: Option<&Journals>, events: &Events) -> Self {
        if let Some(journals) = journals {
            self.journal_tasks = journals.follow(std::mem::take(&mut self.rules), events);
        }
        self
    }

    async fn prepare(&self) {
        tokio::join!(self.accounts.read(), self.credentials.check());
    }
}

impl Gateway {
    /// The default of [`GatewayBuilder::max_age`]: the gateway does not send readings of this age or older.
    pub const MAX_AGE: Duration = Duration::from_secs(15 * 60);

    /// Starts building the gateway of a manager's accounts. Call this inside a tokio runtime.
    pub fn builder(
        manager: &QuotaManager,
        accounts: impl IntoIterator<Item = ServedAccount>,
    ) -> GatewayBuilder {
        let (changes, events, metrics) = (Changes::new(), Events::new(), Metrics::default());
        let outages = StoreOutages::default();
        GatewayBuilder {
            current: Current::new(manager, accounts, (&changes, &events, &metrics), &outages),
            changes,
            events,
            journals: None,
            router: None,
            hands_out_credentials: false,
            metrics,
            tokens: AccessTokens::default(),
            responses: LastResponses::default(),
            adopted: None,
            max_age: Self::MAX_AGE,
        }
    }

    /// Reads all accounts from the store, and their credentials. Before that, the gateway answers requests but is not
    /// ready.
    pub async fn prepare(&self) {
        self.0.current.load_full().prepare().await;
    }

    /// Replaces the accounts after a change of the configuration. The gateway no longer keeps the accounts of the
    /// previous manager fresh.
    pub async fn replace_accounts(
        &self,
        manager: &QuotaManager,
        accounts: impl IntoIterator<Item = ServedAccount>,
    ) {
        let Inner { changes, events, metrics, journals, .. } = &*self.0;
        let outages = self.current().accounts.outages.clone();
        let next = Current::new(manager, accounts, (changes, events, metrics), &outages);
        let next = Arc::new(next.follow_journals(journals.as_ref(), events));
        // Serve the new accounts only once they have been read.
        next.prepare().await;
        self.0.current.store(next);
    }

    /// Replaces the router that chooses accounts. The new one takes over the state that the previous one has gained
    /// since the new one was loaded.
    pub fn replace_router(&self, router: Option<FallbackAccountManager>) {
        let previous = self.0.router.swap(router.map(Arc::new));
        if let Some(previous) = previous {
            self.take_over(&previous);
        }
    }

    /// Passes on a router's state, if a reload has replaced the router in the meantime.
    pub(crate) fn take_over(&self, router: &Arc<FallbackAccountManager>) {
        if let Some(current) = self.router()
            && !Arc::ptr_eq(&current, router)
        {
            current.take_over(router);
        }
    }

    /// Replaces the tokens.
    pub fn replace_tokens(&self, tokens: AccessTokens) {
        self.0.tokens.store(Arc::new(tokens));
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }

    pub(crate) fn tokens(&self) -> Arc<AccessTokens> {
        self.0.tokens.load_full()
    }

    pub(crate) fn responses(&self) -> &LastResponses {
        &self.0.responses
    }

    pub(crate) fn adopted(&self) -> Option<&Adopted> {
        self.0.adopted.as_ref()
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.0.max_age
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn work(&self) -> &Work {
        &self.0.work
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.0.changes
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    pub(crate) fn journals(&self) -> Option<&Journals> {
        self.0.journals.as_ref()
    }

    pub(crate) fn max_event_streams(&self) -> usize {
        self.0.max_event_streams.load(Ordering::Relaxed)
    }

    pub(crate) fn limit_event_streams(&self, max: usize) {
        self.0.max_event_streams.store(max, Ordering::Relaxed);
    }

    pub(crate) fn router(&self) -> Option<Arc<FallbackAccountManager>> {
        self.0.router.load_full()
    }

    pub(crate) fn open_routes(&self) -> &OpenRoutes {
        &self.0.open_routes
    }

    pub(crate) fn hands_out_credentials(&self) -> bool {
        self.0.hands_out_credentials
    }

    /// Ends the waits of all clients, because the server is stopping.
    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Completes when the server stops.
    pub(crate) async fn stopping(&self) {
        // The sender lives as long as this value.
        let _ = self.0.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// Builds a [`Gateway`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct GatewayBuilder {
    current: Current,
    changes: Changes,
    events: Events,
    journals: Option<Journals>,
    router: Option<FallbackAccountManager>,
    hands_out_credentials: bool,
    metrics: Metrics,
    tokens: AccessTokens,
    responses: LastResponses,
    adopted: Option<Adopted>,
    max_age: Duration,
}

impl GatewayBuilder {
    /// Reports the outages of this store, which continues in a local file: in the accounts, and in the metrics. The manager must use it.
    pub fn outages(self, store: Arc<OutageStore>) -> Self {
        self.current.accounts.outages.read(store);
        self
    }

    /// Accepts only clients with one of these tokens, or with the credential of an account. Without tokens, each client that can
    /// connect has all roles.
    pub fn tokens(mut self, tokens: AccessTokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Passes on the unknown fields of these responses, which the fetchers of the manager record.
    pub fn last_responses(mut self, responses: LastResponses) -> Self {
        self.responses = responses;
        self
    }

    /// Creates an account in this manager for each unknown credential, while clients use it. The manager must use a
    /// memory store. This setting has no effect with [`tokens`](Self::tokens), because a client without a token must
    /// not cause calls.
    pub fn adopt_presented(mut self, manager: QuotaManager) -> Self {
        self.adopted = Some(Adopted::new(manager));
        self
    }

    /// Updates the journals of the accounts, and sends their events to clients. Without this setting, clients only
    /// learn which accounts have changed.
    pub fn journals(mut self, journals: Journals) -> Self {
        self.journals = Some(journals);
        self
    }

    /// Chooses accounts for clients with this router, which must use the same manager.
    pub fn router(mut self, router: Option<FallbackAccountManager>) -> Self {
        self.router = router;
        self
    }

    /// Hands out the credential of the chosen account, but only over a Unix socket and to the user of this process.
    pub fn hand_out_credentials(mut self, hand_out: bool) -> Self {
        self.hands_out_credentials = hand_out;
        self
    }

    /// Sets the age from which readings are not sent (default: [`Gateway::MAX_AGE`]).
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Builds the gateway.
    #[must_use]
    pub fn build(self) -> Gateway {
        let current = self.current.follow_journals(self.journals.as_ref(), &self.events);
        Gateway(Arc::new(Inner {
            current: ArcSwap::from_pointee(current),
            tokens: ArcSwap::from_pointee(self.tokens),
            responses: self.responses,
            adopted: self.adopted,
            max_age: self.max_age,
            changes: self.changes,
            events: self.events,
            journals: self.journals,
            router: ArcSwapOption::from_pointee(self.router),
            open_routes: OpenRoutes::new(),
            hands_out_credentials: self.hands_out_credentials,
            max_event_streams: AtomicUsize::new(Limits::default().max_event_streams),
            metrics: self.metrics,
            work: Work::default(),
            stopping: watch::Sender::new(false),
        }))
    }
}
