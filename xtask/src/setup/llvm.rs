//! LLVM's coverage tools, of the version that the compiler's own LLVM has: their formats change between majors.
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{apt, is_program};

/// Where `llvm-profdata` and `llvm-cov` are: rustup's component `llvm-tools`, else Debian's packages, which the set-up of the
/// eBPF toolchain brings anyway where the two compilers have the same LLVM.
pub(crate) fn llvm() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let about = apt::output(Command::new(&rustc).arg("-vV"))?;
    let field = |name| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let host = field("host:").context("rustc does not name its host")?;
    let version = field("LLVM version:").context("rustc does not name its LLVM")?;
    let major = version.split('.').next().unwrap_or(version);
    let sysroot = apt::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let rustup = PathBuf::from(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    let found = || [&rustup, &debian].into_iter().find(|dir| is_program(&dir.join("llvm-cov"))).cloned();
    if let Some(dir) = found() {
        return Ok(dir);
    }
    apt::packages(&[&format!("llvm-{major}")]).with_context(|| {
        format!("no llvm-cov for LLVM {major}: `rustup component add llvm-tools` would do as well")
    })?;
    found().with_context(|| format!("no llvm-cov in {} although llvm-{major} is installed", debian.display()))
}
