//! The node's machine: which kernel, how large, and what of ours lies in it at /data.
use std::path::Path;

use anyhow::{Context as _, Result};

use super::image;
use crate::vm::Boot;
use crate::{build, setup};

/// The newest kernel of Debian stable.
const KERNEL: &str = "6.12";
/// As much as leaves a model server and a hungry neighbour room beside kubelet and containerd.
pub(super) const MEMORY_MIB: u32 = 3072;
/// The disk at `/data`: programs and images.
const DATA_MIB: u32 = 1536;

/// A node with our programs, the images of its pods and nothing started.
pub(super) fn boot(log: &Path) -> Result<Boot> {
    setup::emulator()?;
    setup::bpf()?;
    let kernel = setup::kernel(KERNEL)?;
    let system = setup::system(&kernel)?;
    let mut boot = Boot::new(kernel, <[&str; 0]>::default(), log);
    boot.memory_mib = MEMORY_MIB;
    boot.data_mib = Some(DATA_MIB);
    boot.system = Some(system);
    add_programs(&mut boot, log.parent().context("a log lies in a directory")?)?;
    Ok(boot)
}

/// Builds what runs in the node; archives of images are made in `dir`.
fn add_programs(boot: &mut Boot, dir: &Path) -> Result<()> {
    // One call of cargo: two would choose different features for shared dependencies, and build those twice.
    let packages = ["plimsoll", "plimsoll-workload", "plimsoll-init"].map(|name| ["-p", name]);
    let programs = build::build(&[&["build"], packages.as_flattened(), &["--bins"]].concat())?;
    let program = |name: &str| {
        let found = programs.iter().find(|artifact| artifact.name == name);
        Ok::<_, anyhow::Error>(found.with_context(|| format!("cargo built no {name}"))?.path.clone())
    };
    boot.add_file(program("plimsoll")?, "/data/plimsoll");
    boot.add_file(program("plimsoll-workload")?, "/data/plimsoll-workload");
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let images = dir.join("pods.tar");
    image::write(&program("plimsoll-workload")?, dir, &images)?;
    boot.add_file(images, "/data/images/pods.tar");
    let ours = dir.join("plimsoll.tar");
    crate::image::image(crate::image::Profile::Vm, crate::image::NAME, Some(&ours))?;
    boot.add_file(ours, "/data/images/plimsoll.tar");
    boot.add_file(setup::kubernetes()?.join("kubelet"), "/data/kubelet");
    Ok(())
}
