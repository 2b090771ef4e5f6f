//! The router with and without a quota manager, under a virtual clock.

mod clocks;
mod deadlines;
mod fallbacks;
mod fetchers;
mod files;
mod heart;
mod late;
mod ledger;
mod login_states;
mod logins;
mod many;
mod new_logins;
mod persistence;
mod rechecks;
mod renewals;
mod reports;
mod reservations;
mod retries;
mod routes;
mod same_login;
mod sessions;
mod story;
mod support;
mod unreadable;
mod withheld;
