//! What can be wrong with a toolchain, each with the way out.

use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the eBPF programs can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No compiler has a `core` for BPF.
    #[error(
        "no Rust compiler for eBPF was found: run `cargo xtask setup`, which installs Debian's rustc-web and \
         libstd-rust-web-dev-bpf, or `rustup toolchain install nightly --component rust-src`"
    )]
    NoCompiler,
    /// There is a compiler, and no linker for its LLVM.
    #[error(
        "no bpf-linker for LLVM {llvm} was found: run `cargo xtask setup`, or put one into PATH \
         (https://github.com/aya-rs/bpf-linker)"
    )]
    NoLinker {
        /// Major version of the compiler's LLVM.
        llvm: u32,
    },
    /// A program could not be started.
    #[error("cannot run {program}")]
    Run {
        /// Which one.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The nested build failed; it has said why on standard error.
    #[error("the eBPF programs did not compile with {toolchain} ({status}): see the messages above")]
    Compile {
        /// The toolchain in words.
        toolchain: String,
        /// How cargo ended.
        status: ExitStatus,
    },
    /// The nested build succeeded without its result.
    #[error("cargo built the eBPF programs, but there is no object at {0}")]
    NoObject(PathBuf),
}
