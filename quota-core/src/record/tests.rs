//! The rules of the record, one topic per file. Shared helpers are in `support`. Sequences of random operations are in `laws`
//! and `holders`.

mod another_credential;
mod asking;
mod attempts;
mod backoff;
mod boundaries;
mod cleared;
mod clocks;
mod damaged;
mod due;
mod fences;
mod forgotten;
mod given_back;
mod holders;
mod late;
mod laws;
mod logins;
mod lost;
mod next_attempt;
pub(crate) mod random;
mod readings;
mod recent;
mod refusals;
mod stored;
pub(crate) mod support;
