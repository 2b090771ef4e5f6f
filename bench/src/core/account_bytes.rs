//! The memory of an idle account, measured with a million of them. A separate program with a counting allocator measures it;
//! see `bin/account-bytes.rs`.

use std::process::Command;

use crate::row::Row;

const MAX_BYTES: f64 = 1024.0;

pub(crate) fn rows() -> Vec<Row> {
    let (unread, stored, read) = (count("unread"), count("stored"), count("read"));
    let own = read - stored;
    vec![
        Row::absolute("account.bytes", (own, "bytes"), "≤ 1 KiB", own <= MAX_BYTES),
        Row::absolute("account.bytes.never_read", (unread, "bytes"), "≤ 1 KiB", unread <= MAX_BYTES),
        // Other stores keep these bytes on a disk or in a server.
        Row::absolute("account.bytes.memory_store", (stored, "bytes"), "reported", true),
    ]
}

fn count(state: &str) -> f64 {
    let program = std::env::current_exe().expect("this program has a path").with_file_name("account-bytes");
    let output = Command::new(program).arg(state).output().expect("scripts/bench builds it");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(f64::NAN)
}
