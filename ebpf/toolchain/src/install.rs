//! What `cargo xtask setup` installs where a toolchain is missing.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compile::outer_cargo;

/// Version of bpf-linker that is installed. It knows LLVM 21 to 23.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// Debian packages that hold a compiler with a `core` for BPF (security suite of bookworm, and later).
pub const DEBIAN_COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Debian packages that bpf-linker is built from, once the compiler's LLVM is known.
#[must_use]
pub fn debian_llvm_packages(llvm: u32) -> [String; 3] {
    // llvm-N-dev's exported targets name Polly, without depending on it.
    [format!("llvm-{llvm}"), format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

/// Where everything lies that is fetched or built outside the tree: `$PLIMSOLL_CACHE`, else
/// `$XDG_CACHE_HOME/plimsoll`, else `~/.cache/plimsoll`. `None` where there is no home either.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let dir = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("PLIMSOLL_CACHE")
        .or_else(|| dir("XDG_CACHE_HOME").map(|cache| cache.join("plimsoll")))
        .or_else(|| dir("HOME").map(|home| home.join(".cache/plimsoll")))
}

/// `--root` of the installed linker below the cache. It names both versions, so that another compiler gets another one.
#[must_use]
pub fn linker_root(cache: &Path, llvm: u32) -> PathBuf {
    cache.join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{llvm}"))
}

/// The command that builds and installs bpf-linker into the cache, against LLVM from [`debian_llvm_packages`]
/// (43 s on two cores).
#[must_use]
pub fn bpf_linker_install(cache: &Path, llvm: u32) -> Command {
    let mut cargo = Command::new(outer_cargo());
    cargo
        .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(linker_root(cache, llvm))
        // Its build script asks `llvm-config`; the unversioned one of Debian is of another version.
        .env("PATH", path_with(&format!("/usr/lib/llvm-{llvm}/bin")));
    cargo
}

fn path_with(dir: &str) -> OsString {
    let mut path = OsString::from(dir);
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}
