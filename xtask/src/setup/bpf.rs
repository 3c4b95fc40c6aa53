//! The eBPF toolchain: a compiler with a `core` for BPF, and the linker for its LLVM.
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use plimsoll_toolchain::{ToolchainError, find, install};

use super::{apt, cache};

/// Finds a toolchain, or installs Debian's compiler and builds the linker for it. Says which it is.
pub(crate) fn bpf() -> Result<String> {
    // Compiler, linker, and a look at what came of it.
    for _ in 0..2 {
        match find() {
            Ok(toolchain) => return Ok(toolchain.to_string()),
            Err(ToolchainError::NoCompiler) => apt::packages(&install::DEBIAN_COMPILER_PACKAGES)
                .context("no Rust compiler for eBPF: rustup's nightly with rust-src would do as well")?,
            Err(ToolchainError::NoLinker { llvm }) => linker(llvm)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(find()?.to_string())
}

fn linker(llvm: u32) -> Result<()> {
    let packages = install::debian_llvm_packages(llvm);
    apt::packages(&packages.each_ref().map(String::as_str))
        .with_context(|| format!("bpf-linker needs LLVM {llvm}"))?;
    println!("  cargo install bpf-linker {} for LLVM {llvm} (a minute)", install::BPF_LINKER_VERSION);
    let mut command = install::bpf_linker_install(&cache()?, llvm);
    let status = command.arg("--quiet").stdin(Stdio::null()).status().context("running cargo install")?;
    ensure!(status.success(), "bpf-linker could not be installed");
    Ok(())
}
