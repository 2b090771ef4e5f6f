//! What all accounts of one provider share in this process: who asks, how fast, by which policy, and the quiet time.
//! The quiet time is shared with other processes through a document of the store; see `changes` for how it is followed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::gate::Gate;
use super::link::Link;
use super::view::View;
use crate::{
    AccountId, Clock, Hold, Policy, ProviderId, QuietScope, QuietTime, Record, StoreError, StoreKey, Swap,
    UsageFetcher, Version,
};

/// One provider, as this process sees it.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) fetcher: Option<Arc<dyn UsageFetcher>>,
    pub(crate) policy: Policy,
    pub(crate) gate: Arc<Gate>,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Clock,
    quiet: ArcSwap<QuietTime>,
    quiet_read: OnceCell<Option<Version>>,
    /// Whether a task follows the changes of the quiet time.
    following: AtomicBool,
    nothing: Mutex<Weak<View>>,
}

impl Provider {
    pub(crate) fn new(
        id: ProviderId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        policy: Policy,
        link: Arc<Link>,
        clock: Clock,
    ) -> Arc<Self> {
        let gate = Gate::new(clock.clone(), policy.gap, policy.parallel);
        let quiet = ArcSwap::default();
        let (quiet_read, following, nothing) = (OnceCell::new(), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { id, fetcher, policy, gate, link, clock, quiet, quiet_read, following, nothing })
    }

    /// The view of an account that was never read.
    pub(crate) fn nothing_known(self: &Arc<Self>) -> Arc<View> {
        static NOTHING: LazyLock<Arc<Record>> = LazyLock::new(Arc::default);
        let mut known = self.nothing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = known.upgrade() {
            return view;
        }
        let view = Arc::new(View::new(0, Arc::clone(&NOTHING), Arc::clone(self), false, None));
        // Weak: the view holds its provider, and neither may keep the other for ever.
        *known = Arc::downgrade(&view);
        view
    }

    /// The document that holds the quiet time; `None` if a 429 concerns its own account only.
    pub(crate) fn quiet_key(&self) -> Option<StoreKey> {
        match self.policy.quiet.scope {
            QuietScope::Account => None,
            QuietScope::Provider => Some(StoreKey::provider(&self.id)),
            QuietScope::Everything => Some(StoreKey::everything()),
        }
    }

    /// The quiet time in force, as far as this process has heard.
    pub(crate) fn quiet_at(&self, now: Timestamp) -> Option<Hold> {
        self.quiet.load().at(now)
    }

    /// Reads the quiet time once; later changes come by notice.
    pub(crate) async fn read_quiet(&self) {
        if let Some(key) = self.quiet_key() {
            let _ = self.quiet_read.get_or_try_init(|| self.reread_quiet(&key)).await;
        }
    }

    /// Reads the quiet time anew; which state of the document that was.
    pub(crate) async fn reread_quiet(&self, key: &StoreKey) -> Result<Option<Version>, StoreError> {
        let reading = self.link.read(key).await?;
        if let Some(document) = &reading.document {
            match QuietTime::decode(&document.body) {
                Ok(quiet) => self.heard(&quiet),
                Err(error) => {
                    tracing::warn!(provider = %self.id, %error, "quiet time unreadable, left as it is")
                }
            }
        }
        Ok(reading.version())
    }

    /// Takes over what the store said; what this process knows of itself and ends later stays.
    fn heard(&self, told: &QuietTime) {
        self.quiet.rcu(|known| {
            let now = self.link.guess();
            let mut merged = told.clone();
            if let Some(hold) = known.at(now) {
                merged.extend(now, &hold);
            }
            merged
        });
    }

    /// Imposes a quiet time, here at once and in the store as soon as it can be written.
    ///
    /// If the store cannot be written the other processes learn by a 429 of their own: that is bounded by their backoff.
    pub(crate) async fn impose(&self, account: &AccountId, hold: &Hold) {
        let Some(key) = self.quiet_key() else { return };
        self.quiet.rcu(|known| {
            let mut quiet = (**known).clone();
            quiet.extend(hold.since, hold);
            quiet
        });
        let Ok(mut reading) = self.link.read(&key).await else { return };
        for _ in 0..MOST_TRIES {
            let mut quiet = match &reading.document {
                Some(document) => match QuietTime::decode(&document.body) {
                    Ok(quiet) => quiet,
                    Err(error) => {
                        tracing::warn!(%account, %error, "quiet time unreadable, left as it is");
                        return;
                    }
                },
                None => QuietTime::default(),
            };
            let before = quiet.clone();
            quiet.extend(reading.now, hold);
            if quiet == before {
                return;
            }
            let keep = self.policy.keep;
            match self.link.swap(&key, reading.version(), quiet.encode(), keep).await {
                Ok(Swap::Conflict(winner)) => reading = winner,
                Ok(Swap::Applied(_)) | Err(_) => return,
            }
        }
    }

    /// Whether this is the first to ask for the quiet time to be followed.
    pub(crate) fn begins_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }
}

/// Writers of one document are few; whoever loses this often leaves it to the others.
const MOST_TRIES: usize = 16;
