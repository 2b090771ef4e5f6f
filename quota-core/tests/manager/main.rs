//! Tests of the manager on the memory store, with a fake provider and a paused clock.
#![expect(clippy::disallowed_methods, reason = "the tests end the tasks they spawn")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod before_request;
mod cancellation;
mod clear_hold;
mod credential_cache;
mod credentials;
mod deadlines;
mod forced_refresh;
mod forget;
mod holds;
mod late_leases;
mod lifecycle;
mod login_records;
mod logins;
mod lost_writes;
mod missing_scope;
mod notices;
mod outage;
mod reads;
mod recent_calls;
mod refused_reads;
mod single_flight;
mod store_errors;
mod store_outage;
mod store_recovery;
mod store_round_trips;
mod support;
