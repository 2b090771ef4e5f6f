//! Reading what a JSON Web Token says of itself (RFC 7519).
//! Its signature is not checked: it comes from the provider over TLS, and nothing is opened by what it says.

use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};

/// What the token says; `None` if it is not one.
pub(crate) fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&decoded(claims)?).ok()
}

/// Undoes base64 in its form for URLs, without padding (RFC 4648, section 5).
fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut kept) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        kept += 6;
        if kept >= 8 {
            kept -= 8;
            bytes.push((bits >> kept & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_are_the_middle_part() {
        // printf '{"exp":1800000000}' | basenc --base64url
        let claims = claims("e30.eyJleHAiOjE4MDAwMDAwMDB9.sig").unwrap();

        assert_eq!(claims["exp"], 1_800_000_000);
    }

    #[test]
    fn every_byte_is_decoded() {
        assert_eq!(*decoded("AP_-fw").unwrap(), [0, 255, 254, 127]);
        assert!(decoded("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_such_token_says_nothing() {
        for text in ["", "abc", "a.b", "e30.e30", "e30.!.x", "e30.bm8.x", "e30.e30.x.y", "e30.W10.x"] {
            assert_eq!(claims(text), None, "{text}");
        }
    }
}
