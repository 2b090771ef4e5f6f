//! Output that several commands share: accounts, windows and events as plain values, text and JSON.

pub(crate) mod account;
pub(crate) mod account_json;
pub(crate) mod account_text;
pub(crate) mod bar;
pub(crate) mod decision_text;
pub(crate) mod event_text;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod reason;
pub(crate) mod window_name;
pub(crate) mod wrap;
