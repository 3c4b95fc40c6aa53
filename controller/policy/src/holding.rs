//! What a workload holds, by how it could be got back.

use crate::assess::observe::positive;
use crate::assess::per;
use crate::config::Ladder;
use crate::sample::{MemoryStat, Workload};
use crate::units::{Bytes, Limit, Span};

/// Pages touched first within this time are in use.
const LATELY: Span = Span::secs(2);

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
    /// What `memory.current` and `memory.swap.current` will fall by when it dies.
    pub(crate) at_death: Bytes,
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
            let at_death = current + swapped;
            return Some(Self { current, killable: current, at_death, swapped, floor, ..Self::default() });
        };
        let file = stat.file.saturating_sub(stat.shmem);
        let fixed_kernel = stat.kernel.saturating_sub(stat.slab_reclaimable);
        let anon = anon(stat, current);
        let resident = anon + stat.shmem;
        let swappable =
            resident.saturating_sub(stat.unevictable).min(swap_free).min(swap_room(workload, swapped));
        let locked_file = stat.unevictable.min(file);
        let alone = anon + Bytes(stat.shmem.0 / 2) + fixed_kernel;
        Some(Self {
            current,
            file: file.saturating_sub(locked_file),
            swappable,
            killable: alone + workload.swap_ram.unwrap_or_default(),
            at_death: alone + swapped,
            swapped,
            floor: resident.saturating_sub(swappable) + locked_file + fixed_kernel + ladder.floor_margin,
        })
    }

    /// One step of a throttle.
    pub(crate) fn squeeze(&self, ladder: &Ladder) -> Bytes {
        let room = self.current.saturating_sub(self.floor);
        room.min(self.current.share(ladder.throttle_step)).min(self.swappable)
    }

    /// Anon that may be taken from a workload that runs and grows by so much a second. What it took lately is in use, and would only
    /// come back; of the rest it takes back what it needs, so half is taken for cold.
    pub(crate) fn trimmable(&self, growth: i64) -> Bytes {
        let recent = per(positive(growth), LATELY);
        Bytes(self.swappable.saturating_sub(recent).0 / 2)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(swap_max: Option<Limit>) -> Workload {
        let stat = MemoryStat {
            anon: Bytes::mib(100),
            file: Bytes::mib(60),
            shmem: Bytes::mib(20),
            kernel: Bytes::mib(5),
            slab_reclaimable: Bytes::mib(1),
            unevictable: Bytes::mib(10),
            ..MemoryStat::default()
        };
        Workload { current: Some(Bytes::mib(165)), stat: Some(stat), swap_max, ..Workload::default() }
    }

    fn holding(workload: &Workload, swap_free: u64) -> Holding {
        Holding::of(workload, Bytes::mib(swap_free), &Ladder::default()).unwrap_or_default()
    }

    #[test]
    fn without_swap_all_anon_is_floor() {
        let held = holding(&workload(None), 0);
        assert_eq!(held.swappable, Bytes::ZERO);
        assert_eq!(held.floor, Bytes::mib(100 + 20 + 10 + 4 + 8));
        assert_eq!((held.killable, held.file), (Bytes::mib(100 + 10 + 4), Bytes::mib(30)));
    }

    #[test]
    fn swap_lowers_the_floor_as_far_as_it_may_be_used() {
        assert_eq!(holding(&workload(None), 1000).floor, Bytes::mib(10 + 10 + 4 + 8));
        assert_eq!(holding(&workload(Some(Limit::Bytes(Bytes::mib(30)))), 1000).swappable, Bytes::mib(30));
        assert_eq!(holding(&workload(Some(Limit::Max)), 50).swappable, Bytes::mib(50));
    }

    #[test]
    fn what_came_since_the_last_stat_is_anon() {
        let mut grown = workload(None);
        grown.current = Some(Bytes::mib(265));
        assert_eq!(holding(&grown, 0).killable, Bytes::mib(214));
    }

    #[test]
    fn a_gap_promises_nothing() {
        assert_eq!(Holding::of(&Workload::default(), Bytes::ZERO, &Ladder::default()), None);
        let blind = Workload { current: Some(Bytes::mib(10)), ..Workload::default() };
        assert_eq!(holding(&blind, 1000).floor, Bytes::mib(18));
    }
}
