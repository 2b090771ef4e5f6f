//! The store on real files: the suite, other processes, rights, damage, and disks that take nothing.
//! What is pure is tested where it is.

mod aside;
mod conformance;
mod damage;
#[cfg(unix)]
mod disk;
mod env;
#[cfg(unix)]
mod permissions;
mod processes;
mod times;
