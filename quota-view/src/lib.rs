//! Accounts, windows, decisions, events and pace as plain values and as text, for all output of quota.
//!
//! The program's text, its live view and the gateway's dashboard use this crate, so the same fact has the same wording
//! everywhere.
//!
//! | module | content |
//! |---|---|
//! | [`account`] [`reason`] | an account and its windows at one point in time; why its usage is missing or stale |
//! | [`words`] | texts about the usage, the reset and the age of a window, and notes about an account |
//! | [`window_name`] | the display name of a window |
//! | [`decision`] [`pending_reset`] | why an account is available or not; a window that has reset but was not refreshed |
//! | [`event`] | the text of a journal event |
//! | [`pace`] | how fast windows are used, as text and as the points of a chart |
//! | [`mod@format`] [`zone`] | times, durations and amounts as text; the user's time zone |
//! | [`sanitize`] | removing control characters from text of other sources |

pub mod account;
pub mod decision;
pub mod event;
pub mod format;
pub mod pace;
pub mod pending_reset;
pub mod reason;
pub mod sanitize;
pub mod window_name;
pub mod words;
pub mod zone;
