//! What a workload holds, by how it could be got back.

use crate::config::Ladder;
use crate::sample::{MemoryStat, Workload};
use crate::units::{Bytes, Limit};

/// A workload's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) current: Bytes,
    /// Clean file pages: reclaim frees them, but headroom has them already.
    pub(crate) file: Bytes,
    /// Anon and shmem that fits into swap.
    pub(crate) swappable: Bytes,
    /// What its death gives back to headroom.
    pub(crate) killable: Bytes,
    /// What is in swap: it comes back when the workload runs on.
    pub(crate) swapped: Bytes,
    /// Below this `memory.high` can't get it, only torment it.
    pub(crate) floor: Bytes,
}

impl Holding {
    /// `None` where `memory.current` was a gap: nothing can be promised then.
    pub(crate) fn of(workload: &Workload, swap_free: Bytes, ladder: &Ladder) -> Option<Self> {
        let current = workload.current?;
        let swapped = workload.swap.unwrap_or_default();
        let Some(stat) = &workload.stat else {
            let floor = current + ladder.floor_margin;
            return Some(Self { current, killable: current, swapped, floor, ..Self::default() });
        };
        let file = stat.file.saturating_sub(stat.shmem);
        let fixed_kernel = stat.kernel.saturating_sub(stat.slab_reclaimable);
        let anon = anon(stat, current);
        let resident = anon + stat.shmem;
        let swappable =
            resident.saturating_sub(stat.unevictable).min(swap_free).min(swap_room(workload, swapped));
        let locked_file = stat.unevictable.min(file);
        Some(Self {
            current,
            file: file.saturating_sub(locked_file),
            swappable,
            killable: anon + Bytes(stat.shmem.0 / 2) + fixed_kernel,
            swapped,
            floor: resident.saturating_sub(swappable) + locked_file + fixed_kernel + ladder.floor_margin,
        })
    }
}

/// `memory.stat` may be seconds old; what `memory.current` has beyond it is most likely new anon.
/// Shared memory counts half in a kill: it may belong to others too, or stay behind in a tmpfs.
fn anon(stat: &MemoryStat, current: Bytes) -> Bytes {
    stat.anon + current.saturating_sub(stat.anon + stat.file + stat.kernel)
}

fn swap_room(workload: &Workload, swapped: Bytes) -> Bytes {
    match workload.swap_max {
        Some(Limit::Bytes(max)) => max.saturating_sub(swapped),
        Some(Limit::Max) | None => Bytes(u64::MAX),
    }
}
