//! Finds an eBPF toolchain.
