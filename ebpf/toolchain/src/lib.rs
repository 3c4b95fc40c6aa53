//! Finds an eBPF toolchain for Rust, and compiles the kernel half of Plimsoll with it.
//!
//! Two kinds are known, and the first complete one is taken: a compiler that brings a `core` for `bpfel-unknown-none`
//! (Debian's `rustc-web` with `libstd-rust-web-dev-bpf`), or rustup's nightly with `rust-src`. Either needs a
//! `bpf-linker` that was built for the same major version of LLVM.

mod compile;
mod compiler;
mod error;
pub mod install;
mod linker;

use std::fmt;
use std::path::PathBuf;

pub use compiler::{Compiler, Core};
pub use error::ToolchainError;

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Compiles Rust to LLVM bitcode for BPF.
    pub compiler: Compiler,
    /// `bpf-linker`, which makes the object of the bitcode.
    pub linker: PathBuf,
}

/// Looks for a complete toolchain. Installs nothing, and asks no network.
///
/// # Errors
/// What is missing of the toolchain that comes closest, and how to install it.
pub fn find() -> Result<Toolchain, ToolchainError> {
    let mut missing = ToolchainError::NoCompiler;
    for compiler in Compiler::find_all() {
        match linker::find(compiler.llvm, &linker::path_dirs(), install::cache_dir()) {
            Some(linker) => return Ok(Toolchain { compiler, linker }),
            None if matches!(missing, ToolchainError::NoCompiler) => {
                missing = ToolchainError::NoLinker { llvm: compiler.llvm };
            }
            None => {}
        }
    }
    Err(missing)
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.compiler, self.linker.display())
    }
}
