//! Stock Debian kernels, unpacked into the cache.
use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{apt, cache, has};
use crate::vm::Kernel;

/// The series that tests run on: the oldest that Plimsoll supports, and the newest of Debian stable.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The newest kernel of a series: from the cache, else from Debian's archive.
pub(crate) fn kernel(series: &str) -> Result<Kernel> {
    let dir = cache()?.join("kernels").join(series);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let root = match newest(&dir)? {
        Some(root) => root,
        None => fetch(series, &dir).with_context(|| format!("kernel {series}"))?,
    };
    Kernel::open(&root)
}

/// The unpacked package of the highest version.
fn newest(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?.flatten();
    let unpacked = entries.map(|entry| entry.path()).filter(|path| path.join("boot").is_dir());
    Ok(unpacked.max_by_key(|path| numbers(&path.to_string_lossy())))
}

/// Downloads and unpacks the newest package of the series.
fn fetch(series: &str, dir: &Path) -> Result<PathBuf> {
    ensure!(
        has("apt-get") && has("dpkg"),
        "kernels come as Debian packages: unpack a linux-image-{series}*-cloud-amd64 package into {}/<its name>",
        dir.display()
    );
    let package = find(series)?;
    println!("  downloading {package}");
    let work = tempfile::tempdir_in(dir)?;
    // apt-get fetches into the current directory, as its own user if that may write there.
    apt::run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(work.path()))?;
    let deb = fs::read_dir(work.path())?.flatten().next().context("apt-get downloaded nothing")?.path();
    let tree = work.path().join("tree");
    apt::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&tree))?;
    let root = dir.join(&package);
    // Renamed when complete: an interrupted set-up leaves no half kernel.
    fs::rename(&tree, &root).with_context(|| root.display().to_string())?;
    Ok(root)
}

/// The newest package of the series that apt knows. Versions roll, so no name is written down here.
fn find(series: &str) -> Result<String> {
    let known = candidates(series)?;
    if let Some(newest) = known.into_iter().next() {
        return Ok(newest);
    }
    apt::update()?;
    match candidates(series)?.into_iter().next() {
        Some(newest) => Ok(newest),
        None => bail!(
            "apt on {} knows no linux-image-{series}*-cloud-amd64; Debian bookworm with its security suite has {}",
            release_name(),
            SERIES.join(" and ")
        ),
    }
}

/// Signed cloud kernels of the series, newest first.
fn candidates(series: &str) -> Result<Vec<String>> {
    let pattern = format!(r"^linux-image-{}\.[0-9].*-cloud-amd64$", series.replace('.', r"\."));
    let text = apt::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort_by_key(|name| Reverse(numbers(name)));
    Ok(names)
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn release_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "this system".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_compare_as_numbers() {
        assert!(
            super::numbers("linux-image-6.1.0-56-cloud-amd64")
                > super::numbers("linux-image-6.1.0-9-cloud-amd64")
        );
    }
}
