//! What stories share that can be wrong by itself, and so has tests: the check of a history of leases.
//! The stories are in `stories/` and `faults/`, one file for each thing that is told.

pub mod history;
