//! The cgroups of the demo, as an operator of a small machine would lay them out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

const ROOT: &str = "/sys/fs/cgroup";
/// What keeps client and monitor out of every reclaim: they measure, they are not measured.
const OBSERVERS_MIN: &str = "100663296";

/// Directories of the cgroups.
pub(super) struct Groups {
    /// The model server: matters most.
    pub(super) server: PathBuf,
    /// The batch job: matters least.
    pub(super) batch: PathBuf,
    /// Client and monitor.
    pub(super) observers: PathBuf,
    /// The controller, where there is one.
    pub(super) controller: PathBuf,
}

impl Groups {
    /// Makes them all.
    pub(super) fn create() -> anyhow::Result<Self> {
        let root = Path::new(ROOT);
        delegate(root)?;
        for slice in ["models.slice", "system.slice"] {
            make(&root.join(slice))?;
            delegate(&root.join(slice))?;
        }
        let groups = Self {
            server: root.join("models.slice/server"),
            batch: root.join("models.slice/batch"),
            observers: root.join("observers.scope"),
            controller: root.join("system.slice/plimsoll.service"),
        };
        for group in [&groups.server, &groups.batch, &groups.observers, &groups.controller] {
            make(group)?;
        }
        fs::write(groups.observers.join("memory.min"), OBSERVERS_MIN).context("protecting the observers")?;
        fs::write(groups.observers.join("cgroup.procs"), "0").context("joining the observers")?;
        Ok(groups)
    }
}

fn make(group: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(group).with_context(|| format!("making {}", group.display()))
}

fn delegate(group: &Path) -> anyhow::Result<()> {
    let file = group.join("cgroup.subtree_control");
    fs::write(&file, "+memory +cpu +pids").with_context(|| format!("writing {}", file.display()))
}
