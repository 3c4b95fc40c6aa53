//! How a kernel test talks to the guest that it runs in.
use std::path::PathBuf;

/// Says that this kernel can't run a test, and why. Return from the test after it.
///
/// `cargo xtask vm` counts it, and fails where `tests/skips.txt` does not allow it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("\nplimsoll-skip: {test}: {reason}");
}

/// The controller's binary.
///
/// # Panics
/// Outside the guest.
#[must_use]
pub fn plimsoll() -> PathBuf {
    program("PLIMSOLL_BIN")
}

/// The binary that plays model servers and eaters of memory.
///
/// # Panics
/// Outside the guest.
#[must_use]
pub fn workload() -> PathBuf {
    program("PLIMSOLL_WORKLOAD")
}

/// The stand-in for NVIDIA's management library.
///
/// # Panics
/// Outside the guest.
#[must_use]
pub fn nvml() -> PathBuf {
    program("PLIMSOLL_NVML")
}

/// A Python with an embedding model, where the guest has one; what it is started with stands in `tests/python`.
#[must_use]
pub fn python() -> Option<PathBuf> {
    std::env::var_os("PLIMSOLL_PYTHON").map(PathBuf::from)
}

fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable).expect("kernel tests are run by `cargo xtask vm`, which sets it").into()
}
