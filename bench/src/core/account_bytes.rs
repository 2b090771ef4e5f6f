//! The memory of an idle account, with a million of them.
//! It is counted in a program of its own, whose allocator counts; see `bin/account-bytes.rs`.

use std::process::Command;

use crate::row::Row;

const MOST: f64 = 1024.0;

pub(crate) fn rows() -> Vec<Row> {
    let (known, stored, read) = (count("known"), count("stored"), count("read"));
    let own = read - stored;
    vec![
        Row::absolute("account.bytes", (own, "bytes"), "≤ 1 KiB", own <= MOST),
        Row::absolute("account.bytes.never_read", (known, "bytes"), "≤ 1 KiB", known <= MOST),
        // With another store this is elsewhere: on a disk, in a server.
        Row::absolute("account.bytes.memory_store", (stored, "bytes"), "reported", true),
    ]
}

fn count(state: &str) -> f64 {
    let program =
        std::env::current_exe().expect("this program knows where it is").with_file_name("account-bytes");
    let output = Command::new(program).arg(state).output().expect("scripts/bench builds it");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(f64::NAN)
}
