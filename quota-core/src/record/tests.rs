//! The rules of the record, one topic a file.
//! What the tests share is in `support`; sequences of random operations are in `laws` and `holders`.

mod another_credential;
mod asking;
mod attempts;
mod backoff;
mod cleared;
mod clocks;
mod damaged;
mod due;
mod forgotten;
mod given_back;
mod holders;
mod late;
mod laws;
mod logins;
mod lost;
pub(crate) mod random;
mod readings;
mod recent;
mod refusals;
mod stored;
pub(crate) mod support;
