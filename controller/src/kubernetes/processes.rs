//! What runs in a cgroup of a pod, as far as its processes' names tell: nothing yet, a sandbox, or programs.

use std::fs;
use std::path::Path;

use crate::ledger::release::pids;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// No process, or only the runtime's own that will become one.
    Nothing,
    /// What holds the namespaces of a pod: containerd, CRI-O and dockershim all call it `pause`.
    Sandbox,
    /// Anything else.
    Programs,
}

/// Processes that are looked at: a sandbox has one, a container's first is there from its beginning.
const LOOKED_AT: usize = 16;
/// A real one takes less than 1 MiB: whoever calls himself `pause` and takes more is taken for what he is.
const SANDBOX_AT_MOST: u64 = 16 << 20;
/// The names of runtimes between `clone` and `exec`.
const RUNTIMES: [&str; 5] = ["runc:", "crun", "youki:", "conmon", "runc"];

/// Looks.
pub(super) fn inside(dir: &Path, proc: &Path) -> Inside {
    let pids = pids(dir);
    let names = pids.iter().take(LOOKED_AT).filter_map(|pid| name(proc, *pid));
    let programs: Vec<String> = names.filter(|name| !is_of_a_runtime(name)).collect();
    match programs.as_slice() {
        [] => Inside::Nothing,
        all if all.iter().all(|name| name == "pause") && is_small(dir) => Inside::Sandbox,
        _ => Inside::Programs,
    }
}

/// Whether a process is one that kubelet protects from the kernel's OOM killer: of a Guaranteed or a node-critical pod.
pub(super) fn is_critical(dir: &Path, proc: &Path) -> bool {
    let score = |pid: i32| -> Option<i32> {
        fs::read_to_string(proc.join(pid.to_string()).join("oom_score_adj")).ok()?.trim().parse().ok()
    };
    pids(dir).into_iter().take(LOOKED_AT).filter_map(score).any(|score| score <= -997)
}

fn name(proc: &Path, pid: i32) -> Option<String> {
    Some(fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?.trim_end().to_owned())
}

fn is_of_a_runtime(name: &str) -> bool {
    RUNTIMES.iter().any(|runtime| match runtime.strip_suffix(':') {
        Some(_) => name.starts_with(runtime),
        None => name == *runtime,
    })
}

fn is_small(dir: &Path) -> bool {
    let current = fs::read_to_string(dir.join("memory.current"));
    current
        .ok()
        .and_then(|bytes| bytes.trim().parse::<u64>().ok())
        .is_none_or(|bytes| bytes <= SANDBOX_AT_MOST)
}
