//! The logins that this program owns, as they are kept in their file.
//! What is done with them is decided in `rule`; nothing here does I/O.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use quota_core::{
    AccountId, Credential, CredentialFingerprint, LoginId, LoginInfo, OwnerId, Secret, UnknownWord,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{hash, token};
use quota_core::file::JsonContent;

/// All that is kept.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct LoginsFile {
    #[serde(default)]
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) logins: BTreeMap<AccountId, Kept>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl JsonContent for LoginsFile {
    const VERSION: u32 = 1;
    const OWNER_ONLY: bool = true;

    fn version(&self) -> u32 {
        self.version
    }
}

/// The login of one account.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(with = "secret")]
    pub(crate) access_token: Secret,
    #[serde(default, with = "secret::optional", skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<Secret>,
    /// When the access token was got, by the clock of whoever got it.
    #[serde(rename = "got_ms", default, with = "moment", skip_serializing_if = "Option::is_none")]
    pub(crate) got_at: Option<Timestamp>,
    #[serde(rename = "expires_ms", default, with = "moment", skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    /// Stays when tokens rotate.
    pub(crate) lineage: LoginId,
    /// Whose login the provider said it is: a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<CredentialFingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<String>,
    /// Whether the access token was got because the one before was refused: a second refusal is final.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_second: bool,
    /// The refresh tokens that this one has come of, the latest last: none of them is ever taken for a new login.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) spent: Vec<CredentialFingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<Trouble>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What stands in the way of an exchange, for one refresh token and no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// The refresh token's.
    pub(crate) mark: CredentialFingerprint,
    pub(crate) kind: TroubleKind,
    #[serde(rename = "since_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub(crate) since: Timestamp,
    /// When it may be sent again.
    #[serde(rename = "until_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub(crate) until: Timestamp,
    /// How often it was sent.
    pub(crate) tries: u32,
    /// What happened, in words of our own.
    pub(crate) why: String,
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// The kinds of trouble, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TroubleKind {
    /// It was sent, and nobody has written what came of it: somebody is waiting for the answer, or was killed.
    Sent,
    /// It will never be accepted again.
    Dead,
    /// Nobody's would be: a setting has to be changed.
    Systemic,
    /// It may be sent again.
    Transient,
    /// It may be sent again when the provider wants to be asked again, and so may its siblings.
    Throttled,
    /// A kind that only a newer program knows. It is as final as time lets it be.
    #[serde(untagged)]
    Other(UnknownWord),
}

/// A login to keep, as somebody has just made it.
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
    identity: Option<OwnerId>,
    plan: Option<String>,
}

impl NewLogin {
    /// A login that has this access token.
    pub fn new(access_token: Secret) -> Self {
        Self { access_token, refresh_token: None, expires_at: None, identity: None, plan: None }
    }

    /// Gives the token that the access token is renewed by. It must be nobody else's: it works once.
    pub fn refresh_token(mut self, token: impl Into<Option<Secret>>) -> Self {
        self.refresh_token = token.into();
        self
    }

    /// Says when the access token stops being accepted.
    pub fn expires_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.expires_at = at.into();
        self
    }

    /// Says whose login it is. Two logins of one identity are one to those who keep readings.
    pub fn identity(mut self, identity: impl Into<Option<OwnerId>>) -> Self {
        self.identity = identity.into();
        self
    }

    /// Says which plan the account has.
    pub fn plan(mut self, plan: impl Into<String>) -> Self {
        self.plan = Some(plan.into());
        self
    }
}

/// What became of a login that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum PutResult {
    /// It is kept.
    Stored,
    /// It is the one that is kept, or one that has become it: what is kept is at least as new.
    AlreadyStored,
}

impl LoginsFile {
    /// Keeps a login, unless what is kept has come of it.
    pub(crate) fn put(&mut self, account: AccountId, new: NewLogin, now: Timestamp) -> PutResult {
        self.version = Self::VERSION;
        let known = self.logins.get(&account);
        let mark = new.refresh_token.as_ref().map(token::mark);
        if known.is_some_and(|known| mark.is_some_and(|mark| known.has_come_of(mark))) {
            return PutResult::AlreadyStored;
        }
        let identity = new.identity.as_ref().map(identity_mark);
        let same = known.filter(|known| identity.is_some() && known.identity == identity);
        let lineage = same.map_or_else(Kept::new_lineage, |known| known.lineage.clone());
        let unknown = known.map(|known| known.unknown.clone()).unwrap_or_default();
        let kept = Kept {
            access_token: new.access_token,
            refresh_token: new.refresh_token,
            got_at: Some(now),
            expires_at: new.expires_at,
            lineage,
            identity,
            plan: new.plan,
            is_second: false,
            spent: Vec::new(),
            trouble: None,
            unknown,
        };
        self.logins.insert(account, kept);
        PutResult::Stored
    }
}

impl Kept {
    pub(crate) fn new_lineage() -> LoginId {
        LoginId::new(&quota_core::RequestId::random().to_string())
    }

    /// The mark of the refresh token, if there is one.
    pub(crate) fn refresh_mark(&self) -> Option<CredentialFingerprint> {
        self.refresh_token.as_ref().map(token::mark)
    }

    pub(crate) fn access_mark(&self) -> CredentialFingerprint {
        token::mark(&self.access_token)
    }

    fn has_come_of(&self, refresh: CredentialFingerprint) -> bool {
        self.refresh_mark() == Some(refresh) || self.spent.contains(&refresh)
    }

    pub(crate) fn credential(&self) -> Credential {
        let login = LoginInfo::new(self.lineage.clone()).mark(self.access_mark());
        let mut credential =
            Credential::new(self.access_token.clone()).login(login).expires_at(self.expires_at);
        credential.plan.clone_from(&self.plan);
        credential
    }
}

/// A name for whose login it is, which tells nobody who that is.
pub(crate) fn identity_mark(identity: &OwnerId) -> CredentialFingerprint {
    CredentialFingerprint::from_hash(hash::first_64_bits(
        &[b"quota-identity\0", identity.as_str().as_bytes()].concat(),
    ))
}

/// Shows nothing of the tokens, nor of fields that nobody here knows.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("expires_at", &self.expires_at)
            .field("trouble", &self.trouble.as_ref().map(|trouble| trouble.kind))
            .finish_non_exhaustive()
    }
}

/// A secret in the one file that may hold it.
mod secret {
    use quota_core::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Secret, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            secret: &Option<Secret>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match secret {
                Some(secret) => super::serialize(secret, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Secret>, D::Error> {
            Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()).map(Secret::new))
        }
    }
}

use jiff::fmt::serde::timestamp::millisecond::optional as moment;

#[cfg(test)]
mod tests;
