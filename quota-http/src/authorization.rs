//! The request for a first login in a browser: an authorization code (RFC 6749, section 4.1) with PKCE (RFC 7636). It does no I/O;
//! `oauth` exchanges the code.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quota_core::Secret;
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

/// An authorization in progress: the URL that the user opens, and the secrets that only this process knows.
///
/// ```
/// use quota_http::Authorization;
///
/// let endpoint = "https://auth.example.com/authorize".parse()?;
/// let login = Authorization::new(&endpoint, "my-client-id", "http://127.0.0.1:4321/callback", &["usage"]);
/// assert!(login.url().query().unwrap().contains("code_challenge_method=S256"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct Authorization {
    url: Url,
    pub(crate) redirect_url: String,
    pub(crate) state: String,
    pub(crate) verifier: Secret,
}

/// Why an answer has no usable code. The error texts repeat no part of the answer except a known error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// The user or the provider denied access.
    #[error("the provider did not authorize the login: {reason}")]
    #[non_exhaustive]
    Denied {
        /// The error code of the provider.
        reason: Cow<'static, str>,
    },
    /// The answer belongs to another authorization.
    #[error("the answer belongs to another login; use the address that was printed last")]
    State,
    /// There is no code in the answer.
    #[error("there is no code in it; copy the whole address, or the code, after the login")]
    NoCode,
}

/// The longest code that is accepted.
const MAX_CODE: usize = 4096;

impl Authorization {
    /// Creates an authorization with a new state and a new verifier.
    ///
    /// The provider sends the user back to `redirect_url`. A native program listens there on a loopback address (RFC 8252), or the user
    /// pastes the address or the code.
    ///
    /// # Panics
    ///
    /// If the operating system has no random numbers.
    pub fn new(authorize_url: &Url, client_id: &str, redirect_url: &str, scopes: &[impl AsRef<str>]) -> Self {
        Self::with_secrets(authorize_url, client_id, redirect_url, scopes, random(), random())
    }

    fn with_secrets(
        authorize_url: &Url,
        client_id: &str,
        redirect_url: &str,
        scopes: &[impl AsRef<str>],
        state: String,
        verifier: String,
    ) -> Self {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let scope = scopes.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let mut url = authorize_url.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect_url)
            .extend_pairs((!scope.is_empty()).then_some(("scope", &*scope)))
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Self { url, redirect_url: redirect_url.to_owned(), state, verifier: Secret::new(verifier) }
    }

    /// The URL that the user opens in a browser.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Reads the code from an answer: the address to which the provider sent the browser, its query, or a code that the user pasted,
    /// with or without `#` and the state.
    ///
    /// # Errors
    ///
    /// [`AuthorizationError`] if it has no code of this authorization.
    pub fn code(&self, answer: &str) -> Result<Secret, AuthorizationError> {
        let answer = answer.trim();
        let query = answer.split_once('?').map(|(_, query)| query);
        let query = query.or_else(|| answer.contains("code=").then_some(answer));
        let (code, state) = match query {
            Some(query) => {
                let query = query.split('#').next().unwrap_or_default();
                let field = |name: &str| {
                    let mut fields = form_urlencoded::parse(query.as_bytes());
                    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
                };
                // Check the state first, so that no other page can end this login.
                if field("state").as_deref() != Some(&*self.state) {
                    return Err(AuthorizationError::State);
                }
                if let Some(error) = field("error") {
                    return Err(AuthorizationError::Denied { reason: error_code(error) });
                }
                (field("code").unwrap_or_default(), None)
            }
            None => match answer.split_once('#') {
                Some((code, state)) => (code.to_owned(), Some(state)),
                None => (answer.to_owned(), None),
            },
        };
        if state.is_some_and(|state| state != self.state) {
            return Err(AuthorizationError::State);
        }
        let is_code =
            (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic());
        if is_code { Ok(Secret::new(code)) } else { Err(AuthorizationError::NoCode) }
    }
}

/// An error code as RFC 6749 defines it; anything else is not repeated.
fn error_code(code: String) -> Cow<'static, str> {
    let is_plain = code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_plain && !code.is_empty() { code.into() } else { "unknown error".into() }
}

/// 256 unpredictable random bits as text.
fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization").field("redirect_url", &self.redirect_url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: &str = "http://127.0.0.1:4321/callback";

    fn started() -> Authorization {
        // The verifier of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let endpoint = "https://auth.example.com/authorize?login_hint=main".parse().unwrap();
        Authorization::with_secrets(&endpoint, "my id", REDIRECT, &["a:b", "c"], "st-1".to_owned(), verifier)
    }

    fn code(answer: &str) -> Result<String, AuthorizationError> {
        started().code(answer).map(|code| code.expose().to_owned())
    }

    #[test]
    fn the_url_has_the_challenge_of_rfc_7636_and_keeps_its_query() {
        assert_eq!(
            started().url().as_str(),
            "https://auth.example.com/authorize?login_hint=main&response_type=code&client_id=my+id\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A4321%2Fcallback&scope=a%3Ab+c&state=st-1\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
        );
    }

    #[test]
    fn two_authorizations_share_no_secret() {
        let endpoint = "https://auth.example.com/authorize".parse().unwrap();
        let new = || Authorization::new(&endpoint, "id", REDIRECT, &[] as &[&str]);
        let (one, other) = (new(), new());

        assert_ne!(one.state, other.state);
        assert_ne!(one.verifier.expose(), other.verifier.expose());
        assert_eq!(one.verifier.expose().len(), 43);
    }

    #[test]
    fn a_code_is_read_from_an_address_a_query_and_a_pasted_text() {
        for answer in [
            "http://127.0.0.1:4321/callback?code=abc&state=st-1",
            "/callback?state=st-1&code=abc",
            "code=abc&state=st-1",
            " abc#st-1\n",
            "abc",
        ] {
            assert_eq!(code(answer).as_deref(), Ok("abc"), "{answer}");
        }
    }

    #[test]
    fn an_answer_of_another_login_is_rejected() {
        for answer in
            ["/callback?code=abc&state=other", "/callback?code=abc", "abc#other", "/?error=access_denied"]
        {
            assert_eq!(code(answer), Err(AuthorizationError::State), "{answer}");
        }
    }

    #[test]
    fn a_refusal_has_its_code_but_no_other_text() {
        let denied = |answer| code(answer).unwrap_err().to_string();

        assert!(denied("/?error=access_denied&state=st-1").ends_with(": access_denied"));
        assert!(denied("/?error=n33dle+TEXT&state=st-1").ends_with(": unknown error"));
    }

    #[test]
    fn an_answer_without_a_code_is_rejected() {
        for answer in ["", "a b", "/callback?state=st-1", "#st-1"] {
            assert_eq!(code(answer), Err(AuthorizationError::NoCode), "{answer}");
        }
    }

    #[test]
    fn debug_shows_neither_the_state_nor_the_verifier() {
        let shown = format!("{:?}", started());

        assert!(!shown.contains("st-1") && !shown.contains("dBjft"), "{shown}");
    }
}
