//! The manager on memory, with a fake provider and a clock that stands still: what its readers see, and what is asked.
#![expect(clippy::disallowed_methods, reason = "the tests end the tasks they spawn")]
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod away_and_back;
mod before_request;
mod cancelling;
mod clearing;
mod credentials;
mod forgetting;
mod holds;
mod insisting;
mod lifecycle;
mod logins;
mod lost_writes;
mod missing_scope;
mod reading;
mod recent_calls;
mod refused;
mod single_flight;
mod store_away;
mod support;
mod trips;
