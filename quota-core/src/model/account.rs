//! The names of providers and accounts. `login` defines the login that an account holds.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of an LLM provider, such as `anthropic`.
#[derive(Clone)]
pub struct ProviderId(Name);

/// A name that is cheap to clone: either a constant or shared text that was read at run time.
#[derive(Clone)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl ProviderId {
    const MAX_LEN: usize = 32;

    /// Creates a provider id from a constant name.
    ///
    /// # Panics
    ///
    /// If the name has characters other than lower-case letters, digits, `-`, `_` and `.`. In a `const` this is a compile error.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        assert!(
            is_provider(name.as_bytes()),
            "a provider's name has lower-case letters, digits, '-', '_' and '.'"
        );
        Self(Name::Static(name))
    }

    /// Creates a provider id.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the name is empty, longer than 32 bytes, or has characters other than lower-case letters, digits, `-`, `_`
    /// and `.`.
    pub fn new(name: &str) -> Result<Self, InvalidId> {
        if is_provider(name.as_bytes()) {
            Ok(Self(Name::Shared(name.into())))
        } else {
            Err(InvalidId::Provider)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Static(text) => text,
            Name::Shared(text) => text,
        }
    }
}

const fn is_provider(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > ProviderId::MAX_LEN {
        return false;
    }
    let mut at = 0;
    while at < name.len() {
        if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.') {
            return false;
        }
        at += 1;
    }
    true
}

/// An account of a provider: `anthropic/main`.
///
/// The user who configures the account chooses the name. Names that look like a token are rejected, because tokens rotate and
/// are secret. The same text means the same account on every host.
///
/// ```
/// use quota_core::AccountId;
///
/// let main: AccountId = "anthropic/main".parse()?;
/// assert_eq!(main.provider().as_str(), "anthropic");
/// assert_eq!(main.name(), "main");
/// # Ok::<(), quota_core::model::InvalidId>(())
/// ```
#[derive(Clone)]
pub struct AccountId {
    provider: ProviderId,
    /// `provider/name`, shared with the store's keys.
    text: Arc<str>,
}

impl AccountId {
    const MAX_NAME: usize = 128;

    /// Creates an account id.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the name is empty, longer than 128 bytes, has characters other than ASCII letters, digits and `. _ @ + :
    /// -`, or looks like a secret.
    pub fn new(provider: ProviderId, name: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+:-".contains(&byte);
        if name.is_empty() || name.len() > Self::MAX_NAME || !name.bytes().all(allowed) {
            return Err(InvalidId::Account);
        }
        if looks_like_a_secret(name) {
            return Err(InvalidId::Secret);
        }
        let text = format!("{}/{name}", provider.as_str()).into();
        Ok(Self { provider, text })
    }

    /// The provider of the account.
    #[must_use]
    pub fn provider(&self) -> &ProviderId {
        &self.provider
    }

    /// The name of the account, without the provider.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.provider.as_str().len() + 1..]
    }

    /// `provider/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

/// Whether the name has the prefix of a provider's token.
fn looks_like_a_secret(name: &str) -> bool {
    ["sk-", "sk_", "gho_", "ghp_", "ghu_", "github_pat_", "ya29.", "eyJ"]
        .iter()
        .any(|start| name.starts_with(start))
}

impl FromStr for AccountId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (provider, name) = text.split_once('/').ok_or(InvalidId::NoSlash)?;
        Self::new(ProviderId::new(provider)?, name)
    }
}

/// Why a text is not a valid name of a provider, an account or a window. The error does not repeat the text, which may be a
/// secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text has no `/` between provider and account.
    #[error("an account is written provider/name, such as anthropic/main")]
    NoSlash,
    /// The provider's name is empty, too long, or has an invalid character.
    #[error("a provider's name has 1 to 32 lower-case letters, digits, '-', '_' or '.'")]
    Provider,
    /// The account's name is empty, too long, or has an invalid character.
    #[error("an account's name has 1 to 128 letters, digits, or '.', '_', '@', '+', ':', '-'")]
    Account,
    /// The window's name is empty, too long, or has control characters.
    #[error("a window's name has 1 to 96 printable characters")]
    Window,
    /// The name looks like a token, and names are stored and logged.
    #[error("a token is not a valid account name; choose a name such as main")]
    Secret,
}

macro_rules! text_type {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        // Hashes the text, as `Borrow<str>` requires, so that a map with this key can be searched with a `&str`.
        impl std::hash::Hash for $type {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($type), self.as_str())
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

text_type!(ProviderId);
text_type!(AccountId);

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ProviderId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_id_is_parsed_from_provider_slash_name() {
        let id: AccountId = "anthropic/me@example.com".parse().unwrap();

        assert_eq!((id.provider().as_str(), id.name()), ("anthropic", "me@example.com"));
    }

    #[test]
    fn a_name_with_a_slash_or_a_brace_is_rejected() {
        for bad in ["anthropic/a/b", "anthropic/{x}", "anthropic/", "anthropic/a b", "/main"] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_rejected_as_a_name_and_not_repeated() {
        let error = "anthropic/sk-ant-oat01-abc".parse::<AccountId>().unwrap_err();

        assert_eq!(error, InvalidId::Secret);
        assert!(!error.to_string().contains("oat01"));
    }

    #[test]
    fn static_and_parsed_names_are_equal() {
        assert_eq!(ProviderId::from_static("anthropic"), ProviderId::new("anthropic").unwrap());
    }
}
