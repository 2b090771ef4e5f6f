//! Taking a token out of text, and telling it from the next one.
//! Where the text comes from is the sources' business.

use quota_core::{Credential, CredentialFingerprint, LoginInfo, Secret};
use secrecy::zeroize::Zeroizing;

use crate::hash;

/// The text is there and cannot be a token. It is not repeated: it may be one that was pasted badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one word of printable ASCII characters")]
pub(crate) struct NotAToken;

/// Takes the token out of `text`, without the white space around it; `None` if there is nothing else.
pub(crate) fn take(text: &str) -> Result<Option<Secret>, NotAToken> {
    let token = text.trim();
    if token.is_empty() {
        return Ok(None);
    }
    // Anything else could not be sent in a header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(NotAToken);
    }
    Ok(Some(Secret::new(token)))
}

/// A credential with its mark, of which nothing else is known.
pub(crate) fn credential(secret: Secret) -> Credential {
    let login = LoginInfo::unknown().mark(mark(&secret));
    Credential::new(secret).login(login)
}

/// Tells a token from the next one.
pub(crate) fn mark(secret: &Secret) -> CredentialFingerprint {
    let text = Zeroizing::new([b"quota-mark\0", secret.expose().as_bytes()].concat());
    CredentialFingerprint::from_hash(hash::first_64_bits(&text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(text: &str) -> Result<Option<String>, NotAToken> {
        Ok(take(text)?.map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn white_space_around_a_token_is_not_part_of_it() {
        assert_eq!(taken("\r\n  sk-ant-oat01-abc \n"), Ok(Some("sk-ant-oat01-abc".to_owned())));
    }

    #[test]
    fn white_space_alone_is_no_token() {
        assert_eq!(taken(" \r\n\t"), Ok(None));
    }

    #[test]
    fn two_lines_are_not_one_token() {
        assert_eq!(taken("sk-ant-oat01-abc\nsk-ant-oat01-def"), Err(NotAToken));
    }

    #[test]
    fn what_no_header_can_carry_is_not_a_token() {
        for text in ["sk ant", "sk\0ant", "sk\u{1b}[31m", "schlüssel", "“sk-ant”"] {
            assert_eq!(taken(text), Err(NotAToken), "{text:?}");
        }
    }

    #[test]
    fn a_mark_is_the_first_half_of_a_hash_with_a_label() {
        // printf 'quota-mark\0sk-ant-oat01-abc' | sha256sum | cut -c1-16
        assert_eq!(mark(&Secret::new("sk-ant-oat01-abc")).to_string(), "014d76487ec9bfb7");
    }

    #[test]
    fn another_token_has_another_mark() {
        assert_ne!(mark(&Secret::new("sk-ant-oat01-abc")), mark(&Secret::new("sk-ant-oat01-abd")));
    }

    proptest! {
        #[test]
        fn a_token_that_is_taken_can_be_sent(text in any::<String>()) {
            if let Ok(Some(secret)) = take(&text) {
                prop_assert!(!secret.expose().is_empty());
                prop_assert!(secret.expose().bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            }
        }
    }
}
