//! Identifiers of logins and credentials. None of them is a secret, because none grants access.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies a login, as the source of its credential states it.
///
/// It stays the same when tokens rotate, and changes when the user logs in to another account. It is opaque text, such as a
/// hash of the provider's user id, and is never derived from a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginId(Arc<str>);

/// Identifies the owner that the provider names, such as an organization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(Arc<str>);

macro_rules! opaque_text {
    ($type:ident) => {
        impl $type {
            /// Creates an id from this text, unchanged.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

opaque_text!(LoginId);
opaque_text!(OwnerId);

/// Identifies a credential without revealing it: 64 bits of a hash.
///
/// A rejected credential is not retried. The next call needs a different fingerprint, and so a new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialFingerprint(NonZeroU64);

impl CredentialFingerprint {
    /// Creates a fingerprint from 64 bits of a cryptographic hash over the credential.
    #[must_use]
    pub const fn from_hash(bits: u64) -> Self {
        // It is never zero, so that an `Option` takes eight bytes. A record stores several.
        Self(match NonZeroU64::new(bits) {
            Some(bits) => bits,
            None => NonZeroU64::MIN,
        })
    }
}

impl fmt::Display for CredentialFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for CredentialFingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CredentialFingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self::from_hash).map_err(serde::de::Error::custom)
    }
}

/// The login that the next call would use. Either field may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LoginInfo {
    /// The login; `None` if the credential source does not state it.
    pub login_id: Option<LoginId>,
    /// The credential of that login; `None` if the source does not state it.
    pub fingerprint: Option<CredentialFingerprint>,
}

impl LoginInfo {
    /// Creates a login with both fields unknown.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Creates a login with this id.
    #[must_use]
    pub fn new(login_id: LoginId) -> Self {
        Self { login_id: Some(login_id), fingerprint: None }
    }

    /// Sets the fingerprint of the credential.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Into<Option<CredentialFingerprint>>) -> Self {
        self.fingerprint = fingerprint.into();
        self
    }
}

/// The owner of a record: the login id from the credential source, and the owner id from the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordOwner {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login_id: Option<LoginId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner_id: Option<OwnerId>,
}

impl RecordOwner {
    /// Whether the ids belong to another owner. An unknown id never contradicts.
    pub(crate) fn contradicts(&self, login_id: Option<&LoginId>, owner_id: Option<&OwnerId>) -> bool {
        differ(self.login_id.as_ref(), login_id) || differ(self.owner_id.as_ref(), owner_id)
    }

    /// Stores the given ids. An unknown id keeps its stored value.
    pub(crate) fn adopt(&mut self, login_id: Option<&LoginId>, owner_id: Option<&OwnerId>) {
        if let Some(login_id) = login_id {
            self.login_id = Some(login_id.clone());
        }
        if let Some(owner_id) = owner_id {
            self.owner_id = Some(owner_id.clone());
        }
    }
}

fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_id_never_contradicts() {
        let owner = RecordOwner { login_id: Some(LoginId::new("a")), owner_id: None };

        assert!(!owner.contradicts(None, Some(&OwnerId::new("org"))));
        assert!(!owner.contradicts(Some(&LoginId::new("a")), None));
        assert!(owner.contradicts(Some(&LoginId::new("b")), None));
    }

    #[test]
    fn a_fingerprint_is_serialized_as_sixteen_digits() {
        let text = serde_json::to_string(&CredentialFingerprint::from_hash(255)).unwrap();

        assert_eq!(text, "\"00000000000000ff\"");
        assert_eq!(
            serde_json::from_str::<CredentialFingerprint>(&text).unwrap(),
            CredentialFingerprint::from_hash(255)
        );
    }
}
