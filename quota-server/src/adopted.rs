//! Accounts for presented credentials that are not configured. They exist in memory while clients use them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota::clock::Instant;
use quota::credentials::StaticCredential;
use quota::{AccountId, Clock, CredentialSource as _, ProviderId, QuotaManager, Secret};

use crate::access::digest;
use crate::last_responses::LastResponses;
use crate::served::Served;
use crate::store_outages::StoreOutages;

/// The maximum number of adopted accounts. Each may cause calls to a provider.
const MAX_ACCOUNTS: usize = 64;
/// An account that no client has used for this long may be replaced.
const IDLE: Duration = Duration::from_secs(600);
/// The length of a plausible credential.
const MAX_LENGTH: usize = 8 * 1024;

/// The adopted accounts, of a manager whose store is this process's memory.
#[derive(Debug)]
pub(crate) struct Adopted {
    manager: QuotaManager,
    accounts: Mutex<HashMap<(ProviderId, [u8; 32]), Adoption>>,
    clock: Clock,
}

#[derive(Debug)]
struct Adoption {
    served: Arc<Served>,
    used_at: Instant,
}

/// Why a credential is not adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdopted {
    /// It cannot be a credential.
    Implausible,
    /// There are too many accounts in use.
    Full,
}

impl Adopted {
    pub(crate) fn new(manager: QuotaManager) -> Self {
        Self { manager, accounts: Mutex::default(), clock: Clock::system() }
    }

    /// Whether the account was adopted.
    pub(crate) fn has(&self, account: &AccountId) -> bool {
        self.accounts.lock().values().any(|adoption| adoption.served.id() == account)
    }

    /// The account of a credential. The first request with a credential creates it.
    pub(crate) async fn adopt(
        &self,
        provider: &ProviderId,
        token: &str,
        responses: &LastResponses,
    ) -> Result<Arc<Served>, NotAdopted> {
        let is_plausible = (16..=MAX_LENGTH).contains(&token.len());
        if !is_plausible || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAdopted::Implausible);
        }
        let digest = digest(token);
        let key = (provider.clone(), digest);
        let now = self.clock.instant();
        let idle = {
            let mut accounts = self.accounts.lock();
            if let Some(adoption) = accounts.get_mut(&key) {
                adoption.used_at = now;
                return Ok(Arc::clone(&adoption.served));
            }
            let oldest = accounts.iter().min_by_key(|(_, adoption)| adoption.used_at);
            let oldest = oldest.map(|(key, adoption)| (key.clone(), adoption.used_at));
            match oldest {
                Some(_) if accounts.len() < MAX_ACCOUNTS => None,
                None => None,
                Some((key, used_at)) if now.saturating_since(used_at) >= IDLE => accounts.remove(&key),
                Some(_) => return Err(NotAdopted::Full),
            }
        };
        if let Some(idle) = idle {
            responses.remove(idle.served.id());
            // If this fails, an unused account stays in memory.
            let _ = self.manager.forget(idle.served.id()).await;
        }
        let source = StaticCredential::new(Secret::new(token));
        let id = name(provider, &digest);
        let login = source.credential(&id).await.map(|credential| credential.login);
        let account = self.manager.account(&id);
        account.set_credentials(source);
        let served = Arc::new(Served::new(account, false, StoreOutages::default()));
        *served.login.lock() = login.unwrap_or_default();
        let adoption = Adoption { served: Arc::clone(&served), used_at: now };
        // If two first requests run at the same time, one may replace the other's entry. Both use the same account of
        // the manager.
        self.accounts.lock().insert(key, adoption);
        Ok(served)
    }
}

fn name(provider: &ProviderId, digest: &[u8; 32]) -> AccountId {
    let hash = digest[..8].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    AccountId::new(provider.clone(), &format!("presented-{hash}")).expect("hexadecimal digits make a name")
}
