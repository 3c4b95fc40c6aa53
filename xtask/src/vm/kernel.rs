//! A kernel that can be booted: image and modules of one Debian package.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// Directory of its modules.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Reads an unpacked package: `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let boot = root.join("boot");
        let entries = std::fs::read_dir(&boot).with_context(|| boot.display().to_string())?;
        let release = entries
            .flatten()
            .find_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .with_context(|| format!("no vmlinuz in {}", boot.display()))?;
        let lib = ["lib/modules", "usr/lib/modules"].iter().map(|lib| root.join(lib).join(&release));
        let modules = lib
            .into_iter()
            .find(|dir| dir.is_dir())
            .with_context(|| format!("no modules in {}", root.display()))?;
        let image = boot.join(format!("vmlinuz-{release}"));
        Ok(Self { release, image, modules })
    }

    /// Whether it brings CPUs up one after the other and spins for each, which never ends under icount.
    pub(crate) fn starts_cpus_one_by_one(&self) -> bool {
        matches!(self.version(), (..=5, _) | (6, ..=4))
    }

    /// Major and minor version.
    pub(super) fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}
