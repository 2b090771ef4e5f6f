//! The password of a proxy, which only the wrapped command gets.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use quota::Secret;
use subtle::ConstantTimeEq as _;

use crate::access::digest;

/// The user name in the URL of the proxy.
const USER: &str = "quota";

/// A random password, which is valid as long as the proxy runs.
pub(super) struct Password {
    text: Secret,
    /// The hash of the credentials as a client sends them.
    digest: [u8; 32],
}

impl Password {
    /// # Errors
    ///
    /// The error of the system's random source.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn new(text: String) -> Self {
        let digest = digest(&STANDARD.encode(format!("{USER}:{text}")));
        Self { text: Secret::new(text), digest }
    }

    /// The user information of the proxy's URL. It contains only characters that are valid in a URL.
    pub(super) fn user_info(&self) -> Secret {
        Secret::new(format!("{USER}:{}", self.text.expose()))
    }

    /// Whether the request presents the password. The comparison takes constant time.
    pub(super) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, credentials)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return false;
        };
        scheme.eq_ignore_ascii_case("basic") && bool::from(digest(credentials.trim()).ct_eq(&self.digest))
    }
}

/// Hides the password.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accepts(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PROXY_AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Password::new("secret".to_owned()).is_presented(&headers)
    }

    #[test]
    fn only_the_password_is_accepted() {
        let right = format!("Basic {}", STANDARD.encode("quota:secret"));

        assert!(accepts(&[&right]) && accepts(&[&right.replace("Basic", "basic")]));
        for wrong in
            ["Basic", "Basic ", "quota:secret", &right.replace("Basic", "Bearer"), &right[..right.len() - 1]]
        {
            assert!(!accepts(&[wrong]), "{wrong}");
        }
        assert!(!accepts(&[]) && !accepts(&[&right, &right]));
    }

    #[test]
    fn passwords_differ_and_fit_into_a_url() {
        let texts = [0, 1].map(|_| Password::random().unwrap().user_info().expose().to_owned());

        assert_ne!(texts[0], texts[1]);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_".contains(&byte);
        assert!(texts.iter().all(|text| text.len() == 49 && text.bytes().all(is_plain)), "{texts:?}");
    }
}
