//! Reads the claims of a JSON Web Token (RFC 7519).
//! The signature is not verified: the token comes from the provider over TLS, and its claims grant nothing.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};

/// Returns the claims of `token`; `None` if it is not a JSON Web Token (RFC 7519). The signature is not verified.
#[must_use]
pub fn token_claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&decode(claims)?).ok()
}

/// URL-safe base64 (RFC 4648, section 5). Tokens have no padding, but some issuers add it.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // Reserve the full capacity, because growing would leave a copy that is not zeroized.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    BASE64URL.decode_vec(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_from_the_middle_part() {
        // printf '{"exp":1800000000}' | basenc --base64url
        let claims = token_claims("e30.eyJleHAiOjE4MDAwMDAwMDB9.sig").unwrap();

        assert_eq!(claims["exp"], 1_800_000_000);
    }

    #[test]
    fn every_byte_is_decoded() {
        assert_eq!(*decode("AP_-fw").unwrap(), [0, 255, 254, 127]);
        assert!(decode("").unwrap().is_empty());
    }

    #[test]
    fn text_that_is_not_a_token_has_no_claims() {
        for text in ["", "abc", "a.b", "e30.e30", "e30.!.x", "e30.bm8.x", "e30.e30.x.y", "e30.W10.x"] {
            assert_eq!(token_claims(text), None, "{text}");
        }
    }
}
