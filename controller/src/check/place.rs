//! What a container may hide: the host's paths of cgroups, its processes, and the right to write.

use std::fs;
use std::io;
use std::path::Path;

use super::{Capability, HostPaths};
use crate::ledger::release::subtree;
use crate::place::{Seen, own};

/// Cgroups that are looked into for processes that have no number here.
const LOOKED_INTO: usize = 2000;

pub(super) fn probe(paths: &HostPaths) -> Vec<Capability> {
    vec![cgroup_paths(paths), host_processes(&paths.cgroup), cgroup_writable(&paths.cgroup)]
}

fn cgroup_paths(paths: &HostPaths) -> Capability {
    let there = |detail: String| Capability::there("cgroup_paths", detail);
    match own(&paths.proc, &paths.cgroup) {
        Some(Seen::AsShown(path)) => there(format!("runs in /{path}")),
        None => there("runs in no cgroup v2".into()),
        Some(Seen::Elsewhere { path, .. }) => {
            there(format!("runs in /{path}, in a cgroup namespace of its own that it can't leave")).lost(
                "a guardian that outlives the container: no process can be moved out of it",
                "in the pod: hostPID: true, CAP_SYS_ADMIN and CAP_SYS_PTRACE",
            )
        }
        Some(Seen::Nowhere) => {
            let at = paths.cgroup.display();
            there(format!("the tree at {at} is not the one that this process is in")).lost(
                "its own cgroup is not known, nor whose the processes are that call it",
                format!("in the pod: mount the host's /sys/fs/cgroup at {at}"),
            )
        }
    }
}

/// A process of another pid namespace is listed as 0.
fn host_processes(root: &Path) -> Capability {
    let unseen = |dir: &Path| {
        fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.lines().any(|line| line == "0"))
    };
    if !subtree(root).iter().take(LOOKED_INTO).any(|dir| unseen(dir)) {
        return Capability::there("host_processes", "every process in the tree can be named");
    }
    Capability::there("host_processes", "there are processes of another pid namespace").lost(
        "the guardian dies with the container, rules by command find nobody, the kernel's OOM order and the memory of GPUs are not \
         known by process, and what the gate stopped can't be continued",
        "in the pod: hostPID: true",
    )
}

/// Tried with a cgroup of our own, for a moment.
fn cgroup_writable(root: &Path) -> Capability {
    let path = root.join(format!("plimsoll-check-{}", std::process::id()));
    let error = match fs::create_dir(&path).and_then(|()| fs::remove_dir(&path)) {
        Ok(()) => return Capability::there("cgroup_writable", format!("{} is writable", root.display())),
        Err(error) => error,
    };
    let found = Capability::there("cgroup_writable", format!("{}: {error}", root.display()));
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        let mend = "in the pod: mount the host's /sys/fs/cgroup without readOnly (a hostPath volume)";
        return found.required("everything: nothing can be limited, frozen or killed", mend);
    }
    found.lost("`plimsoll exec`, and a guardian that outlives the container", "run it as root")
}
