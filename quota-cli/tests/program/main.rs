//! The program as it is run: its exit codes, what it writes where, and what it never writes.
//! How things look in detail is tested beside the code that draws them.

// Clippy lets tests unwrap, and their helpers too if it is told that all of this is a test.
#![cfg(test)]

mod accounts;
mod accounts_set;
#[cfg(unix)]
mod arriving;
mod clear_hold;
mod damaged;
mod demo;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod echoed;
mod forgetting;
mod guard;
#[cfg(unix)]
mod init;
#[cfg(target_os = "linux")]
mod input;
mod journal;
#[cfg(unix)]
mod leases;
#[cfg(target_os = "linux")]
mod local_herds;
mod local_store;
mod locked_store;
#[cfg(unix)]
mod narrow;
mod old_accounts;
#[cfg(unix)]
mod one_line;
mod parse;
mod pick;
mod program;
#[cfg(unix)]
mod programs;
#[cfg(unix)]
mod pty;
#[cfg(unix)]
mod run;
mod shared_store;
mod sim;
#[cfg(target_os = "linux")]
mod spoiled_store;
mod status;
mod status_account;
mod statusline;
mod streams;
mod told;
#[cfg(unix)]
mod watch;
