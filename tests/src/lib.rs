//! The history checker for leases, which several test binaries share and which has tests of its own.
//! The tests across crates are in `stories/` and `faults/`, one file for each subject.

pub mod history;
