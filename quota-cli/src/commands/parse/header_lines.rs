//! Parses header lines as `curl -i` saves them.

use quota::Clock;
use quota::http::{Provider, inspect_response};
use quota::provider::ResponseMeta;

use super::report::ParseReport;

/// Parses header lines up to the first empty line.
///
/// # Errors
///
/// The number of the malformed line. The error repeats no content of the line.
pub(super) fn read(provider: &Provider, bytes: &[u8]) -> Result<ParseReport, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start_matches(['\r', '\n']);
    let mut lines = text.lines().enumerate().take_while(|(_, line)| !line.trim().is_empty()).peekable();
    let status = lines.peek().and_then(|(_, line)| status(line));
    if status.is_some() {
        lines.next();
    }
    let mut headers = Vec::new();
    for (at, line) in lines {
        let header = header(line).ok_or_else(|| {
            let expected = if at == 0 { "a status line such as HTTP/2 429 or " } else { "" };
            format!("line {}: expected {expected}a header such as `name: value`", at + 1)
        })?;
        headers.push(header);
    }
    if headers.is_empty() && status.is_none() {
        return Err("no headers found".to_owned());
    }
    let now = Clock::system().now();
    let headers: Vec<_> =
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Without a status, treat a wait in the headers as that of a rejected request.
    let response = ResponseMeta::new(status.unwrap_or(429), &headers, now);
    let (parsed, skipped) = inspect_response(&provider.id(), &response);
    let ignored = skipped.into_iter().map(|one| (one.field, one.reason)).collect();
    let retry_after = parsed.failure.and_then(|failure| failure.retry_after);
    let report = ParseReport { retry_after, ignored, ..ParseReport::new("headers", parsed.usage) };
    Ok(report.without_implausible(now))
}

/// The status of `HTTP/2 429` or `HTTP/1.1 429 Too Many Requests`.
fn status(line: &str) -> Option<u16> {
    let mut words = line.strip_prefix("HTTP/")?.split_ascii_whitespace();
    let version = words.next()?;
    let is_version = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let status = words.next()?.parse().ok()?;
    (is_version && (100..600).contains(&status)).then_some(status)
}

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_name)).then(|| (name, value.trim()))
}
