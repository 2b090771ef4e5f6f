//! Tests of the store on real files: the conformance suite, other processes, permissions, damage and full disks.
//! Unit tests of pure code are beside the code.

mod aside;
mod conformance;
mod damage;
#[cfg(unix)]
mod disk;
mod env;
#[cfg(unix)]
mod permissions;
mod processes;
mod removal;
mod times;
