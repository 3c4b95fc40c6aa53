//! The build context: the files of the image, where they lie in it.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::elf;

/// Parts of libc in older releases, and empty since; what was built then, as NVIDIA's library is, still asks for them.
const OLD_PARTS: [&str; 3] = ["libdl.so.2", "libpthread.so.0", "librt.so.1"];

/// Empties the directory and lays out the program and what it is linked with. Returns the bytes of all files.
pub(super) fn lay_out(program: &Path, context: &Path) -> Result<u64> {
    if context.exists() {
        fs::remove_dir_all(context).with_context(|| context.display().to_string())?;
    }
    let root = context.join("root");
    let mut bytes = put(&root, Path::new("/usr/bin/plimsoll"), &elf::stripped(program)?)?;
    for library in libraries(program)? {
        let content = fs::read(&library).with_context(|| library.display().to_string())?;
        bytes += put(&root, &library, &content)?;
    }
    Ok(bytes)
}

fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut all: BTreeSet<PathBuf> = elf::libraries(program)?.into_iter().collect();
    let libc = all.iter().find(|path| path.ends_with("libc.so.6")).context("it is not linked with glibc")?;
    let beside: Vec<PathBuf> = OLD_PARTS.iter().map(|part| libc.with_file_name(part)).collect();
    all.extend(beside.into_iter().filter(|part| part.exists()));
    Ok(all)
}

/// Modes do not follow the umask of whoever builds.
fn put(root: &Path, place: &Path, content: &[u8]) -> Result<u64> {
    let file = root.join(place.strip_prefix("/").unwrap_or(place));
    let parent = file.parent().context("a file lies in a directory")?;
    fs::create_dir_all(parent)?;
    for dir in parent.ancestors().take_while(|dir| dir.starts_with(root)) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(&file, content).with_context(|| file.display().to_string())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(content.len() as u64)
}
