//! The parsers of Anthropic and Codex, compared with reading the same bytes as JSON.

use std::hint::black_box;

use quota_http::find_provider;
use serde_json::Value;

use super::headers::NOW;
use crate::measure::interleaved;
use crate::row::Row;

const ITERATIONS: usize = 4_000;

const BODIES: [(&str, &str); 2] =
    [("anthropic", include_str!("bodies/anthropic.json")), ("codex", include_str!("bodies/codex.json"))];

pub(super) fn rows() -> Vec<Row> {
    BODIES.into_iter().map(|(name, body)| row(name, body.as_bytes())).collect()
}

fn row(name: &str, body: &[u8]) -> Row {
    let provider = find_provider(name).expect("the provider is known");
    let parsed = provider.parse(body, NOW).expect("the body has usage");
    assert!(parsed.skipped.len() <= 1, "{:?}", parsed.skipped);
    let [ours, json] = interleaved(
        1,
        ITERATIONS,
        [&|range| range.for_each(|_| drop(black_box(provider.parse(black_box(body), NOW)))), &|range| {
            range.for_each(|_| drop(black_box(serde_json::from_slice::<Value>(black_box(body)))))
        }],
    );
    Row::at_most(&format!("parse.{name}"), (ours, "ns"), ("serde_json::from_slice::<Value>", json), 1.0)
}
