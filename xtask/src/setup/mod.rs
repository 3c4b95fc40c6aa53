//! Finds or installs what the other commands need. A second run does no work.
mod apt;
mod kernels;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub(crate) use kernels::{SERIES, kernel};

/// Where everything that is downloaded or built for the tools is kept: outside the tree, shared by all checkouts.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("PLIMSOLL_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("plimsoll")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/plimsoll")))
        .context("none of PLIMSOLL_CACHE, XDG_CACHE_HOME and HOME is set")?;
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// What `vm`, `test` and `demo` need to boot a guest.
pub(crate) fn emulator() -> Result<()> {
    apt::install(&apt::EMULATOR)
}

/// PATH with the directories of system tools, which an ordinary user's PATH on Debian lacks.
pub(crate) fn path_with_sbin() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(dirs).unwrap_or(path)
}

/// Whether a program is in PATH.
fn has(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = path_with_sbin();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Gives the guest the usual commands, as links to busybox.
pub(crate) fn busybox(boot: &mut crate::vm::Boot) -> Result<()> {
    let program = find("busybox").context("no busybox")?;
    let list = apt::output(std::process::Command::new(&program).arg("--list"))?;
    boot.add_file(program, "/bin/busybox");
    let applets = list.lines().filter(|name| *name != "busybox");
    boot.links.extend(applets.map(|name| (Path::new("/bin").join(name), PathBuf::from("busybox"))));
    Ok(())
}
