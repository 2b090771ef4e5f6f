//! The files that Codex and Claude Code write on this machine with their usage: session files, the state file, and lines of output.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use quota_http::{Parsed, anthropic, codex};

fuzz_target!(|file: &[u8]| {
    let now = Timestamp::constant(1_782_907_200, 0);
    let first_line = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let _ = codex::parse_session_start(first_line);
    let sessions = codex::parse_session(file);
    let lines = file.split(|byte| *byte == b'\n').count();
    assert!(sessions.len() <= lines, "each reading has an event of its own");
    for parsed in &sessions {
        check(parsed);
        assert!(!parsed.usage.is_empty(), "an event without usage is no reading");
        // Each event has two slots.
        assert!(parsed.usage.windows.len() <= 2);
    }
    if let Ok(cached) = anthropic::parse_claude_json(file) {
        check(&cached.parsed);
    }
    for parsed in [anthropic::parse_statusline(file, now), anthropic::parse_rate_limit_event(file, now)] {
        if let Ok(parsed) = parsed {
            check(&parsed);
        }
    }
});

fn check(parsed: &Parsed) {
    assert!(parsed.usage.observed_at.is_some(), "a local reading has a time");
    assert!(parsed.usage.windows.len() <= 128);
    assert!(parsed.usage.windows.iter().all(|window| window.used.as_f64() <= 1000.0));
    assert!(parsed.skipped.iter().all(|skipped| skipped.field.len() <= 96));
}
