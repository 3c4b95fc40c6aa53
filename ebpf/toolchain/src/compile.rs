//! The nested build: cargo, in a target directory of its own, with the environment of the outer build taken off.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::compiler::{Core, TARGET};
use crate::{Toolchain, ToolchainError};

/// Name of the package and of its binary.
const PROGRAMS: &str = "plimsoll-ebpf";

/// What an outer cargo, clippy, coverage run or user set for *their* target.
const FOREIGN: [&str; 12] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

impl Toolchain {
    /// Compiles the programs of the workspace and returns the object. `out_dir` keeps the build's state: the outer
    /// cargo holds the lock of its own target directory and would wait for itself.
    ///
    /// # Errors
    /// When cargo can't be run or fails.
    pub fn compile(&self, workspace: &Path, out_dir: &Path) -> Result<PathBuf, ToolchainError> {
        let target_dir = out_dir.join("ebpf");
        let mut cargo = self.cargo(workspace, &target_dir);
        let status = cargo
            .status()
            .map_err(|source| ToolchainError::Run { program: cargo.get_program().into(), source })?;
        if !status.success() {
            return Err(ToolchainError::Compile { toolchain: self.to_string(), status });
        }
        let object = target_dir.join(TARGET).join("release").join(PROGRAMS);
        if object.is_file() { Ok(object) } else { Err(ToolchainError::NoObject(object)) }
    }

    fn cargo(&self, workspace: &Path, target_dir: &Path) -> Command {
        let mut cargo = Command::new(self.cargo_program());
        for name in FOREIGN {
            cargo.env_remove(name);
        }
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        cargo
            .current_dir(workspace)
            .args(["build", "--release", "--locked", "--target", TARGET, "--package", PROGRAMS])
            .args(["--bin", PROGRAMS, "--features", "programs", "--target-dir"])
            .arg(target_dir)
            .env("RUSTC", &self.compiler.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", linker)
            // bpf-linker sees the whole program as bitcode and optimises it itself.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .stdout(Stdio::null());
        match self.compiler.core {
            // aya-ebpf uses unstable features, which a stable compiler allows only so.
            Core::Prebuilt => cargo.env("RUSTC_BOOTSTRAP", "1"),
            Core::Source => cargo.args(["-Z", "build-std=core"]),
        };
        cargo
    }

    /// `-Z build-std` has to match the compiler's library: its own cargo. Any cargo will do for the other kind.
    fn cargo_program(&self) -> OsString {
        match self.compiler.core {
            Core::Source => self.compiler.sysroot.join("bin/cargo").into(),
            Core::Prebuilt => outer_cargo(),
        }
    }
}

/// The cargo that runs us, else the one in PATH.
pub(crate) fn outer_cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
