//! A provider that a configuration defines. The first line of the input is the JSON of its windows or a JSONPath, and the rest is a body.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use quota_http::shape::{Path, UsageShape, WindowShape};

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (first, body) = (&input[..end], &input[end + 1..]);
    let mut shape = UsageShape::default();
    if let Ok(windows) = serde_json::from_slice::<Vec<WindowShape>>(first) {
        shape.windows = windows;
    } else if let Some(path) = std::str::from_utf8(first).ok().and_then(|text| text.parse::<Path>().ok()) {
        let mut window = WindowShape::default();
        window.rows = Some(path);
        window.id = "$.name".parse().ok();
        window.used = "$.used".parse().ok();
        shape.windows.push(window);
    }
    let _ = shape.validate();
    if let Ok(parsed) = shape.parse(body, Timestamp::constant(1_782_907_200, 0)) {
        assert!(parsed.usage.windows.len() <= 128);
        assert!(parsed.usage.windows.iter().all(|window| window.used.as_f64() <= 1000.0));
    }
});
