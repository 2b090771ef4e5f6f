//! Checks that no input makes a parser panic, or report a usage that the input does not contain.

use jiff::Timestamp;
use proptest::prelude::*;
use quota_core::ProviderId;
use quota_core::provider::ResponseMeta;
use quota_http::anthropic::{
    parse_claude_json, parse_headers, parse_profile, parse_rate_limit_event, parse_statusline, parse_usage,
};
use quota_http::{inspect_response, parse_response};
use serde_json::{Map, Value, json};

/// The field names that the parsers know, except those of usages.
const NAMES: [&str; 30] = [
    "five_hour",
    "seven_day",
    "seven_day_opus",
    "seven_day_",
    "seven_day_breakdown",
    "tangelo",
    "limits",
    "kind",
    "group",
    "scope",
    "model",
    "surface",
    "display_name",
    "resets_at",
    "resetsAt",
    "spend",
    "extra_usage",
    "cap",
    "money",
    "amount_minor",
    "exponent",
    "currency",
    "used_credits",
    "decimal_places",
    "rate_limits",
    "cachedUsageUtilization",
    "fetchedAtMs",
    "rate_limit_info",
    "unifiedWindows",
    "error",
];
const USES: [&str; 3] = ["utilization", "percent", "used_percentage"];
const WORDS: [&str; 12] = [
    "session",
    "weekly_all",
    "weekly_scoped",
    "rate_limit_event",
    "rejected",
    "Opus",
    "",
    "NaN",
    "1e308",
    "-0.1",
    "2026-07-01T12:00:00",
    "\u{1b}[2J",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0.0..200.0).prop_map(Value::from),
        prop::sample::select(&WORDS[..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

/// A document that resembles real ones.
fn document(names: Vec<&'static str>) -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 64, 8, move |inner| {
        let name = prop_oneof![9 => prop::sample::select(names.clone()).prop_map(String::from), 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..8).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn run_all_parsers(bytes: &[u8]) {
    let at = Timestamp::UNIX_EPOCH;
    let _ = parse_usage(bytes);
    let _ = parse_profile(bytes);
    let _ = parse_claude_json(bytes);
    let _ = parse_statusline(bytes, at);
    let _ = parse_rate_limit_event(bytes, at);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
        run_all_parsers(&bytes);
    }

    #[test]
    fn no_document_panics(document in document([&NAMES[..], &USES].concat())) {
        run_all_parsers(document.to_string().as_bytes());
        let line = json!({ "type": "rate_limit_event", "rate_limit_info": document, "rate_limits": document });
        run_all_parsers(line.to_string().as_bytes());
        let file = json!({ "cachedUsageUtilization": { "fetchedAtMs": 1, "utilization": document } });
        run_all_parsers(file.to_string().as_bytes());
    }

    #[test]
    fn a_document_without_usage_has_no_window(document in document(NAMES.to_vec())) {
        let at = Timestamp::UNIX_EPOCH;
        let line = json!({ "type": "rate_limit_event", "rate_limit_info": document, "rate_limits": document });
        let (body, line) = (document.to_string(), line.to_string());

        let parsed = [
            parse_usage(body.as_bytes()),
            parse_statusline(line.as_bytes(), at),
            parse_rate_limit_event(line.as_bytes(), at),
        ];

        for parsed in parsed.into_iter().flatten() {
            prop_assert!(parsed.usage.windows.is_empty());
        }
    }

    #[test]
    fn an_invalid_window_never_affects_a_valid_one(document in document([&NAMES[..], &USES].concat())) {
        let body = json!({ "five_hour": { "utilization": 12.5 }, "seven_day": document });

        let parsed = parse_usage(body.to_string().as_bytes()).unwrap();

        let five_hour = parsed.usage.windows.iter().find(|window| window.id.as_str() == "five_hour");
        prop_assert_eq!(five_hour.unwrap().used.basis_points(), 1250);
    }

    #[test]
    fn no_headers_panic(
        status in any::<Option<u16>>(),
        headers in prop::collection::vec((header_name(), any::<String>()), 0..12),
    ) {
        let _ = parse_headers(status, headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }

    #[test]
    fn headers_without_usage_have_no_window(
        headers in prop::collection::vec((header_name(), "[0-9.a-z_-]{0,12}"), 0..12),
    ) {
        let is_usage = |name: &str| name.ends_with("-utilization") || name.ends_with("-remaining");
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));

        let parsed = parse_headers(None, headers.filter(|(name, _)| !is_usage(name)));

        prop_assert!(parsed.usage.windows.is_empty());
    }

    #[test]
    fn no_response_panics(
        status in 0_u16..=999,
        headers in prop::collection::vec((any_header_name(), header_value()), 0..24),
        body in any::<Vec<u8>>(),
    ) {
        for provider in PROVIDERS {
            let provider = ProviderId::from_static(provider);
            let response = ResponseMeta::new(status, &headers, Timestamp::UNIX_EPOCH).body(&body);

            let parsed = parse_response(&provider, &response);

            prop_assert!(parsed.usage.windows.iter().all(|window| window.used.as_f64() <= 1000.0));
            prop_assert_eq!(parsed.failure.is_some(), status >= 400);
        }
    }

    #[test]
    fn a_response_has_at_most_the_windows_that_its_headers_name(
        headers in prop::collection::vec((any_header_name(), header_value()), 0..24),
    ) {
        let is_usage = |name: &str| {
            ["-utilization", "-used-percent", "remaining"].iter().any(|part| name.contains(part))
        };
        let members = |(name, value): &(String, String)| match name.to_ascii_lowercase().as_str() {
            "ratelimit" => value.split(',').count(),
            name => usize::from(is_usage(name) || name.contains("remaining")),
        };
        let named: usize = headers.iter().map(members).sum();
        for provider in PROVIDERS {
            let response = ResponseMeta::new(200, &headers, Timestamp::UNIX_EPOCH);
            let (parsed, _) = inspect_response(&ProviderId::from_static(provider), &response);

            prop_assert!(parsed.usage.windows.len() <= named, "{:?}", parsed.usage.windows);
        }
    }

    #[test]
    fn arbitrary_siblings_leave_a_good_window(
        headers in prop::collection::vec((any_header_name(), header_value()), 0..24),
    ) {
        let good = [
            ("anthropic", "anthropic-ratelimit-unified-9d-utilization", "0.25", "9d"),
            ("openai", "x-kept-primary-used-percent", "25", "kept"),
            ("other", "ratelimit", r#""kept";q=4;r=3"#, "kept"),
        ];
        for (provider, name, value, id) in good {
            let mut headers = headers.clone();
            headers.retain(|(other, _)| other != name);
            headers.insert(headers.len() / 2, (name.to_owned(), value.to_owned()));
            let response = ResponseMeta::new(200, &headers, Timestamp::UNIX_EPOCH);

            let windows = parse_response(&ProviderId::from_static(provider), &response).usage.windows;

            let window = windows.iter().find(|window| window.id.as_str() == id);
            prop_assert_eq!(window.map(|window| window.used.basis_points()), Some(2500), "{}", provider);
        }
    }
}

/// Two with headers of their own, and one without.
const PROVIDERS: [&str; 3] = ["anthropic", "openai", "other"];

fn any_header_name() -> impl Strategy<Value = String> {
    prop_oneof![
        header_name(),
        "(?i)x-(codex|codex-fast|night)-(primary|secondary)-(used-percent|window-minutes|reset-at|reset-after-seconds)",
        "x-(codex|night)-(limit-name|active-limit)",
        "(?i)x-ratelimit-(limit|remaining|reset)(-(requests|tokens|[a-z-]{0,5}))?",
        "(?i)ratelimit(-policy|-limit|-remaining|-reset)?",
        "retry-after(-ms)?|server|content-type|cf-mitigated",
    ]
}

fn header_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,13}(\\.[0-9]{1,3})?",
        "(allowed|rejected|allowed_warning|five_hour|codex_fast|night|cloudflare|text/html)",
        "[0-9]{1,3}(h|m|s|ms|us)([0-9]{1,2}s)?",
        r#"("[a-z]{1,3}"(;(q|r|t|w)=[0-9]{1,4}){0,3},? ?){1,3}"#,
        ".{0,20}",
    ]
}

fn header_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "anthropic-ratelimit-unified-(5h|7d|7d_oi|overage|[a-z0-9_-]{0,5})-(utilization|status|reset|[a-z-]{0,5})",
        "anthropic-ratelimit-(requests|tokens|[a-z-]{0,8})-(limit|remaining|reset)",
        "anthropic-ratelimit-unified-(status|reset|representative-claim|fallback)",
        "retry-after(-ms)?|date|anthropic-organization-id",
        any::<String>(),
    ]
}
