//! Compiles the eBPF programs and hands the object to `sense::probes`.
fn main() {}
