//! Set-up, tests, demo and virtual machine.
fn main() {}
