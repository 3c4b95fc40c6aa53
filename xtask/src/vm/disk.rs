//! Disk images: the filesystem at /data, and swap space.
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use plimsoll_init::swap_header;

use super::Boot;

/// Makes an ext4 image that holds the boot's files and trees below /data. The image is sparse.
pub(super) fn data(boot: &Boot, mib: u32, work: &Path, image: &Path) -> Result<()> {
    let tree = work.join("data");
    fs::create_dir(&tree)?;
    for (host, guest) in &boot.files {
        let Ok(inside) = guest.strip_prefix("/data") else { continue };
        let place = tree.join(inside);
        fs::create_dir_all(place.parent().context("a file at /data itself")?)?;
        fs::copy(host, &place).with_context(|| host.display().to_string())?;
    }
    for (host, guest) in &boot.trees {
        let inside = guest.strip_prefix("/data").context("a tree lies below /data")?;
        copy(host, &tree.join(inside))?;
    }
    File::create(image)?.set_len(u64::from(mib) << 20)?;
    // No journal: nothing here outlives the boot, and its writes would disturb measurements.
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0", "-d"])
        .args([&tree, image])
        .env("PATH", super::super::setup::path_with_sbin())
        .output()
        .context("running mke2fs")?;
    ensure!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        // Links are followed: what they point to may lie outside of the tree.
        if entry.path().is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), &place).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

/// Makes a formatted swap image.
pub(super) fn swap(mib: u32, image: &Path) -> Result<()> {
    let bytes = u64::from(mib) << 20;
    let mut file = File::create(image)?;
    file.write_all(&swap_header(bytes))?;
    file.set_len(bytes)?;
    Ok(())
}
