//! Tests of the whole program: exit codes, standard output and standard error, and that no output has a secret.
//! Unit tests beside the code cover the details of the output.

// Clippy allows unwrap in test helpers only below cfg(test).
#![cfg(test)]

mod account_removal;
mod accounts;
mod accounts_set;
#[cfg(target_os = "linux")]
mod bounded_input;
#[cfg(target_os = "linux")]
mod broken_store;
mod clear_hold;
#[cfg(unix)]
mod codex;
#[cfg(target_os = "linux")]
mod concurrent_processes;
mod damaged_documents;
#[cfg(unix)]
mod defined_providers;
mod demo;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod error_lines;
mod guard;
#[cfg(unix)]
mod init;
mod journal;
mod journal_updates;
#[cfg(unix)]
mod leases;
#[cfg(unix)]
mod line_wrapping;
mod local_store;
mod local_usage;
mod locked_store;
mod logins;
#[cfg(unix)]
mod mcp;
#[cfg(target_os = "linux")]
mod no_file_locks;
mod old_accounts;
#[cfg(target_os = "linux")]
mod outages;
#[cfg(unix)]
mod own_login;
mod parse;
mod pick;
#[cfg(unix)]
mod pty;
#[cfg(unix)]
mod redaction;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod serve;
#[cfg(target_os = "linux")]
mod serve_outages;
mod shared_store;
mod sim;
#[cfg(unix)]
mod six_providers;
mod status;
mod status_account;
#[cfg(unix)]
mod status_progress;
mod statusline;
mod streams;
mod support;
#[cfg(unix)]
mod token_commands;
#[cfg(unix)]
mod watch;
#[cfg(unix)]
mod wrap;
