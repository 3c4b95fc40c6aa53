//! workload
fn main() {}
