//! Compiles the eBPF programs and hands the object to `sense::probes`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

/// A prebuilt object, for those who build without an eBPF toolchain.
const PREBUILT: &str = "PLIMSOLL_BPF_OBJECT";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A sentence, not a backtrace: it is most often read by somebody who lacks the toolchain.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    for name in [PREBUILT, "PLIMSOLL_CACHE", "XDG_CACHE_HOME"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let object = match env::var_os(PREBUILT) {
        Some(path) => PathBuf::from(path),
        None => compile()?,
    };
    let object = object.canonicalize().with_context(|| format!("no eBPF object at {}", object.display()))?;
    println!("cargo:rerun-if-changed={}", object.display());
    // Read by `include_bytes_aligned!` in sense/probes.
    println!("cargo:rustc-env=PLIMSOLL_BPF_OBJECT_PATH={}", object.display());
    Ok(())
}

fn compile() -> Result<PathBuf> {
    // Asked for at run time: checkouts that share a target directory share this program.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is set by cargo")?;
    let workspace = Path::new(&manifest).parent().context("the controller lies in the workspace")?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let toolchain = plimsoll_toolchain::find()?;
    for path in [&toolchain.compiler.rustc, &toolchain.linker] {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    for path in ["ebpf/src", "ebpf/Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    Ok(toolchain.compile(workspace, &out_dir)?)
}
