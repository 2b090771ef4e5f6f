//! The metadata of a request that the choice of an account needs.

use std::sync::Arc;

use quota_core::model::Window;
use quota_core::{Percent, Snapshot, WindowId};
use serde::{Deserialize, Serialize};

use super::Limits;

/// The metadata of a request before it is sent.
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
    /// Creates a request without metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the model, by the name that the request sends to the provider.
    pub fn with_model(mut self, model: &str) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the session (conversation) it belongs to.
    pub fn with_session(mut self, session: &str) -> Self {
        self.session = Some(Session::of(session));
        self
    }

    /// Sets the estimated usage of a window, so that a burst of requests does not overrun one account.
    ///
    /// The router reserves this share of the account from the route until the report.
    pub fn with_estimate(mut self, window: WindowId, share: Percent) -> Self {
        self.estimate = Some((window, share));
        self
    }

    /// Restricts the choice to the window of this id. No other window counts.
    pub fn with_only_window(mut self, id: &str) -> Self {
        self.only_window = Some(id.into());
        self
    }

    /// Whether a window counts for the request: only the set window, or if none is set, every window that applies to
    /// the model.
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

    /// The model, if set.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The session, if set.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// The window and the share of it that the request is estimated to use, if set.
    #[must_use]
    pub fn estimate(&self) -> Option<(&WindowId, Percent)> {
        self.estimate.as_ref().map(|(window, share)| (window, *share))
    }
}

/// A session, identified by a hash of its name. The name itself is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(u64);

impl Session {
    /// The session of this name. The hash is the same on every host and in every version.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(spread(fnv(name)))
    }

    /// The hash of the name.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// A uniform hash of this session and an account.
    pub(crate) fn with(self, account: &str) -> u64 {
        spread(self.0 ^ fnv(account))
    }
}

/// FNV-1a, the same on every host. It is not a cryptographic hash.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of splitmix64: similar inputs give unrelated outputs.
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
        // FNV-1a of "a" is af63dc4c8601ec8c. Stored sessions depend on this hash.
        assert_eq!(fnv("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn the_name_of_a_session_is_not_stored() {
        let request = Request::new().with_session("n33dle");

        assert!(!format!("{request:?}").contains("n33dle"));
    }
}
