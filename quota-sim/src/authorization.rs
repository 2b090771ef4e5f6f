//! The authorization codes of first logins (RFC 6749, section 4.1, with PKCE). This module reads no clock. `wire::token` parses the
//! requests.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::clock::SimTime;

/// How long a code is valid.
const CODE_TTL: Duration = Duration::from_secs(600);

/// The codes that were issued.
#[derive(Debug, Default)]
pub(crate) struct Codes(Vec<Code>);

#[derive(Debug)]
struct Code {
    account: usize,
    redirect_uri: String,
    challenge: String,
    expires_at: SimTime,
    is_used: bool,
}

/// Why a code is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidCode;

impl Codes {
    /// Issues a code for an account.
    pub(crate) fn issue(
        &mut self,
        account: usize,
        redirect_uri: String,
        challenge: String,
        now: SimTime,
    ) -> String {
        let expires_at = now + CODE_TTL;
        self.0.push(Code { account, redirect_uri, challenge, expires_at, is_used: false });
        format!("sim-code-{}", self.0.len())
    }

    /// Uses a code, once. Returns its account.
    pub(crate) fn redeem(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: SimTime,
    ) -> Result<usize, InvalidCode> {
        let number = code.strip_prefix("sim-code-").and_then(|number| number.parse::<usize>().ok());
        let index = number.and_then(|number| number.checked_sub(1)).ok_or(InvalidCode)?;
        let code = self.0.get_mut(index).ok_or(InvalidCode)?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let is_valid = !code.is_used
            && now < code.expires_at
            && code.redirect_uri == redirect_uri
            && code.challenge == challenge;
        // A failed attempt also ends the code.
        code.is_used = true;
        if is_valid { Ok(code.account) } else { Err(InvalidCode) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const REDIRECT: &str = "http://127.0.0.1:1/callback";

    fn issued() -> Codes {
        let mut codes = Codes::default();
        codes.issue(3, REDIRECT.to_owned(), CHALLENGE.to_owned(), SimTime::START);
        codes
    }

    #[test]
    fn a_code_works_once() {
        let mut codes = issued();

        assert_eq!(codes.redeem("sim-code-1", REDIRECT, VERIFIER, SimTime::START), Ok(3));
        assert_eq!(codes.redeem("sim-code-1", REDIRECT, VERIFIER, SimTime::START), Err(InvalidCode));
    }

    #[test]
    fn a_wrong_verifier_or_redirect_or_a_late_request_is_rejected() {
        for (code, redirect, verifier, now) in [
            ("sim-code-1", REDIRECT, "wrong", SimTime::START),
            ("sim-code-1", "http://127.0.0.1:2/callback", VERIFIER, SimTime::START),
            ("sim-code-1", REDIRECT, VERIFIER, SimTime::START + CODE_TTL),
            ("sim-code-2", REDIRECT, VERIFIER, SimTime::START),
            ("sim-code-0", REDIRECT, VERIFIER, SimTime::START),
        ] {
            assert_eq!(issued().redeem(code, redirect, verifier, now), Err(InvalidCode), "{code} {verifier}");
        }
    }
}
