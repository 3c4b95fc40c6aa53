//! Whose memory it is: from processes to the cgroups that they are in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::units::Bytes;

use super::{Held, Places};
use crate::place::cgroup_in;

/// What the processes of each cgroup hold, by inode, and how many processes there are that can't be found.
pub(super) fn by_cgroup(places: &Places, processes: &BTreeMap<u32, Held>) -> (BTreeMap<u64, Held>, usize) {
    let mut sums = BTreeMap::<u64, Held>::new();
    let mut hidden = 0;
    for (pid, held) in processes {
        let Some(path) = cgroup_in(&places.proc, *pid) else {
            // It ended since, or it is of another PID namespace: the driver speaks of pids of the host.
            hidden += 1;
            continue;
        };
        for inode in inodes(&places.cgroup, &path) {
            let sum = sums.entry(inode).or_default();
            held.iter().for_each(|(gpu, bytes)| add(sum, gpu, *bytes));
        }
    }
    (sums, hidden)
}

/// An unknown amount makes the sum unknown.
fn add(sum: &mut Held, gpu: &GpuId, bytes: Option<Bytes>) {
    let known = sum.entry(gpu.clone()).or_insert(Some(Bytes::ZERO));
    *known = known.zip(bytes).map(|(known, more)| Bytes(known.0.saturating_add(more.0)));
}

/// The inodes of a cgroup and of those that it is in, without the root.
fn inodes(root: &Path, path: &str) -> Vec<u64> {
    let place = root.join(path);
    let below = |dir: &&Path| *dir != root && dir.starts_with(root);
    place.ancestors().take_while(below).filter_map(|dir| Some(fs::metadata(dir).ok()?.ino())).collect()
}
