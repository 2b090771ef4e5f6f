//! The accounts that a gateway serves, each with its last written responses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota::manager::KeepFreshGuard;
use quota::model::LoginInfo;
use quota::{Account, AccountId, AccountUsage, Clock, QuotaManager};
use quota_journal::Rules;

use crate::answer::Written;
use crate::store_outages::StoreOutages;

/// The timeout of the first read of all accounts from the store.
const FIRST_READ: Duration = Duration::from_secs(5);

/// An account for a [`Gateway`](crate::Gateway).
#[derive(Debug, Clone)]
pub struct ServedAccount {
    /// The account.
    pub id: AccountId,
    /// Whether it is shown, but never refreshed.
    pub is_disabled: bool,
    /// Whether it is refreshed only when a client requests it.
    pub is_on_demand: bool,
    /// The rules that derive the events of its journal.
    pub rules: Rules,
}

impl ServedAccount {
    /// An account that is kept fresh.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self { id, is_disabled: false, is_on_demand: false, rules: Rules::default() }
    }

    /// Refreshes the account only when a client requests it.
    #[must_use]
    pub fn on_demand(mut self) -> Self {
        self.is_on_demand = true;
        self
    }

    /// Sets whether the account is shown, but never refreshed.
    #[must_use]
    pub fn disabled(mut self, is_disabled: bool) -> Self {
        self.is_disabled = is_disabled;
        self
    }

    /// Sets the rules that derive events (default: [`Rules::default`]). All programs that share a store should use the
    /// same rules.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }
}

/// An account of a manager.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) account: Account,
    pub(crate) is_disabled: bool,
    /// The login of the last credential that was read.
    pub(crate) login: Mutex<LoginInfo>,
    /// The last responses, without and with the fields that identify the user.
    pub(crate) written: [Mutex<Option<Arc<Written>>>; 2],
    /// The number of the last change.
    pub(crate) changed: Mutex<u64>,
    /// The outages of its store.
    pub(crate) outages: StoreOutages,
}

impl Served {
    pub(crate) fn new(account: Account, is_disabled: bool, outages: StoreOutages) -> Self {
        Self {
            account,
            is_disabled,
            login: Mutex::default(),
            written: Default::default(),
            changed: Mutex::new(1),
            outages,
        }
    }

    pub(crate) fn id(&self) -> &AccountId {
        self.account.id()
    }

    /// Since when the gateway has run without the store.
    pub(crate) fn store_unavailable_since(&self, usage: &AccountUsage) -> Option<Timestamp> {
        usage.store_unavailable_since().or_else(|| self.outages.since())
    }
}

/// The accounts of one manager. The enabled ones are kept fresh until this is dropped.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// In the order of the configuration.
    pub(crate) all: Vec<Arc<Served>>,
    by_id: HashMap<AccountId, Arc<Served>>,
    pub(crate) manager: QuotaManager,
    pub(crate) outages: StoreOutages,
    is_read: AtomicBool,
    _keep_fresh: Vec<KeepFreshGuard>,
}

impl Accounts {
    pub(crate) fn new(
        manager: &QuotaManager,
        accounts: impl IntoIterator<Item = ServedAccount>,
        outages: &StoreOutages,
    ) -> Self {
        let (mut all, mut keep_fresh) = (Vec::new(), Vec::new());
        for one in accounts {
            let served = Arc::new(Served::new(manager.account(&one.id), one.is_disabled, outages.clone()));
            if !(one.is_disabled || one.is_on_demand) {
                keep_fresh.push(served.account.keep_fresh());
            }
            all.push(served);
        }
        Self {
            _keep_fresh: keep_fresh,
            by_id: all.iter().map(|served| (served.id().clone(), Arc::clone(served))).collect(),
            is_read: AtomicBool::new(false),
            manager: manager.clone(),
            outages: outages.clone(),
            all,
        }
    }

    pub(crate) fn get(&self, id: &AccountId) -> Option<&Arc<Served>> {
        self.by_id.get(id)
    }

    /// Reads all accounts from the store. It stops waiting for the store after a few seconds.
    pub(crate) async fn read(&self) {
        let reads = self.all.iter().map(|served| async { drop(served.account.sync().await) });
        Clock::system().bounded(FIRST_READ, join_all(reads)).await;
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// Whether the accounts have been read once.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }
}
