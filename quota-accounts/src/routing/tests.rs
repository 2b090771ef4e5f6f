//! The rules of choosing, one by one, and the laws they obey together.

mod eligibility;
mod laws;
mod modes;
mod no_account;
mod support;
