//! An empty program: the minimal start time of a program on this machine.

fn main() {}
