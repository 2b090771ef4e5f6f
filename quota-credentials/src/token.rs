//! Tokens as text, and the hashes that identify tokens, logins and owners without revealing them.

use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{Credential, CredentialError, Secret};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

/// The text cannot be a token. The error does not repeat it, because it may be a mistyped token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one word of printable ASCII characters")]
pub(crate) struct InvalidToken;

/// Parses a token, ignoring white space around it; `None` if the text is blank.
pub(crate) fn parse(text: &[u8]) -> Result<Option<Credential>, InvalidToken> {
    let token = std::str::from_utf8(text).map_err(|_| InvalidToken)?.trim();
    if token.is_empty() {
        return Ok(None);
    }
    // Other characters are not valid in an HTTP header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidToken);
    }
    Ok(Some(credential(Secret::new(token))))
}

/// Parses a token. Reports a blank or an invalid text with these messages.
pub(crate) fn require(
    text: &[u8],
    blank: impl FnOnce() -> String,
    invalid: impl FnOnce() -> String,
) -> Result<Credential, CredentialError> {
    match parse(text) {
        Ok(Some(credential)) => Ok(credential),
        Ok(None) => Err(CredentialError::not_logged_in(blank())),
        Err(error) => Err(CredentialError::unreadable(invalid(), error)),
    }
}

/// A credential with only a secret and its fingerprint.
pub(crate) fn credential(secret: Secret) -> Credential {
    let login = LoginInfo::unknown().fingerprint(fingerprint(&secret));
    Credential::new(secret).login(login)
}

/// The fingerprint of a token.
pub(crate) fn fingerprint(secret: &Secret) -> CredentialFingerprint {
    let text = Zeroizing::new([b"quota-fingerprint\0", secret.expose().as_bytes()].concat());
    CredentialFingerprint::from_hash(sha256_prefix_u64(&text))
}

/// The login id for these parts. It reveals only their hash.
pub(crate) fn login_id(parts: &[&str]) -> LoginId {
    LoginId::new(&format!("{:016x}", sha256_prefix_u64(parts.join("\0").as_bytes())))
}

/// The first 64 bits of SHA-256.
pub(crate) fn sha256_prefix_u64(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(*digest.first_chunk().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token_in(text: &str) -> Result<Option<String>, InvalidToken> {
        Ok(parse(text.as_bytes())?.map(|credential| credential.secret.expose().to_owned()))
    }

    #[test]
    fn white_space_around_a_token_is_ignored() {
        assert_eq!(token_in("\r\n  sk-ant-oat01-abc \n"), Ok(Some("sk-ant-oat01-abc".to_owned())));
    }

    #[test]
    fn white_space_alone_is_not_a_token() {
        assert_eq!(token_in(" \r\n\t"), Ok(None));
    }

    #[test]
    fn two_lines_are_invalid() {
        assert_eq!(token_in("sk-ant-oat01-abc\nsk-ant-oat01-def"), Err(InvalidToken));
    }

    #[test]
    fn characters_that_are_invalid_in_a_header_are_rejected() {
        for text in ["sk ant", "sk\0ant", "sk\u{1b}[31m", "schlüssel", "“sk-ant”"] {
            assert_eq!(token_in(text), Err(InvalidToken), "{text:?}");
        }
        assert_eq!(parse(b"sk\xff").unwrap_err(), InvalidToken);
    }

    #[test]
    fn a_fingerprint_is_the_start_of_a_labeled_hash() {
        // printf 'quota-fingerprint\0sk-ant-oat01-abc' | sha256sum | cut -c1-16
        assert_eq!(fingerprint(&Secret::new("sk-ant-oat01-abc")).to_string(), "6facec74f1f4218f");
    }

    #[test]
    fn different_tokens_have_different_fingerprints() {
        assert_ne!(
            fingerprint(&Secret::new("sk-ant-oat01-abc")),
            fingerprint(&Secret::new("sk-ant-oat01-abd"))
        );
    }

    #[test]
    fn the_hash_matches_the_example_of_the_standard() {
        // FIPS 180-2, the example for "abc": ba7816bf 8f01cfea …
        assert_eq!(sha256_prefix_u64(b"abc"), 0xba78_16bf_8f01_cfea);
    }

    proptest! {
        #[test]
        fn a_parsed_token_fits_into_a_header(text in any::<String>()) {
            if let Ok(Some(credential)) = parse(text.as_bytes()) {
                let secret = credential.secret.expose();
                prop_assert!(!secret.is_empty());
                prop_assert!(secret.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            }
        }
    }
}
