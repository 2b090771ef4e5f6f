//! What is known of a request before it is sent.
//! Nothing of its content is needed.

use std::sync::Arc;

use quota_core::model::Window;
use quota_core::{Percent, Snapshot, WindowId};
use serde::{Deserialize, Serialize};

use super::Limits;

/// A request that is to be sent, as far as the choice of an account depends on it.
///
/// ```
/// use quota_accounts::Request;
///
/// let request = Request::new().with_model("claude-opus-4-5").with_session("b6c1");
/// assert_eq!(request.model(), Some("claude-opus-4-5"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Request {
    model: Option<Arc<str>>,
    session: Option<Session>,
    estimate: Option<(WindowId, Percent)>,
    only_window: Option<Arc<str>>,
}

impl Request {
    /// A request of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the model, as the provider is to be told it.
    pub fn with_model(mut self, model: &str) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Names the session (conversation) it belongs to.
    pub fn with_session(mut self, session: &str) -> Self {
        self.session = Some(Session::of(session));
        self
    }

    /// Estimates how much of a window it will use, so that a burst of requests does not overrun one account.
    ///
    /// The share counts against the account from the moment the request is routed until its result is reported.
    pub fn with_estimate(mut self, window: WindowId, share: Percent) -> Self {
        self.estimate = Some((window, share));
        self
    }

    /// Restricts the choice to the window of this id: no other window counts.
    pub fn with_only_window(mut self, id: &str) -> Self {
        self.only_window = Some(id.into());
        self
    }

    /// Whether a window counts for the request: the only one, or else any that applies to the model.
    #[inline]
    #[must_use]
    pub fn counts(&self, window: &Window) -> bool {
        match &self.only_window {
            None => window.applies_to(self.model()),
            Some(only) => window.id().as_str() == &**only,
        }
    }

    /// The first window that counts and has no reading; see [`Limits::unread`].
    pub(super) fn first_unread<'a>(
        &'a self,
        limits: &'a Limits,
        snapshot: &'a Snapshot,
    ) -> Option<&'a WindowId> {
        match &self.only_window {
            None => limits.unread(snapshot, self.model()).next(),
            Some(only) => snapshot.unreadable().find(|id| id.as_str() == &**only),
        }
    }

    /// The model, if it was named.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The session, if it was named.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// The share it was estimated to use, and of which window.
    #[must_use]
    pub fn estimate(&self) -> Option<(&WindowId, Percent)> {
        self.estimate.as_ref().map(|(window, share)| (window, *share))
    }
}

/// A session, by a hash of its name: the name itself is kept nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(u64);

impl Session {
    /// The session of that name. The same on every host, and in every version of this program.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(spread(fnv(name)))
    }

    /// A number that depends on this session and an account, evenly over all of them.
    pub(crate) fn with(self, account: &str) -> u64 {
        spread(self.0 ^ fnv(account))
    }
}

/// FNV-1a: short, and equal on every host. It protects nothing.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The last steps of splitmix64: neighbours become strangers.
fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_session_is_the_same_in_every_version() {
        // FNV-1a of "a" is af63dc4c8601ec8c; stored pins depend on it.
        assert_eq!(fnv("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn the_name_of_a_session_is_kept_nowhere() {
        let request = Request::new().with_session("n33dle");

        assert!(!format!("{request:?}").contains("n33dle"));
    }
}
