//! Tests of each routing rule, and laws for all of them.

mod balance;
mod eligibility;
mod laws;
mod modes;
mod no_account;
mod parts;
mod same_login;
mod support;
