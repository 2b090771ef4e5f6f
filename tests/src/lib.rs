//! The history checker for leases. Several test binaries share it, and it has its own tests. The tests across crates are in
//! `stories/` and `faults/`, one file per subject.

pub mod history;
