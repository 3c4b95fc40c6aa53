//! Finds or installs what the other commands need. A second run does no work.
mod apt;
mod bpf;
mod kernels;
mod kubernetes;
mod llvm;
mod nextest;
mod python;
mod system;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::vm::{Boot, PROGRAM};

pub(crate) use bpf::bpf;
pub(crate) use kernels::{SERIES, kernel};
pub(crate) use kubernetes::kubernetes;
pub(crate) use llvm::llvm;
pub(crate) use nextest::nextest;
pub(crate) use python::{PYTHON_MIB, add_python, engines, python, python3};
pub(crate) use system::system;

/// Sets everything up, what takes long as well.
pub(crate) fn all() -> Result<ExitCode> {
    usual()?;
    item("Kubernetes", kubernetes().map(|path| path.display().to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// Sets up what every test needs, and says what was found, one line each.
pub(crate) fn usual() -> Result<()> {
    item("eBPF toolchain", bpf())?;
    item("emulator", emulator())?;
    for series in SERIES {
        item(&format!("kernel {series}"), kernel(series).map(|kernel| kernel.release))?;
    }
    item("coverage tools", llvm().map(|path| path.display().to_string()))?;
    item("test runner", nextest().map(|path| path.display().to_string()))?;
    item("Python", python3().map(|path| path.display().to_string()))?;
    println!("{:<15} {}", "cache", cache()?.display());
    Ok(())
}

fn item(name: &str, found: Result<String>) -> Result<()> {
    println!("{name:<15} {}", found.with_context(|| name.to_owned())?);
    Ok(())
}

/// Where everything that is downloaded or built for the tools is kept: outside the tree, shared by all checkouts.
pub(crate) fn cache() -> Result<PathBuf> {
    let dir = plimsoll_toolchain::install::cache_dir();
    let dir = dir.context("none of PLIMSOLL_CACHE, XDG_CACHE_HOME and HOME is set")?;
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// What `vm`, `test` and `demo` need to boot a guest.
pub(crate) fn emulator() -> Result<String> {
    apt::install(&apt::EMULATOR)?;
    let version = apt::output(Command::new(PROGRAM).arg("--version"))?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

/// What `image` needs.
pub(crate) fn image_builder() -> Result<()> {
    apt::install(&apt::IMAGE)
}

/// PATH with the directories of system tools, which an ordinary user's PATH on Debian lacks.
pub(crate) fn path_with_sbin() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(dirs).unwrap_or(path)
}

/// Whether a program is in PATH.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = path_with_sbin();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Gives the guest the usual commands, as links to busybox.
pub(crate) fn busybox(boot: &mut Boot) -> Result<()> {
    let program = find("busybox").context("no busybox")?;
    let list = apt::output(Command::new(&program).arg("--list"))?;
    boot.add_file(program, "/bin/busybox");
    let applets = list.lines().filter(|name| *name != "busybox");
    boot.links.extend(applets.map(|name| (Path::new("/bin").join(name), PathBuf::from("busybox"))));
    Ok(())
}
