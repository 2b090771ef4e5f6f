//! Output that several commands share: accounts, windows and events as plain values, text and JSON.

pub(crate) mod account_json;
pub(crate) mod account_text;
pub(crate) mod bar;
pub(crate) mod decision_json;
pub(crate) mod decision_text;
pub(crate) mod event_text;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod wrap;

pub(crate) use quota_view::{account, reason, window_name};
