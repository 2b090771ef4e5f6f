//! An empty program, which shows the minimal start time of a program on this machine.

fn main() {}
