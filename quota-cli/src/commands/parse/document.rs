//! Parses a saved document of a provider: a usage response, or another document with usage.

use quota::Clock;
use quota::http::Provider;

use super::report::ParseReport;

/// Parses a document. The provider's parser detects its kind.
///
/// # Errors
///
/// Why the input cannot be parsed. The error repeats no content of the input.
pub(super) fn read(provider: &Provider, bytes: &[u8]) -> Result<ParseReport, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("the file is empty".to_owned());
    }
    let now = Clock::system().now();
    let document = provider.parse_saved(bytes, now).map_err(|error| {
        let hint =
            if looks_like_headers(bytes) { "; if the file contains headers, add --headers" } else { "" };
        format!("{error}{hint}")
    })?;
    let usage = document.parsed.usage;
    // The parser has checked a document that states its time.
    let observed_at = usage.observed_at.filter(|at| *at != now);
    let is_undated = observed_at.is_none();
    let ignored = document.parsed.skipped.into_iter().map(|one| (one.field, one.reason)).collect();
    let report =
        ParseReport { user: document.user, observed_at, ignored, ..ParseReport::new(document.kind, usage) };
    Ok(if is_undated { report.without_implausible(now) } else { report })
}

fn looks_like_headers(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    line.starts_with(b"HTTP/") || (name.len() < line.len() && !name.is_empty() && name.iter().all(is_name))
}
