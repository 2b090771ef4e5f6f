//! A block: an account must not be used for a while, because the provider rejected a request. `outcome` creates blocks;
//! `evaluate` decides whether a block applies to a request.

use jiff::Timestamp;
use quota_core::model::{CredentialFingerprint, LoginId, Window, model_matches};
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Snapshot, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use quota_core::clock::is_from_future;

/// A time during which an account, or one of its models, must not be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Block {
    /// Why the provider rejected the request.
    pub kind: RejectionKind,
    /// When the provider rejected it.
    #[serde(rename = "since_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub since: Timestamp,
    /// When the account may be used again; `None` if only a new login ends the block.
    #[serde(
        rename = "until_ms",
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<Timestamp>,
    /// The model it applies to, as the request or the provider names it; `None` for all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether `model` is the full name from a request, so that `gpt-5` does not include `gpt-5-mini`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_exact: bool,
    /// The exhausted window, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowId>,
    /// Whether money has run out, rather than a window. Readings of windows then do not end the block.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_payment: bool,
    /// The credential it applies to. Another credential ends the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<CredentialFingerprint>,
    /// The login it applies to, if known. Another login ends the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_id: Option<LoginId>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Block {
    /// Creates a block of the whole account that lasts until a new login.
    #[must_use]
    pub fn new(kind: RejectionKind, since: Timestamp) -> Self {
        Self {
            kind,
            since,
            until: None,
            model: None,
            is_exact: false,
            window: None,
            needs_payment: false,
            fingerprint: None,
            login_id: None,
            unknown: Map::new(),
        }
    }

    /// Sets the end.
    #[must_use]
    pub fn until(mut self, until: impl Into<Option<Timestamp>>) -> Self {
        self.until = until.into();
        self
    }

    /// Applies the block to models whose name contains this text.
    #[must_use]
    pub fn model(mut self, model: impl Into<Option<String>>) -> Self {
        self.model = model.into();
        self
    }

    /// Applies the block to the one model with this full name.
    #[must_use]
    pub fn exactly(self, model: impl Into<Option<String>>) -> Self {
        Self { is_exact: true, ..self.model(model) }
    }

    /// Sets the exhausted window.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<WindowId>>) -> Self {
        self.window = window.into();
        self
    }

    /// Sets whether money has run out, rather than a window.
    #[must_use]
    pub fn needs_payment(mut self, needs_payment: bool) -> Self {
        self.needs_payment = needs_payment;
        self
    }

    /// Sets the credential it applies to.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Into<Option<CredentialFingerprint>>) -> Self {
        self.fingerprint = fingerprint.into();
        self
    }

    /// Sets the login it applies to.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }

    /// Whether it belongs to a login other than this one. An unknown login matches any.
    pub(crate) fn is_of_another(&self, login_id: Option<&LoginId>) -> bool {
        matches!((&self.login_id, login_id), (Some(own), Some(other)) if own != other)
    }

    /// Whether it has not expired at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The block with its start at `now` and its duration unchanged, if it starts in the future.
    pub(crate) fn rebased_to(&self, now: Timestamp) -> Option<Self> {
        if !is_from_future(self.since, now) {
            return None;
        }
        let end =
            |until: Timestamp| now.checked_add(until.duration_since(self.since)).unwrap_or(Timestamp::MAX);
        let until = self.until.map(end);
        Some(Self { since: now, until, ..self.clone() })
    }

    /// Whether it applies to a request for `model`.
    pub(crate) fn counts_for(&self, model: Option<&str>) -> bool {
        match (&self.model, model) {
            (None, _) => true,
            (Some(blocked), Some(model)) if self.is_exact => blocked.eq_ignore_ascii_case(model),
            (Some(blocked), Some(model)) => model_matches(blocked, model),
            (Some(_), None) => false,
        }
    }

    /// Whether later readings disprove it: the window has capacity again, or the login works and the rejected
    /// credential is unknown.
    pub(crate) fn is_refuted(&self, snapshot: &Snapshot) -> bool {
        match self.kind {
            RejectionKind::QuotaExhausted if self.needs_payment => false,
            RejectionKind::QuotaExhausted => match &self.window {
                Some(id) => snapshot.window(id).is_some_and(|window| self.has_capacity(window)),
                None => self.have_all_capacity(snapshot),
            },
            RejectionKind::Unauthorized => {
                self.fingerprint.is_none() && snapshot.complete_at() > Some(self.since)
            }
            _ => false,
        }
    }

    /// Whether a later reading shows that the window has capacity. A reading without its own time may be older than its arrival, so
    /// it ends no block.
    fn has_capacity(&self, window: &Window) -> bool {
        window.timed_at() > Some(self.since) && window.used().remaining() > Percent::ZERO
    }

    /// For a block that names no window: whether every window that could have caused it has capacity. Only a complete
    /// response lists all windows.
    fn have_all_capacity(&self, snapshot: &Snapshot) -> bool {
        if snapshot.complete_at() <= Some(self.since) {
            return false;
        }
        let model = self.model.as_deref();
        // A block of one model concerns only windows of a part of the account, not those of the whole account.
        let is_relevant = |is_partial: bool| is_partial == model.is_some();
        let windows = snapshot.windows().iter();
        let mut relevant = windows
            .filter(|window| is_relevant(window.scope().is_some()) && window.applies_to(model))
            .peekable();
        let mut unread =
            snapshot.unreadable().filter(|id| is_relevant(id.part().is_some()) && id.applies_to(model));
        relevant.peek().is_some()
            && relevant.all(|window| self.has_capacity(window))
            && unread.next().is_none()
    }

    /// Whether both blocks have the same kind, model, window, reason, credential and login, so that one of them can be
    /// dropped.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        (self.kind, self.needs_payment) == (other.kind, other.needs_payment)
            && (&self.model, &self.window) == (&other.model, &other.window)
            && (self.fingerprint, &self.login_id) == (other.fingerprint, &other.login_id)
    }
}
