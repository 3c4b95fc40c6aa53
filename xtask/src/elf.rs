//! What a program is linked with, and a copy of it without debug information.
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A program without its debug information, which would take 50 MiB of a guest's RAM.
pub(crate) fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new()?;
    let output = Command::new("strip").arg("--strip-debug").arg("-o").args([copy.path(), program]).output();
    let output = output.context("running strip")?;
    ensure!(output.status.success(), "strip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(std::fs::read(copy.path())?)
}

/// The absolute paths that ldd names, the loader among them. A static program has none, and ldd fails on it.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// Whether it is a program or a library at all.
pub(crate) fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = Vec::with_capacity(4);
    File::open(path)?.take(4).read_to_end(&mut magic).with_context(|| path.display().to_string())?;
    Ok(magic == b"\x7fELF")
}
