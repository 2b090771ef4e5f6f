//! Putting a manager of accounts together.
//! What it does once it stands is in `manager`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use quota_core::policy::{CooldownPolicy, CooldownScope, PolicyError};
use quota_core::provider::ResponseParser;
use quota_core::{
    AccountId, Clock, CredentialSource, MemoryStore, Policy, ProviderId, QuotaManager, QuotaStore,
    UsageFetcher,
};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::persistence::StateFile;
use super::reservations::SharedReservations;
use super::sessions::SessionTable;
use super::slot::AccountSlot;
use super::{FallbackAccountManager, Inner};
use crate::{AccountsConfig, RoutingPolicy};

/// Puts a [`FallbackAccountManager`] together.
#[derive(Debug)]
#[must_use]
pub struct FallbackAccountManagerBuilder {
    config: AccountsConfig,
    quota: Option<QuotaManager>,
    fetchers: HashMap<ProviderId, Arc<dyn UsageFetcher>>,
    usage_policy: Option<Policy>,
    policy: RoutingPolicy,
    credentials: Option<Arc<dyn CredentialSource>>,
    parsers: HashMap<ProviderId, Arc<dyn ResponseParser>>,
    state_file: Option<PathBuf>,
    reservations: Option<Arc<dyn QuotaStore>>,
    clock: Option<Clock>,
}

impl FallbackAccountManagerBuilder {
    pub(super) fn of(config: AccountsConfig) -> Self {
        Self {
            config,
            quota: None,
            fetchers: HashMap::new(),
            usage_policy: None,
            policy: RoutingPolicy::default(),
            credentials: None,
            parsers: HashMap::new(),
            state_file: None,
            reservations: None,
            clock: None,
        }
    }

    /// Takes all numbers and the time from this quota manager, and leaves to it what is stale and when to call the provider. Without
    /// this, the router makes a quota manager of its own, on a store in memory.
    pub fn quota_manager(mut self, quota: QuotaManager) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Fetches a provider's usage for the router's own quota manager. A given one has its own fetchers.
    pub fn fetcher(mut self, fetcher: impl UsageFetcher) -> Self {
        self.fetchers.insert(fetcher.provider(), Arc::new(fetcher));
        self
    }

    /// Sets the policy of the router's own quota manager. A given one has its own policy.
    ///
    /// What is between the accounts of a provider (`gap`, `parallel`, `quiet`) has no effect here: after a 429 about one account, the
    /// others are refreshed all the same. Programs with many accounts of one provider give a quota manager.
    pub fn usage_policy(mut self, policy: Policy) -> Self {
        self.usage_policy = Some(policy);
        self
    }

    /// Sets how accounts are chosen.
    pub fn policy(mut self, policy: RoutingPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the credential source of the accounts in the router's own quota manager. A given one has its own sources, and each route
    /// carries the credential that they return.
    ///
    /// The router waits for a source no longer than [`credential_timeout`](RoutingPolicy#structfield.credential_timeout). After a
    /// timeout or a panic it skips the account by [`Reason::CredentialUnavailable`](crate::Reason::CredentialUnavailable). A source that blocks its thread
    /// blocks the other tasks of that thread.
    pub fn credentials(mut self, source: impl CredentialSource) -> Self {
        self.credentials = Some(Arc::new(source));
        self
    }

    /// Parses a provider's responses to ordinary requests, such as `quota_http::anthropic::AnthropicResponseParser`. Without a
    /// parser, only the status and `Retry-After` count.
    pub fn response_parser(mut self, parser: impl ResponseParser) -> Self {
        self.parsers.insert(parser.provider(), Arc::new(parser));
        self
    }

    /// Keeps what is learned in this file, for the next run; such as
    /// [`AccountsFile::state_path`](crate::AccountsFile::state_path). Without one, it is kept in memory.
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// Shares what requests are expected to use ([`Request::estimate`](crate::Request::estimate)) through this store, so that
    /// hosts together do not overrun an account. Without one, only this process's requests count.
    pub fn reservations(mut self, store: Arc<dyn QuotaStore>) -> Self {
        self.reservations = Some(store);
        self
    }

    /// Sets the clock. A given quota manager has its own, and the router uses that.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds the manager. It reads no file and makes no call.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there is no account, one is named twice, the policy for asking contradicts itself, or a setting beside a
    /// given quota manager would have no effect.
    pub fn build(self) -> Result<FallbackAccountManager, BuildError> {
        if self.config.accounts().is_empty() {
            return Err(BuildError::NoAccount);
        }
        if let Some(account) = self.config.first_duplicate() {
            return Err(BuildError::Duplicate { account: account.clone() });
        }
        let calls_in_turn = self.quota.is_none();
        let quota = match self.quota {
            Some(quota) => {
                let settings = [
                    ("fetcher", !self.fetchers.is_empty()),
                    ("usage_policy", self.usage_policy.is_some()),
                    ("credentials", self.credentials.is_some()),
                    ("clock", self.clock.is_some()),
                ];
                if let Some((setting, _)) = settings.into_iter().find(|(_, is_set)| *is_set) {
                    return Err(BuildError::NoEffect { setting });
                }
                quota
            }
            None => private_manager(
                self.fetchers,
                self.usage_policy.unwrap_or_default(),
                &self.clock.unwrap_or_default(),
            )?,
        };
        if let Some(source) = self.credentials {
            for (_, account) in self.config.with_roles() {
                quota.account(&account.id).set_credentials(Arc::clone(&source));
            }
        }
        let clock = quota.clock().clone();
        let slots: Vec<AccountSlot> = self
            .config
            .with_roles()
            .map(|(role, account)| AccountSlot::new(role, account, quota.account(&account.id)))
            .collect();
        let index_of = slots.iter().enumerate().map(|(at, slot)| (slot.id.clone(), at)).collect();
        let state_file = self.state_file.map(|path| StateFile::at(path, clock.clone()));
        let inner = Inner {
            slots,
            index_of,
            sessions: SessionTable::new(&self.policy),
            policy: self.policy,
            clock,
            parsers: self.parsers,
            panicked: Mutex::default(),
            state_file,
            reservations: self.reservations.map(SharedReservations::on),
            loaded: OnceCell::new(),
            tasks: Mutex::new(JoinSet::new()),
            flushing: tokio::sync::Mutex::new(JoinSet::new()),
            calls_in_turn,
            out_of_time: AtomicBool::new(false),
        };
        Ok(FallbackAccountManager { inner: Arc::new(inner) })
    }
}

/// The quota manager of a router that was given none.
///
/// It shares nothing with other accounts or processes, so each call starts when it is wanted: no gap, no limit of calls at once,
/// and no cooldown of the whole provider.
fn private_manager(
    fetchers: HashMap<ProviderId, Arc<dyn UsageFetcher>>,
    policy: Policy,
    clock: &Clock,
) -> Result<QuotaManager, PolicyError> {
    policy.validate()?;
    let quiet = CooldownPolicy::new(policy.cooldown.duration, CooldownScope::Account);
    let policy = policy.min_call_interval(Duration::ZERO).max_concurrent_calls(usize::MAX).cooldown(quiet);
    let builder = QuotaManager::builder(MemoryStore::with_clock(clock.clone())).clock(clock.clone());
    let builder =
        fetchers.into_values().fold(builder.policy(policy), |builder, fetcher| builder.fetcher(fetcher));
    Ok(builder.build().expect("the policy was validated, and no other setting can be wrong"))
}

/// Why a manager of accounts was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no account to route to.
    #[error("no account is configured; add one")]
    NoAccount,
    /// A hand has written one account twice: what is learned of it would count for one of the two.
    #[error("{account} is named twice; remove one of them")]
    #[non_exhaustive]
    Duplicate {
        /// The account.
        account: AccountId,
    },
    /// The setting belongs to the router's own quota manager, and there is none beside a given one.
    #[error("`{setting}` has no effect beside a quota manager; set it on the quota manager")]
    #[non_exhaustive]
    NoEffect {
        /// The method of the builder.
        setting: &'static str,
    },
    /// The policy for asking contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
