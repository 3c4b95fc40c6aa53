//! Debian packages: installed when we may, otherwise named in the one line that would install them.
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::has;

/// A program and the package that brings it.
pub(crate) type Need = (&'static str, &'static str);

/// Booting a guest: emulator, disk images, compressed kernel modules, a shell for people.
pub(crate) const EMULATOR: [Need; 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mke2fs", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
    ("busybox", "busybox-static"),
];

/// Building a container image without a daemon.
pub(crate) const IMAGE: [Need; 2] = [("buildah", "buildah"), ("strip", "binutils")];

/// Installs the packages whose programs are missing.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> =
        needs.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    packages(&missing)
}

/// Installs packages, or fails with the line that would.
pub(crate) fn packages(names: &[&str]) -> Result<()> {
    let line = format!("apt-get install --no-install-recommends {}", names.join(" "));
    ensure!(has("apt-get"), "missing: {}. On Debian this would install them: {line}", names.join(", "));
    ensure!(is_root(), "missing: {}. This would install them: sudo {line}", names.join(", "));
    lists()?;
    println!("  {line}");
    let install = || {
        let arguments = ["install", "-qq", "--yes", "--no-install-recommends"];
        run(Command::new("apt-get").args(arguments).args(names))
    };
    // Lists that are some weeks old name versions that are gone.
    install().or_else(|_| update().and_then(|()| install()))
}

/// Fetches the package lists if there are none, as on a fresh image.
pub(crate) fn lists() -> Result<()> {
    let known = output(Command::new("apt-cache").args(["search", "--names-only", "^qemu-system-x86$"]))?;
    if known.trim().is_empty() { update() } else { Ok(()) }
}

/// Fetches the package lists.
pub(crate) fn update() -> Result<()> {
    ensure!(is_root(), "apt knows no packages yet; this would tell it: sudo apt-get update");
    println!("  apt-get update");
    run(Command::new("apt-get").args(["update", "-qq"]))
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command.stderr(Stdio::piped()).output().with_context(|| format!("running {name}"))?;
    if !result.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(())
}

pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command.stdin(Stdio::null()).output().with_context(|| format!("running {name}"))?;
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
