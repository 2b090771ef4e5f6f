//! `quota parse`: the usage in saved responses, and the errors for other input.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Ended, Machine, argument};

fn parse(contents: impl AsRef<[u8]>, options: &[&str]) -> Ended {
    let machine = Machine::new();
    let file = machine.write("saved", contents);
    machine.run(&[&["parse", "anthropic"], options, &[argument(&file)]].concat())
}

fn parse_json(contents: &str, options: &[&str]) -> Value {
    let ended = parse(contents, options);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.json()
}

/// The error for malformed input, without the file name.
fn parse_error(contents: impl AsRef<[u8]>, options: &[&str]) -> String {
    let ended = parse(contents, options);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(65), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let (_, message) = ended.stderr.trim_end().split_once("saved: ").unwrap();
    message.to_owned()
}

#[test]
fn a_usage_response_is_parsed() {
    let body = r#"{
        "five_hour": { "utilization": 61.5, "resets_at": "2021-03-04T10:00:00.5+00:00" },
        "limits": [{ "kind": "weekly_scoped", "percent": 7, "resets_at": null,
            "scope": { "model": { "display_name": "Fable" }, "surface": null } }],
        "extra_usage": { "is_enabled": true, "used_credits": 1234, "currency": "EUR" },
        "something_new": true
    }"#;

    let document = parse_json(body, &[]);

    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
}

#[test]
fn each_kind_is_detected_by_its_keys() {
    let window = r#"{"utilization":1}"#;
    let kinds = [
        format!(r#"{{"five_hour":{window}}}"#),
        r#"{"account":{"uuid":"user-1"},"organization":{"uuid":"org-1"}}"#.to_owned(),
        format!(
            r#"{{"projects":{{}},"cachedUsageUtilization":{{"fetchedAtMs":1900000000000,"utilization":{{"five_hour":{window}}}}}}}"#
        ),
        r#"{"session_id":"x","rate_limits":{"five_hour":{"used_percentage":2}}}"#.to_owned(),
        r#"{"type":"rate_limit_event","rate_limit_info":{"unifiedWindows":{"five_hour":{"utilization":0.5}}}}"#.to_owned(),
    ]
    .map(|body| parse_json(&body, &[])["kind"].take());

    assert_eq!(kinds, ["usage", "profile", "claude_json", "statusline", "rate_limit_event"]);
}

#[test]
fn a_window_with_only_a_status_has_no_percentage() {
    let headers =
        "HTTP/2 429\r\nanthropic-ratelimit-unified-5h-status: rejected\r\nretry-after: 60\r\n\r\nbody";

    let document = parse_json(headers, &["--headers"]);

    let window = &document["windows"][0];
    assert_eq!((&window["used_percent"], &window["status"]), (&Value::Null, &json!("rejected")));
    assert_eq!(document["retry_after_seconds"], 60.0);
}

#[test]
fn an_unreadable_window_has_no_percentage() {
    let document = parse_json(r#"{"five_hour":{"utilization":"a lot"},"seven_day":{"utilization":3}}"#, &[]);

    let windows: Vec<_> = document["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["id"], &one["used_percent"]))
        .collect();
    assert_eq!(windows, [(&json!("seven_day"), &json!(3.0)), (&json!("five_hour"), &Value::Null)]);
}

#[test]
fn a_saved_document_may_be_older_than_its_resets() {
    let documents = [
        r#"{"rate_limits":{"five_hour":{"used_percentage":50,"resets_at":1600000000}}}"#,
        r#"{"type":"rate_limit_event","rate_limit_info":
            {"unifiedWindows":{"five_hour":{"utilization":0.5,"resetsAt":1600000000}}}}"#,
        r#"{"five_hour":{"utilization":50,"resets_at":1600000000}}"#,
    ];
    for document in documents {
        let parsed = parse_json(document, &[]);

        let window = &parsed["windows"][0];
        let read = (&window["used_percent"], &window["resets_at"]);
        assert_eq!(read, (&json!(50.0), &json!("2020-09-13T12:26:40Z")), "{document}");
    }
}

#[test]
fn a_percentage_above_100_is_not_capped() {
    let document = parse_json("anthropic-ratelimit-unified-7d-utilization: 1.01\n", &["--headers"]);

    assert_eq!(document["windows"][0]["used_percent"], 101.0);
}

#[test]
fn a_dash_reads_standard_input() {
    let machine = Machine::new();
    let mut command = machine.command(&["parse", "anthropic", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"five_hour":{"utilization":1}}"#).unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.json()["windows"][0]["used_percent"], 1.0);
}

#[test]
fn malformed_input_is_a_one_line_error() {
    let message = [
        parse_error("", &[]),
        parse_error("{\"five_hour\":", &[]),
        parse_error("[]", &[]),
        parse_error("{}", &[]),
        parse_error("\u{0}\u{1}", &[]),
        parse_error("HTTP 403: not allowed", &[]),
        parse_error("HTTP/2 429\nretry-after: 0\n", &[]),
        parse_error(r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"}}"#, &[]),
        parse_error(r#"{"error":"invalid_grant"}"#, &[]),
        parse_error(r#"{"claudeAiOauth":{"accessToken":"sk-ant-oat01-x"}}"#, &[]),
        parse_error(r#"{"cachedUsageUtilization":{"utilization":{"five_hour":{"utilization":1}}}}"#, &[]),
        parse_error("", &["--headers"]),
        parse_error("HTTP 403: not allowed", &["--headers"]),
        parse_error("retry-after: 0\nnonsense\n", &["--headers"]),
        parse_error(b"retry-after: 0\n\xff: 1\n", &["--headers"]),
    ];

    insta::assert_snapshot!(message.join("\n"));
}

#[test]
fn a_response_without_usage_is_shown_with_a_note() {
    let ended = parse(r#"{"cedar":{"eligible":true}}"#, &[]);

    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.json()["ignored"][0]["field"], "cedar");
    assert!(ended.stderr.contains("ignored"), "{}", ended.stderr);
}

#[test]
fn unknown_input_is_not_repeated() {
    const TOKEN: &str = "sk-ant-oat01-made-up";
    let bodies = [
        (format!(r#"{{"five_hour":"{TOKEN}"}}"#), &[][..]),
        (format!(r#"{{"five_hour":{{"utilization":"{TOKEN}","resets_at":"{TOKEN}"}}}}"#), &[]),
        (format!(r#"{{"error":{{"type":"{TOKEN}"}}}}"#), &[]),
        (TOKEN.to_owned(), &[]),
        (
            format!("authorization: Bearer {TOKEN}\nanthropic-ratelimit-unified-status: {TOKEN}\n"),
            &["--headers"],
        ),
        (format!("{TOKEN}\n"), &["--headers"]),
    ];

    for (body, options) in bodies {
        let ended = parse(&body, options);
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("oat01"), "{body}");
    }
}

#[test]
fn an_unreadable_file_ends_with_66() {
    let machine = Machine::new();

    for (file, message) in [("nowhere", "there is no such file"), (".", "it is a directory")] {
        let ended = machine.run(&["parse", "anthropic", file]);

        assert_eq!(ended.code, Some(66));
        assert_eq!(ended.stderr, format!("quota: could not read {file}: {message}\n"));
    }
}
