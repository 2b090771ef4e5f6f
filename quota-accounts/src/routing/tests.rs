//! The rules of choosing, one by one, and the laws they obey together.

mod laws;
mod modes;
mod nobody;
mod standing;
mod support;
