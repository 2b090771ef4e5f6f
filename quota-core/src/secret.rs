//! A value that must not be seen.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret, such as an access token. It is not shown by `Debug`, has no `Display`, cannot be serialized, and its memory
/// is wiped when it is dropped.
///
/// ```
/// use quota_core::Secret;
///
/// let token = Secret::new("sk-ant-oat01-abc");
/// assert_eq!(format!("{token:?}"), "Secret(***)");
/// assert_eq!(token.expose(), "sk-ant-oat01-abc");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// Shows the value, to the code that sends it to its owner and to nobody else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
