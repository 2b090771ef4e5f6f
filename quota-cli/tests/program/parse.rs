//! `quota parse`: what is understood of saved answers, and what is said of what is not.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::program::{Ended, Machine, argument};

fn parse(contents: impl AsRef<[u8]>, options: &[&str]) -> Ended {
    let machine = Machine::new();
    let file = machine.write("saved", contents);
    machine.run(&[&["parse", "anthropic"], options, &[argument(&file)]].concat())
}

fn understood(contents: &str, options: &[&str]) -> Value {
    let ended = parse(contents, options);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.json()
}

/// What is said of something malformed, without the name of the file.
fn refused(contents: impl AsRef<[u8]>, options: &[&str]) -> String {
    let ended = parse(contents, options);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(65), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let (_, said) = ended.stderr.trim_end().split_once("saved: ").unwrap();
    said.to_owned()
}

#[test]
fn a_usage_answer_is_understood() {
    let body = r#"{
        "five_hour": { "utilization": 61.5, "resets_at": "2021-03-04T10:00:00.5+00:00" },
        "limits": [{ "kind": "weekly_scoped", "percent": 7, "resets_at": null,
            "scope": { "model": { "display_name": "Fable" }, "surface": null } }],
        "extra_usage": { "is_enabled": true, "used_credits": 1234, "currency": "EUR" },
        "something_new": true
    }"#;

    let document = understood(body, &[]);

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
    .map(|body| understood(&body, &[])["kind"].take());

    assert_eq!(kinds, ["usage", "profile", "claude_json", "statusline", "rate_limit_event"]);
}

#[test]
fn a_window_that_only_has_a_verdict_has_no_number() {
    let headers =
        "HTTP/2 429\r\nanthropic-ratelimit-unified-5h-status: rejected\r\nretry-after: 60\r\n\r\nbody";

    let document = understood(headers, &["--headers"]);

    let window = &document["windows"][0];
    assert_eq!((&window["used_percent"], &window["status"]), (&Value::Null, &json!("rejected")));
    assert_eq!(document["retry_after_seconds"], 60.0);
}

#[test]
fn a_window_that_cannot_be_read_has_no_number() {
    let document = understood(r#"{"five_hour":{"utilization":"a lot"},"seven_day":{"utilization":3}}"#, &[]);

    let windows: Vec<_> = document["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["id"], &one["used_percent"]))
        .collect();
    assert_eq!(windows, [(&json!("seven_day"), &json!(3.0)), (&json!("five_hour"), &Value::Null)]);
}

#[test]
fn a_number_above_100_is_not_cut() {
    let document = understood("anthropic-ratelimit-unified-7d-utilization: 1.01\n", &["--headers"]);

    assert_eq!(document["windows"][0]["used_percent"], 101.0);
}

#[test]
fn standard_input_is_read_for_a_dash() {
    let machine = Machine::new();
    let mut command = machine.command(&["parse", "anthropic", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"five_hour":{"utilization":1}}"#).unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.json()["windows"][0]["used_percent"], 1.0);
}

#[test]
fn malformed_input_is_one_line() {
    let said = [
        refused("", &[]),
        refused("{\"five_hour\":", &[]),
        refused("[]", &[]),
        refused("{}", &[]),
        refused("\u{0}\u{1}", &[]),
        refused("HTTP 403: not allowed", &[]),
        refused("HTTP/2 429\nretry-after: 0\n", &[]),
        refused(r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"}}"#, &[]),
        refused(r#"{"error":"invalid_grant"}"#, &[]),
        refused(r#"{"claudeAiOauth":{"accessToken":"sk-ant-oat01-x"}}"#, &[]),
        refused(r#"{"cachedUsageUtilization":{"utilization":{"five_hour":{"utilization":1}}}}"#, &[]),
        refused("", &["--headers"]),
        refused("HTTP 403: not allowed", &["--headers"]),
        refused("retry-after: 0\nnonsense\n", &["--headers"]),
        refused(b"retry-after: 0\n\xff: 1\n", &["--headers"]),
    ];

    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_response_without_usage_is_shown_with_a_note() {
    let ended = parse(r#"{"cedar":{"eligible":true}}"#, &[]);

    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.json()["ignored"][0]["field"], "cedar");
    assert!(ended.stderr.contains("ignored"), "{}", ended.stderr);
}

#[test]
fn what_is_not_understood_is_not_repeated() {
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
fn a_file_that_cannot_be_read_ends_with_66() {
    let machine = Machine::new();

    for (file, said) in [("nowhere", "there is no such file"), (".", "it is a directory")] {
        let ended = machine.run(&["parse", "anthropic", file]);

        assert_eq!(ended.code, Some(66));
        assert_eq!(ended.stderr, format!("quota: could not read {file}: {said}\n"));
    }
}
