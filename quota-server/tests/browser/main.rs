//! Tests of the dashboard in a real browser. They need the programs chromium and chromedriver, which `scripts/test` brings.

// Clippy allows unwrap in test helpers only below cfg(test).
#![cfg(test)]
#![cfg(unix)]

mod dashboard;
mod demo;
mod driver;
