//! Which kernel modules a guest needs, in loading order.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Boot, Swap};

/// A module's name and its image, uncompressed.
pub(super) type Module = (String, Vec<u8>);

/// The modules of a boot with everything that they depend on. What is built in needs none.
pub(super) fn modules(boot: &Boot) -> Result<Vec<Module>> {
    let mut loader = Loader { files: index(&boot.kernel.modules)?, seen: BTreeSet::new(), order: Vec::new() };
    for name in wanted(boot) {
        loader.add(name).with_context(|| format!("module {name} of {}", boot.kernel.release))?;
    }
    Ok(loader.order)
}

fn wanted(boot: &Boot) -> Vec<&'static str> {
    let mut names = vec!["virtio_pci", "virtio_console", "virtio_blk"];
    if boot.system.is_some() {
        names.push("virtio_net");
    }
    if matches!(boot.swap, Swap::Zram { .. }) {
        // zram asks for its compressor by modprobe, which the guest lacks: load the default ones of all kernels first.
        names.extend(["lzo_rle", "lz4", "zram"]);
    }
    names
}

struct Loader {
    files: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Loader {
    /// Adds a module behind all that it depends on.
    fn add(&mut self, name: &str) -> Result<()> {
        let Some(path) = self.files.get(name).cloned() else { return Ok(()) };
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let image = read(&path)?;
        for dependency in depends(&image) {
            self.add(&dependency)?;
        }
        self.order.push((name.to_owned(), image));
        Ok(())
    }
}

/// All modules below a directory, by name with underscores.
fn index(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                pending.push(path);
            } else if let Some((stem, _)) = name.split_once(".ko") {
                files.insert(stem.replace('-', "_"), path);
            }
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return std::fs::read(path).with_context(|| path.display().to_string()),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: unknown compression", path.display()),
    };
    let output =
        Command::new(tool).arg("-dc").arg(path).output().with_context(|| format!("running {tool}"))?;
    ensure!(
        output.status.success(),
        "{tool} {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The `depends=a,b` of a module's .modinfo section. (modules.dep is made at installation, which we skip.)
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = image.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = image[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dependencies_come_from_the_module_itself() {
        assert_eq!(
            super::depends(b"x\0license=GPL\0depends=zsmalloc,lz4-compress\0name=zram\0"),
            ["zsmalloc", "lz4_compress"]
        );
        assert!(super::depends(b"\0depends=\0").is_empty());
        assert!(super::depends(b"").is_empty());
    }
}
