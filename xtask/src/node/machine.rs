//! The node's machine: which kernel, how large, and what of ours lies in it at /data.
use std::path::Path;

use anyhow::Result;

use crate::setup;
use crate::vm::Boot;

/// The newest kernel of Debian stable.
const KERNEL: &str = "6.12";
/// As much as leaves a model server and a hungry neighbour room beside kubelet and containerd.
const MEMORY_MIB: u32 = 3072;
/// The disk at `/data`: programs and images.
const DATA_MIB: u32 = 1024;

/// A node with nothing of ours on it yet.
pub(super) fn boot(log: &Path) -> Result<Boot> {
    setup::emulator()?;
    let kernel = setup::kernel(KERNEL)?;
    let system = setup::system(&kernel)?;
    let mut boot = Boot::new(kernel, <[&str; 0]>::default(), log);
    boot.memory_mib = MEMORY_MIB;
    boot.data_mib = Some(DATA_MIB);
    boot.system = Some(system);
    Ok(boot)
}
