//! A program that does nothing but start: what every program of this machine takes at least.

fn main() {}
