//! A reason not to use an account that no reading tells: what a provider answered to a request.
//! When one is made is decided in `outcome`; whether it counts for a request in `evaluate`.

use jiff::Timestamp;
use quota_core::model::{CredentialFingerprint, LoginId, Window, model_matches};
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Snapshot, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use quota_core::clock::is_from_future;

/// An account, or one model on it, is not to be used for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Block {
    /// What the provider answered.
    pub kind: RejectionKind,
    /// When it was answered.
    #[serde(rename = "since_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub since: Timestamp,
    /// When the account may be used again; `None` where only a new login helps.
    #[serde(
        rename = "until_ms",
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<Timestamp>,
    /// The one model it counts for, as requests or the provider name it; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether `model` is what a request named, and so means itself alone: `gpt-5` is not `gpt-5-mini`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_exact: bool,
    /// The window that is spent, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowId>,
    /// The credential it counts for: another one ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "mark")]
    pub fingerprint: Option<CredentialFingerprint>,
    /// The login it counts for, where that was known: another one ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "lineage")]
    pub login_id: Option<LoginId>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Block {
    /// A block of the whole account, until there is a new login.
    #[must_use]
    pub fn new(kind: RejectionKind, since: Timestamp) -> Self {
        Self {
            kind,
            since,
            until: None,
            model: None,
            is_exact: false,
            window: None,
            fingerprint: None,
            login_id: None,
            unknown: Map::new(),
        }
    }

    /// Says when it ends.
    #[must_use]
    pub fn until(mut self, until: impl Into<Option<Timestamp>>) -> Self {
        self.until = until.into();
        self
    }

    /// Says which model it counts for.
    #[must_use]
    pub fn model(mut self, model: impl Into<Option<String>>) -> Self {
        self.model = model.into();
        self
    }

    /// Says which model it counts for, as a request named it: for that one alone.
    #[must_use]
    pub fn exactly(self, model: impl Into<Option<String>>) -> Self {
        Self { is_exact: true, ..self.model(model) }
    }

    /// Says which window is spent.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<WindowId>>) -> Self {
        self.window = window.into();
        self
    }

    /// Says which credential it counts for.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Into<Option<CredentialFingerprint>>) -> Self {
        self.fingerprint = fingerprint.into();
        self
    }

    /// Says which login it counts for.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }

    /// Whether it belongs to another login than this. An unknown login contradicts nothing.
    pub(crate) fn is_of_another(&self, login_id: Option<&LoginId>) -> bool {
        matches!((&self.login_id, login_id), (Some(own), Some(other)) if own != other)
    }

    /// Whether it still stands at `now`, whatever the request.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The same from `now` on, as long as it was, if a clock that was ahead has made it.
    pub(crate) fn rebased_to(&self, now: Timestamp) -> Option<Self> {
        if !is_from_future(self.since, now) {
            return None;
        }
        let lasts = |until: Timestamp| until.duration_since(self.since);
        let until = self.until.map(|until| now.checked_add(lasts(until)).unwrap_or(Timestamp::MAX));
        Some(Self { since: now, until, ..self.clone() })
    }

    /// Whether it counts for a request for `model`.
    pub(crate) fn counts_for(&self, model: Option<&str>) -> bool {
        match (&self.model, model) {
            (None, _) => true,
            (Some(blocked), Some(model)) if self.is_exact => blocked.eq_ignore_ascii_case(model),
            (Some(blocked), Some(model)) => model_matches(blocked, model),
            (Some(_), None) => false,
        }
    }

    /// Whether a later reading shows that the window is available again, or that the login works where the rejected credential
    /// is unknown.
    pub(crate) fn is_refuted(&self, snapshot: &Snapshot) -> bool {
        match self.kind {
            RejectionKind::QuotaExhausted => match &self.window {
                Some(id) => snapshot.window(id).is_some_and(|window| self.has_room_in(window)),
                None => self.has_room_everywhere(snapshot),
            },
            RejectionKind::Unauthorized => {
                self.fingerprint.is_none() && snapshot.complete_at() > Some(self.since)
            }
            _ => false,
        }
    }

    /// Whether a reading that was taken later says that a window has room. One without a time may be older than it arrived: it
    /// ends no block, and brings none back unless it leaves no room.
    fn has_room_in(&self, window: &Window) -> bool {
        window.timed_at() > Some(self.since) && window.used().remaining() > Percent::ZERO
    }

    /// The same of every window that it can be about, where it names none. Only a complete answer says which these are.
    fn has_room_everywhere(&self, snapshot: &Snapshot) -> bool {
        if snapshot.complete_at() <= Some(self.since) {
            return false;
        }
        let model = self.model.as_deref();
        // Where one model is blocked, the windows of the whole account say nothing: they were not spent.
        let is_meant = |is_of_a_part: bool| is_of_a_part == model.is_some();
        let windows = snapshot.windows().iter();
        let mut meant = windows
            .filter(|window| is_meant(window.scope().is_some()) && window.applies_to(model))
            .peekable();
        let mut unread =
            snapshot.unreadable().filter(|id| is_meant(id.part().is_some()) && id.applies_to(model));
        meant.peek().is_some() && meant.all(|window| self.has_room_in(window)) && unread.next().is_none()
    }

    /// Whether the other is about the same thing and the same credential, so that one of them says it all.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        (self.kind, &self.model, &self.window) == (other.kind, &other.model, &other.window)
            && (self.fingerprint, &self.login_id) == (other.fingerprint, &other.login_id)
    }
}
