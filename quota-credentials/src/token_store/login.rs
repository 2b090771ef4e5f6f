//! The stored logins and their JSON format. This module does no I/O; `policy` decides what happens to a login.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond::{optional as optional_ms, required as ms};
use quota_core::file::JsonContent;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, OwnerId, UnknownWord};
use quota_core::provider::Tokens;
use quota_core::{AccountId, Credential, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::token;

/// The content of the file.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct LoginsFile {
    #[serde(default)]
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) logins: BTreeMap<AccountId, StoredLogin>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl JsonContent for LoginsFile {
    const VERSION: u32 = 2;
    const OWNER_ONLY: bool = true;

    fn version(&self) -> u32 {
        self.version
    }
}

/// The login of one account.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredLogin {
    #[serde(with = "secret")]
    pub(crate) access_token: Secret,
    #[serde(default, with = "optional_secret", skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<Secret>,
    /// When the access token was issued, by the clock of the process that requested it.
    #[serde(rename = "issued_ms", default, with = "optional_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) issued_at: Option<Timestamp>,
    #[serde(rename = "expires_ms", default, with = "optional_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    /// The id of the login. It does not change when tokens rotate.
    pub(crate) login_id: LoginId,
    /// The hash of the owner that the provider reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<CredentialFingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<String>,
    /// Whether the access token replaced one that the provider rejected. If the provider rejects it too, the user must log in again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) from_rejection: bool,
    /// Fingerprints of the refresh tokens that led to the current one, the latest last. None of them is accepted as a new login.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) used_refresh_tokens: Vec<CredentialFingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<RenewalFailure>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Why the last renewal with a refresh token failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RenewalFailure {
    /// The fingerprint of the refresh token.
    pub(crate) fingerprint: CredentialFingerprint,
    pub(crate) kind: FailureKind,
    #[serde(rename = "at_ms", with = "ms")]
    pub(crate) at: Timestamp,
    /// When the token may be sent again.
    #[serde(rename = "retry_at_ms", with = "ms")]
    pub(crate) retry_at: Timestamp,
    /// How often the token was sent.
    pub(crate) attempts: u32,
    /// The reason, as text for the user.
    pub(crate) reason: String,
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// The kinds of failures, which differ in their consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    /// The token was sent, but no result is stored. Either the response is pending, or the process was killed.
    Sent,
    /// The provider will never accept the token again.
    InvalidGrant,
    /// The provider rejects the client. It accepts no token until a setting changes.
    InvalidClient,
    /// The token may be sent again.
    Transient,
    /// The token, and those of sibling logins, may be sent again at the time that the provider named.
    RateLimited,
    /// A kind that a newer program wrote. Only its time is used.
    #[serde(untagged)]
    Other(UnknownWord),
}

/// A new login to store.
///
/// ```
/// use quota_core::Secret;
/// use quota_credentials::NewLogin;
///
/// let login = NewLogin::new(Secret::new("an-access-token")).refresh_token(Secret::new("a-refresh-token"));
/// assert!(!format!("{login:?}").contains("token\""));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct NewLogin {
    access_token: Secret,
    refresh_token: Option<Secret>,
    expires_at: Option<Timestamp>,
    owner: Option<OwnerId>,
    plan: Option<String>,
}

impl NewLogin {
    /// Creates a login with this access token.
    pub fn new(access_token: Secret) -> Self {
        Self { access_token, refresh_token: None, expires_at: None, owner: None, plan: None }
    }

    /// The login of these tokens. Their lifetime starts no earlier than the request for them.
    pub(super) fn of_tokens(tokens: Tokens, requested_at: Timestamp) -> Self {
        let lifetime = tokens.expires_in.unwrap_or_default();
        let expiry = requested_at.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let expiry = tokens.expires_in.is_some().then_some(expiry);
        let login = Self::new(tokens.access_token).refresh_token(tokens.refresh_token);
        login.expires_at(expiry).owner(tokens.owner_id)
    }

    /// Sets the refresh token. No other program may use it, because it works once.
    pub fn refresh_token(mut self, token: impl Into<Option<Secret>>) -> Self {
        self.refresh_token = token.into();
        self
    }

    /// Sets when the access token expires.
    pub fn expires_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.expires_at = at.into();
        self
    }

    /// Sets the owner. Two logins of one owner have the same login id, so they share their readings.
    pub fn owner(mut self, owner: impl Into<Option<OwnerId>>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Sets the plan of the account.
    pub fn plan(mut self, plan: impl Into<String>) -> Self {
        self.plan = Some(plan.into());
        self
    }
}

/// The outcome of [`TokenStore::put`](crate::TokenStore::put).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum PutResult {
    /// The login was stored.
    Stored,
    /// The stored login is the same or descends from the new one, so it was not replaced.
    AlreadyStored,
}

impl LoginsFile {
    /// Stores a login, unless the stored one descends from it.
    pub(crate) fn put(&mut self, account: AccountId, new: NewLogin, now: Timestamp) -> PutResult {
        self.version = Self::VERSION;
        let existing = self.logins.get(&account);
        let fingerprint = new.refresh_token.as_ref().map(token::fingerprint);
        if existing.is_some_and(|login| fingerprint.is_some_and(|token| login.descends_from(token))) {
            return PutResult::AlreadyStored;
        }
        let owner = new.owner.as_ref().map(owner_hash);
        let same_owner = existing.filter(|login| owner.is_some() && login.owner == owner);
        let login = StoredLogin {
            access_token: new.access_token,
            refresh_token: new.refresh_token,
            issued_at: Some(now),
            expires_at: new.expires_at,
            login_id: same_owner.map_or_else(StoredLogin::new_login_id, |login| login.login_id.clone()),
            owner,
            plan: new.plan,
            from_rejection: false,
            used_refresh_tokens: Vec::new(),
            last_failure: None,
            unknown: existing.map(|login| login.unknown.clone()).unwrap_or_default(),
        };
        self.logins.insert(account, login);
        PutResult::Stored
    }
}

impl StoredLogin {
    pub(crate) fn new_login_id() -> LoginId {
        LoginId::new(&quota_core::model::RequestId::random().to_string())
    }

    /// The fingerprint of the refresh token, if there is one.
    pub(crate) fn refresh_fingerprint(&self) -> Option<CredentialFingerprint> {
        self.refresh_token.as_ref().map(token::fingerprint)
    }

    pub(crate) fn access_fingerprint(&self) -> CredentialFingerprint {
        token::fingerprint(&self.access_token)
    }

    fn descends_from(&self, refresh_token: CredentialFingerprint) -> bool {
        self.refresh_fingerprint() == Some(refresh_token) || self.used_refresh_tokens.contains(&refresh_token)
    }

    /// The last failure, if it concerns the current refresh token.
    pub(crate) fn current_failure(&self) -> Option<&RenewalFailure> {
        let fingerprint = self.refresh_fingerprint()?;
        self.last_failure.as_ref().filter(|failure| failure.fingerprint == fingerprint)
    }

    pub(crate) fn credential(&self) -> Credential {
        let login = LoginInfo::new(self.login_id.clone()).fingerprint(self.access_fingerprint());
        let mut credential =
            Credential::new(self.access_token.clone()).login(login).expires_at(self.expires_at);
        credential.plan.clone_from(&self.plan);
        credential
    }
}

/// Identifies an owner without revealing the owner.
pub(crate) fn owner_hash(owner: &OwnerId) -> CredentialFingerprint {
    let labeled = [b"quota-owner\0", owner.as_str().as_bytes()].concat();
    CredentialFingerprint::from_hash(token::sha256_prefix_u64(&labeled))
}

/// Shows neither tokens nor unknown fields.
impl fmt::Debug for StoredLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredLogin")
            .field("expires_at", &self.expires_at)
            .field("last_failure", &self.last_failure.as_ref().map(|failure| failure.kind))
            .finish_non_exhaustive()
    }
}

/// Serializes secrets. No other file may contain them.
mod secret {
    use quota_core::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

mod optional_secret {
    use quota_core::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.filter(|text| !text.is_empty()).map(Secret::new))
    }
}

#[cfg(test)]
mod tests;
