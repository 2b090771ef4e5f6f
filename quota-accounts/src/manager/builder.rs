//! The builder of the router, and the quota manager that it creates if the caller supplies none.

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
use super::reservations::{ReservationTable, SharedReservations};
use super::sessions::SessionTable;
use super::slot::AccountSlot;
use super::{FallbackAccountManager, Inner};
use crate::{AccountsConfig, RoutingPolicy};

/// Builds a [`FallbackAccountManager`].
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

    /// Sets the quota manager. The router gets all readings and the time from it. The manager decides which readings
    /// are stale and when to call the provider. Without this setting, the router builds its own manager on a memory
    /// store.
    pub fn quota_manager(mut self, quota: QuotaManager) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Adds a fetcher to the router's own quota manager. Conflicts with [`quota_manager`](Self::quota_manager).
    pub fn fetcher(mut self, fetcher: impl UsageFetcher) -> Self {
        self.fetchers.insert(fetcher.provider(), Arc::new(fetcher));
        self
    }

    /// Sets the policy of the router's own quota manager. Conflicts with [`quota_manager`](Self::quota_manager).
    ///
    /// The limits across accounts of a provider (`min_call_interval`, `max_concurrent_calls`, the scope of `cooldown`) have no
    /// effect: a 429 for one account does not delay the refresh of others. A program with many accounts of one provider should
    /// set a quota manager instead.
    pub fn usage_policy(mut self, policy: Policy) -> Self {
        self.usage_policy = Some(policy);
        self
    }

    /// Sets how accounts are chosen.
    pub fn policy(mut self, policy: RoutingPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the credential source of the accounts in the router's own quota manager. Conflicts with
    /// [`quota_manager`](Self::quota_manager), which has its own sources.
    ///
    /// The router waits for a source at most [`credential_timeout`](RoutingPolicy#structfield.credential_timeout). After a timeout
    /// or a panic it skips the account with [`Reason::CredentialUnavailable`](crate::Reason::CredentialUnavailable). A source that
    /// blocks its thread blocks the other tasks of that thread.
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

    /// Saves readings, holds and blocks to this file, and loads them at the next start. Sessions are stored in a folder
    /// next to it, whose name is the file's name plus `.sessions`. The path may be
    /// [`AccountsFile::state_path`](crate::AccountsFile::state_path). Without a file, the state stays in memory.
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// Shares reservations (see [`Request::with_estimate`](crate::Request::with_estimate)) through this store, so that
    /// several hosts together do not exceed an account's limits. Without a store, only this process's reservations
    /// count.
    pub fn reservations(mut self, store: Arc<dyn QuotaStore>) -> Self {
        self.reservations = Some(store);
        self
    }

    /// Sets the clock. Conflicts with [`quota_manager`](Self::quota_manager), whose clock the router uses.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds the manager. It reads no file and makes no call.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there is no account, an account is listed twice, the usage policy is invalid, or a setting conflicts with
    /// the quota manager.
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
            reserved: ReservationTable::default(),
            blocked: Default::default(),
            stored_logins: Default::default(),
            loaded: OnceCell::new(),
            tasks: Mutex::new(JoinSet::new()),
            flushing: tokio::sync::Mutex::new(JoinSet::new()),
            calls_in_turn,
            out_of_time: AtomicBool::new(false),
        };
        Ok(FallbackAccountManager { inner: Arc::new(inner) })
    }
}

/// Builds the quota manager of a router if the caller supplies none.
///
/// It shares nothing with other processes, so its calls start immediately, without a minimum interval, a limit on
/// concurrent calls, or a cooldown of the whole provider.
fn private_manager(
    fetchers: HashMap<ProviderId, Arc<dyn UsageFetcher>>,
    policy: Policy,
    clock: &Clock,
) -> Result<QuotaManager, PolicyError> {
    policy.validate()?;
    let cooldown = CooldownPolicy::new(policy.cooldown.duration, CooldownScope::Account);
    let policy = policy.min_call_interval(Duration::ZERO).max_concurrent_calls(usize::MAX).cooldown(cooldown);
    let builder = QuotaManager::builder(MemoryStore::with_clock(clock.clone())).clock(clock.clone());
    let builder =
        fetchers.into_values().fold(builder.policy(policy), |builder, fetcher| builder.fetcher(fetcher));
    Ok(builder.build().expect("the policy is valid, and no other setting can fail"))
}

/// Why a [`FallbackAccountManager`] could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no account to route to.
    #[error("no account is configured; add one")]
    NoAccount,
    /// The configuration lists an account twice.
    #[error("{account} is listed twice; remove one of the entries")]
    #[non_exhaustive]
    Duplicate {
        /// The account.
        account: AccountId,
    },
    /// The setting belongs to the router's own quota manager, but the caller supplied a quota manager.
    #[error("`{setting}` conflicts with `quota_manager`; set it on the quota manager")]
    #[non_exhaustive]
    NoEffect {
        /// The builder method.
        setting: &'static str,
    },
    /// The usage policy is invalid.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
