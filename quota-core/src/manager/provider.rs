//! What all accounts of one provider share in this process: who asks, how fast, by which policy, and the quiet time.
//! How the quiet time is shared with other processes is in `quieted`.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use jiff::Timestamp;

use super::gate::Gate;
use super::link::Link;
use super::quieted::Quieted;
use super::view::{Caveats, View};
use crate::{Clock, Hold, Policy, ProviderId, Record, UsageFetcher};

/// One provider, as this process sees it.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) fetcher: Option<Arc<dyn UsageFetcher>>,
    pub(crate) policy: Policy,
    pub(crate) gate: Arc<Gate>,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Clock,
    /// `None` if a 429 concerns its own account only.
    pub(crate) quieted: Option<Arc<Quieted>>,
    nothing: Mutex<Weak<View>>,
}

impl Provider {
    pub(crate) fn new(
        id: ProviderId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        policy: Policy,
        link: Arc<Link>,
        clock: Clock,
        quieted: Option<Arc<Quieted>>,
    ) -> Arc<Self> {
        let gate = Gate::new(clock.clone(), policy.gap, policy.parallel);
        Arc::new(Self { id, fetcher, policy, gate, link, clock, quieted, nothing: Mutex::default() })
    }

    /// The view of an account that was never read.
    pub(crate) fn nothing_known(self: &Arc<Self>) -> Arc<View> {
        static NOTHING: LazyLock<Arc<Record>> = LazyLock::new(Arc::default);
        let mut known = self.nothing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = known.upgrade() {
            return view;
        }
        let view = Arc::new(View::new(0, Arc::clone(&NOTHING), Arc::clone(self), Caveats::default()));
        // Weak: the view holds its provider, and neither may keep the other for ever.
        *known = Arc::downgrade(&view);
        view
    }

    /// The quiet time in force, as far as this process has heard.
    pub(crate) fn quiet_at(&self, now: Timestamp) -> Option<Hold> {
        self.quieted.as_ref().and_then(|quieted| quieted.at(now))
    }
}
