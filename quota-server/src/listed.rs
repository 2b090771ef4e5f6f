//! The list of all accounts that was written last. Many clients poll it, and writing it costs several times the rest of a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota::AccountUsage;
use quota::manager::UsageVersion;

use crate::served::Served;

/// How long a list is sent again if nothing has changed. The list states the time of its values.
const REUSE: Duration = Duration::from_millis(100);

/// The last list.
#[derive(Debug, Default)]
pub(crate) struct Listed(Mutex<Option<Arc<Written>>>);

#[derive(Debug)]
struct Written {
    body: Bytes,
    at: Timestamp,
    versions: Vec<UsageVersion>,
}

impl Listed {
    /// The last list, or a new one if an account has changed since.
    pub(crate) fn get_or_write(
        &self,
        accounts: &[Arc<Served>],
        now: Timestamp,
        write: impl FnOnce(&[AccountUsage]) -> Bytes,
    ) -> Bytes {
        let last = self.0.lock().clone();
        if let Some(last) = last.filter(|last| last.holds(accounts, now)) {
            return last.body.clone();
        }
        let usages: Vec<_> = accounts.iter().map(|served| served.account.peek()).collect();
        let body = write(&usages);
        let versions = usages.iter().map(AccountUsage::version).collect();
        *self.0.lock() = Some(Arc::new(Written { body: body.clone(), at: now, versions }));
        body
    }
}

impl Written {
    fn holds(&self, accounts: &[Arc<Served>], now: Timestamp) -> bool {
        let age = Duration::try_from(now.duration_since(self.at));
        age.is_ok_and(|age| age < REUSE)
            && self.versions.len() == accounts.len()
            && accounts
                .iter()
                .zip(&self.versions)
                .all(|(served, last)| served.account.peek().is_version(last))
    }
}
