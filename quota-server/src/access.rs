//! Authorization of clients: the roles, and the tokens that grant them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The permissions of a client. Each role includes the previous ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read usage.
    Read,
    /// Also choose accounts for requests, and report their responses.
    Route,
    /// Also refresh accounts.
    Operate,
}

impl Role {
    const ALL: [(&'static str, Self); 3] =
        [("read", Self::Read), ("route", Self::Route), ("operate", Self::Operate)];
}

/// The tokens of the gateway, each with its role.
///
/// Without tokens, each client that can connect has all roles.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccessTokens(Vec<(Role, [u8; 32])>);

impl AccessTokens {
    /// The minimum length of a token. A shorter one could be guessed.
    const MIN_LENGTH: usize = 16;

    /// Parses a file with one `ROLE TOKEN` per line. Empty lines and lines that begin with `#` are ignored.
    ///
    /// ```
    /// use quota_server::AccessTokens;
    ///
    /// let tokens = AccessTokens::parse("# the dashboard\nread 3f6d0c5b8a7e4921\n")?;
    /// assert!(!tokens.is_open());
    /// # Ok::<(), quota_server::InvalidTokens>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidTokens`] with the number of the line. It never repeats the line, which may contain a token.
    pub fn parse(text: &str) -> Result<Self, InvalidTokens> {
        let mut tokens = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |reason| InvalidTokens { line: Some(at + 1), reason };
            let (role, token) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let role = Role::ALL.iter().find(|(name, _)| *name == role);
            let (_, role) = role.ok_or(invalid("expected read, route or operate, and a token"))?;
            let token = token.trim();
            if token.len() < Self::MIN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(invalid("a token has at least 16 printable ASCII characters and no spaces"));
            }
            tokens.push((*role, digest(token)));
        }
        if tokens.is_empty() {
            return Err(InvalidTokens { line: None, reason: "it has no token" });
        }
        Ok(Self(tokens))
    }

    /// Whether there are no tokens, so that each client has all roles.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// The role of a client that presents this token.
    pub(crate) fn role(&self, presented: Option<&str>) -> Option<Role> {
        if self.is_open() {
            return Some(Role::Operate);
        }
        let presented = digest(presented?);
        // Compare all tokens, so that the time reveals neither a similar token nor their number.
        let mut found = None;
        for (role, token) in &self.0 {
            if bool::from(token.ct_eq(&presented)) {
                found = found.max(Some(*role));
            }
        }
        found
    }
}

/// Hides the digests.
impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessTokens({})", self.0.len())
    }
}

/// The password of Basic authentication (RFC 7617), which a browser sends only to this scheme, host and port. A browser
/// would send a cookie to every port of the host.
pub(crate) fn password(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, credentials) = value.to_str().ok()?.trim().split_once(' ')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let decoded = STANDARD.decode(credentials.trim()).ok().filter(|_| is_basic)?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

/// The hash by which tokens and credentials are compared.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Why a token file is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
pub struct InvalidTokens {
    line: Option<usize>,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "0123456789abcdef";
    const OPERATE: &str = "fedcba9876543210";

    #[test]
    fn a_token_grants_the_role_of_its_line() {
        let tokens = AccessTokens::parse(&format!("# two\n\nread {READ}\r\n  operate\t{OPERATE} ")).unwrap();

        assert_eq!(tokens.role(Some(READ)), Some(Role::Read));
        assert_eq!(tokens.role(Some(OPERATE)), Some(Role::Operate));
        for wrong in ["", "0123456789abcde", "0123456789abcdefg", "read"] {
            assert_eq!(tokens.role(Some(wrong)), None);
        }
        assert_eq!(tokens.role(None), None);
    }

    #[test]
    fn without_tokens_each_client_has_all_roles() {
        assert_eq!(AccessTokens::default().role(None), Some(Role::Operate));
    }

    #[test]
    fn roles_include_the_ones_before() {
        assert!(Role::Operate > Role::Route && Role::Route > Role::Read);
    }

    #[test]
    fn an_invalid_line_is_named_but_not_repeated() {
        for (text, line) in [("read short", 1), ("\nadmin 0123456789abcdef", 2), ("0123456789abcdef", 1)] {
            let error = AccessTokens::parse(text).unwrap_err().to_string();

            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(!error.contains("0123456789") && !error.contains("short"), "{error}");
        }
        assert_eq!(AccessTokens::parse("# none\n").unwrap_err().to_string(), "it has no token");
    }

    #[test]
    fn debug_output_has_no_token() {
        let tokens = AccessTokens::parse(&format!("read {READ}")).unwrap();

        assert_eq!(format!("{tokens:?}"), "AccessTokens(1)");
    }
}
