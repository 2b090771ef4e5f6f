//! What every surface of quota shows: accounts, windows, decisions, events and pace as plain values, and the words for them.
//!
//! The program's text, its live view and the dashboard of the gateway use these, so one fact has the same words everywhere.
//!
//! | module | what it has |
//! |---|---|
//! | [`account`] [`reason`] | an account and its windows at one point in time; why its usage is missing or stale |
//! | [`words`] | the use, the reset and the age of a window, and the notes of an account |
//! | [`window_name`] | the display name of a window |
//! | [`decision`] [`pending_reset`] | why an account is available or not; a window that has reset but was not refreshed |
//! | [`event`] | the text of a journal event |
//! | [`pace`] | how fast windows are used, as text and as the points of a chart |
//! | [`mod@format`] [`zone`] | times, durations and amounts as text; the user's time zone |
//! | [`sanitize`] | text from other sources without its control characters |

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
