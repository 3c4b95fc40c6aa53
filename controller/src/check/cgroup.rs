//! What cgroup v2 offers here: the layout, the memory controller, and the files of a cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::Release;
use super::{Capability, HostPaths};

const ENABLE: &str = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line";
const EVERYTHING: &str = "everything: nothing can be limited, frozen or measured";

/// The first kernel whose memory.high takes O_NONBLOCK ("memcg: introduce non-blocking limit setting option"; ignored by 6.12, honoured by 6.18).
const NONBLOCKING: Release = (6, 16);

pub(super) fn probe(paths: &HostPaths, kernel: Option<Release>) -> Vec<Capability> {
    let root = &paths.cgroup;
    let layout = layout(root);
    if !layout.available() {
        return vec![layout];
    }
    let memory = memory(paths);
    if !memory.available() {
        return vec![layout, memory];
    }
    let mut found = vec![layout, memory, delegated(root)];
    found.extend(Child::of(root).map(|child| files(&child)).unwrap_or_default());
    found.push(nonblocking(kernel));
    found.extend(super::place::probe(paths));
    found
}

fn layout(root: &Path) -> Capability {
    let at = root.display();
    if root.join("cgroup.controllers").exists() {
        return Capability::there("cgroup_v2", format!("unified at {at}"));
    }
    let detail = if root.join("unified/cgroup.controllers").exists() {
        format!("the cgroup hierarchy at {at} is hybrid: the controllers are in v1")
    } else if root.join("memory").exists() {
        format!("the cgroup hierarchy at {at} is v1")
    } else {
        let detail = format!("no cgroup hierarchy at {at}");
        return Capability::there("cgroup_v2", detail)
            .required(EVERYTHING, format!("mount -t cgroup2 none {at}"));
    };
    Capability::there("cgroup_v2", detail).required(EVERYTHING, ENABLE)
}

fn memory(paths: &HostPaths) -> Capability {
    if lists(&paths.cgroup.join("cgroup.controllers"), "memory") {
        return Capability::there("memory_controller", "present");
    }
    let mend = match hierarchy(paths) {
        Some(0) => "boot with cgroup_enable=memory, and without cgroup_disable=memory",
        Some(_) => "unmount the v1 hierarchy that has it, or boot with cgroup_no_v1=all",
        None => "use a kernel with CONFIG_MEMCG=y",
    };
    Capability::there("memory_controller", "cgroup v2 has no memory controller").required(EVERYTHING, mend)
}

/// The hierarchy that `/proc/cgroups` says the memory controller is in: 0 is v2 or none.
fn hierarchy(paths: &HostPaths) -> Option<u32> {
    let text = fs::read_to_string(paths.proc.join("cgroups")).ok()?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some("memory"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn delegated(root: &Path) -> Capability {
    if lists(&root.join("cgroup.subtree_control"), "memory") {
        return Capability::there("memory_delegated", "enabled for the children of the root");
    }
    let mend = format!("echo +memory > {}/cgroup.subtree_control", root.display());
    Capability::there("memory_delegated", "the root does not hand the memory controller on")
        .lost("workloads in cgroups without memory files are not found", mend)
}

fn lists(file: &Path, controller: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|word| word == controller))
}

/// A cgroup to look at: one that is there anyway, or one of our own for a moment.
struct Child {
    path: PathBuf,
    own: bool,
}

impl Child {
    fn of(root: &Path) -> Option<Self> {
        let dirs = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path());
        if let Some(path) = dirs.into_iter().find(|path| path.join("memory.current").exists()) {
            return Some(Self { path, own: false });
        }
        let path = root.join(format!("plimsoll-check-{}", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self { path, own: true })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.own {
            // Nobody was ever in it, so the kernel lets it go.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Files, the kernel that brought them, and what is lost without.
const FILES: [(&str, &str, &str, &str); 6] = [
    ("cgroup.kill", "cgroup_kill", "5.14", "killing at once: processes are killed one by one"),
    ("cgroup.freeze", "cgroup_freeze", "5.2", "the rung freeze, and the gate"),
    ("memory.reclaim", "memory_reclaim", "5.19", "the rung trim, and reclaim while frozen"),
    ("memory.high", "memory_high", "4.5", "the rung throttle"),
    (
        "memory.pressure",
        "cgroup_psi",
        "4.20, with cgroup_disable=pressure unset",
        "stall of single workloads as a signal",
    ),
    ("memory.peak", "memory_peak", "5.19", "nothing but a figure in reports"),
];

fn files(child: &Child) -> Vec<Capability> {
    let one = |(file, name, since, lost): (&str, &str, &str, &str)| {
        if child.path.join(file).exists() {
            return Capability::there(name, file);
        }
        Capability::there(name, format!("no {file}")).lost(lost, format!("use Linux {since} or later"))
    };
    FILES.into_iter().map(one).collect()
}

fn nonblocking(kernel: Option<Release>) -> Capability {
    if kernel >= Some(NONBLOCKING) {
        return Capability::there("nonblocking_high", "memory.high takes O_NONBLOCK");
    }
    Capability::there("nonblocking_high", "memory.high reclaims before it returns")
        .lost("throttling at once: a worker writes it, in small steps", "use Linux 6.16 or later")
}
