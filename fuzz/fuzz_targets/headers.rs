//! The headers and the failure bodies of ordinary responses. The input is a status, header lines, an empty line, and a body.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use quota_core::ProviderId;
use quota_core::provider::ResponseMeta;
use quota_http::{inspect_response, parse_response};

fuzz_target!(|input: &[u8]| {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((input, &[][..]), |end| (&input[..end], &input[end + 2..]));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(429);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    for provider in ["anthropic", "openai", "antigravity", "other"] {
        let provider = ProviderId::from_static(provider);
        let response = ResponseMeta::new(status, &headers, Timestamp::constant(1_782_907_200, 0)).body(body);

        let parsed = parse_response(&provider, &response);
        let _ = inspect_response(&provider, &response);

        assert!(parsed.usage.windows.len() <= headers.len() + body.len());
        assert!(parsed.usage.windows.iter().all(|window| window.used.as_f64() <= 1000.0));
        assert_eq!(parsed.failure.is_some(), status >= 400);
    }
});
