//! The parsers of all providers, for usage responses and for saved documents.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use quota_http::{PROVIDERS, Parsed};

fuzz_target!(|body: &[u8]| {
    let now = Timestamp::constant(1_782_907_200, 0);
    for provider in PROVIDERS {
        if let Ok(parsed) = provider.parse(body, now) {
            check(&parsed);
        }
        if let Ok(saved) = provider.parse_saved(body, now) {
            check(&saved.parsed);
        }
    }
});

fn check(parsed: &Parsed) {
    assert!(parsed.usage.windows.len() <= 128);
    assert!(parsed.skipped.iter().all(|skipped| skipped.field.len() <= 96));
    for window in &parsed.usage.windows {
        assert!(window.used.as_f64() <= 1000.0);
    }
}
