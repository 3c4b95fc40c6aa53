//! What `cuda-checkpoint` can't do, seen before it is tried: a process that it fails on is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use plimsoll_policy::config::ways::CudaCheckpoint;
use plimsoll_policy::units::Bytes;

use crate::ask::way::{Asking, WayError};
use crate::ledger::release::subtree;

/// The first driver whose steps can be asked for one by one, by which state is told, and which NVML gets along with.
const DRIVER: u32 = 570;
/// What the host keeps when memory is moved to it, beyond what the policy has planned.
const MARGIN: Bytes = Bytes::mib(256);

/// A process, told from a later one with its number by when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

/// The processes below a cgroup that have CUDA's driver library loaded.
pub(super) fn ranks(proc: &Path, cgroup: &Path) -> BTreeSet<Rank> {
    let dirs = subtree(cgroup);
    let lists = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    let pids = lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>());
    pids.filter(|pid| uses_cuda(proc, *pid)).filter_map(|pid| rank(proc, pid)).collect()
}

fn uses_cuda(proc: &Path, pid: u32) -> bool {
    read(proc, pid, "maps").is_some_and(|maps| maps.contains("/libcuda.so"))
}

/// `None` for a thread: the tool takes its number without complaint, and the process does not survive it.
fn rank(proc: &Path, pid: u32) -> Option<Rank> {
    let status = read(proc, pid, "status")?;
    let leader: u32 = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let stat = read(proc, pid, "stat")?;
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    (leader == pid).then_some(Rank { pid, started })
}

/// Whether this machine can do it at all.
pub(super) fn machine(proc: &Path) -> Result<(), WayError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(WayError::Misconfigured("cuda_checkpoint: works on x86-64 only".into()));
    }
    let version = fs::read_to_string(proc.join("driver/nvidia/version")).unwrap_or_default();
    match driver(&version) {
        Some(driver) if driver >= DRIVER => Ok(()),
        Some(driver) => {
            let why = format!("cuda_checkpoint: needs driver {DRIVER} or later, this is {driver}");
            Err(WayError::Misconfigured(why))
        }
        None => Err(WayError::Unreachable("NVIDIA's driver is not loaded".into())),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu ...`: the first word with two dots of numbers.
fn driver(version: &str) -> Option<u32> {
    let line = version.lines().find(|line| line.contains("NVRM"))?;
    let number = |word: &str| -> Option<u32> {
        let (major, rest) = word.split_once('.')?;
        rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then(|| major.parse().ok())?
    };
    line.split_whitespace().find_map(number)
}

/// Whether there is room on the host, and no part of a GPU is meant.
pub(super) fn request(proc: &Path, asking: &Asking) -> Result<(), WayError> {
    if asking.gpus.iter().any(|gpu| gpu.0.starts_with("MIG-")) {
        return Err(WayError::NotOffered(asking.level));
    }
    let meminfo = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let gpus = asking.gpus.len().max(1) as u64;
    let needed = asking.wanted.saturating_mul(gpus).saturating_add(MARGIN.0);
    if kib.saturating_mul(1024) >= needed {
        return Ok(());
    }
    Err(WayError::Refused(format!("the host has no room for {} MiB", needed >> 20)))
}

/// Whether these processes can be moved, as far as that is to be seen. Managed memory and memory shared between processes can't be,
/// and are not to be seen: whoever configures this has to know.
pub(super) fn processes(
    proc: &Path,
    config: &CudaCheckpoint,
    ranks: &BTreeSet<Rank>,
) -> Result<(), WayError> {
    let refused = |why: &str| Err(WayError::Refused(why.to_owned()));
    let mut gpus = BTreeSet::new();
    for rank in ranks {
        let environment = read(proc, rank.pid, "environ").unwrap_or_default();
        let set = |name: &str| {
            environment.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        };
        if set("CUDA_MPS_PIPE_DIRECTORY").is_some() {
            return refused("it is a client of MPS");
        }
        if set("CUDA_VISIBLE_DEVICES").is_some_and(|devices| devices.contains("MIG-")) {
            return refused("it uses a part of a GPU (MIG)");
        }
        gpus.extend(devices(proc, rank.pid));
    }
    match ranks.len() {
        0 => refused("no process uses CUDA"),
        1 if gpus.len() < 2 => Ok(()),
        _ if config.several => Ok(()),
        _ => refused("it uses several GPUs or processes, and `several` is false"),
    }
}

/// Numbers of the GPUs that a process has open.
fn devices(proc: &Path, pid: u32) -> BTreeSet<u32> {
    let files = fs::read_dir(proc.join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    let number = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("/dev/nvidia")?.parse().ok()
    };
    files.filter_map(number).collect()
}

fn read(proc: &Path, pid: u32, file: &str) -> Option<String> {
    let bytes = fs::read(proc.join(pid.to_string()).join(file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_driver_say_their_version() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 22:37:38 UTC 2025\nGCC version: 12\n";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
        assert_eq!((driver(closed), driver(open), driver("GCC 1.2")), (Some(570), Some(580), None));
    }
}
