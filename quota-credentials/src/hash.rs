//! The one hash of this crate: short names for things that must not be shown.
//! What is hashed, and what the name is for, is decided where it is used.

use sha2::{Digest, Sha256};

/// The first 64 bits of SHA-256 over `text`.
pub(crate) fn first_64_bits(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text);
    u64::from_be_bytes(*digest.first_chunk().expect("a SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bits_are_the_first_digits_of_the_well_known_hash() {
        // FIPS 180-2, the example for "abc": ba7816bf 8f01cfea …
        assert_eq!(first_64_bits(b"abc"), 0xba78_16bf_8f01_cfea);
    }
}
