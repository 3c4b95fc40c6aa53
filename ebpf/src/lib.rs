//! Types shared between the eBPF programs and user space: counters, histograms, events, settings.
//!
//! All are `repr(C)` without padding, widest fields first, and hold no type with forbidden values: the kernel copies
//! them as bytes. Sizes are asserted, since the two halves are compiled by different compilers.
#![no_std]

mod event;
#[cfg(feature = "user")]
mod pod;

pub use event::{Event, Kind, UnknownKind};

/// Counters of one cgroup, cumulative. One copy per CPU; user space adds them up.
///
/// The cgroup is the *waiting* task's, except for `memcg_reclaims`: a limit far up the tree can make a task deep below
/// it wait, so what is reclaimed and who waits for it are different questions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times a task of this cgroup entered global direct reclaim.
    pub direct_reclaims: u64,
    /// Time its tasks spent there.
    pub direct_reclaim_ns: u64,
    /// Times this cgroup's own memory was reclaimed (for its `memory.high`, `memory.max` or by `memory.reclaim`),
    /// whoever had to do it.
    pub memcg_reclaims: u64,
    /// Time its tasks spent reclaiming for a limit, be it their own cgroup's or an ancestor's.
    pub memcg_reclaim_ns: u64,
    /// Time its tasks slept because vmscan throttled them.
    pub vmscan_throttled_ns: u64,
    /// Time its tasks slept over `memory.high`; reclaim done there is in `memcg_reclaim_ns`.
    pub over_high_ns: u64,
    /// Major page faults.
    pub major_faults: u64,
    /// User page faults of any kind, counted only while the gate is armed.
    pub faults: u64,
    /// Signals with which the gate stopped its threads.
    pub gate_stops: u64,
}

const _: () = assert!(size_of::<Counters>() == 72);

/// How many classes a [`Histogram`] has: a power of two, so that the verifier sees a masked index stay inside.
pub const BUCKETS: usize = 32;

/// Reclaim stalls of one cgroup's tasks (direct and memcg), by the power of two of their length in microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of all stalls.
    pub sum_ns: u64,
    /// `buckets[0]` counts those below 1 us, `buckets[n]` those of at least 2^(n-1) us and below 2^n us; the last one
    /// has no upper end (2^30 us are 18 minutes).
    pub buckets: [u64; BUCKETS],
}

const _: () = assert!(size_of::<Histogram>() == 264);

impl Histogram {
    /// The class of a stall. Always a valid index.
    #[must_use]
    #[inline]
    pub const fn bucket(ns: u64) -> usize {
        let class = (u64::BITS - (ns / 1000).leading_zeros()) as usize;
        if class < BUCKETS { class } else { BUCKETS - 1 }
    }
}

/// Counters of the whole host, cumulative. One copy per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Global direct reclaims begun, except by ourselves.
    pub direct_reclaims: u64,
    /// Times kswapd was woken.
    pub kswapd_wakes: u64,
    /// Victims of the OOM killer.
    pub oom_victims: u64,
    /// Events that found no room in the ring buffer.
    pub lost_events: u64,
    /// Counts that found no room in a map.
    pub no_room: u64,
}

const _: () = assert!(size_of::<HostCounters>() == 40);

/// State of the gate. User space writes it whole; the programs only raise it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// 0: reclaim does not raise it.
    pub armed: u64,
    /// How long after the last sign of reclaim it stays up.
    pub window_ns: u64,
    /// Time (`CLOCK_MONOTONIC`) of the last sign of reclaim since it was armed; 0: none yet.
    pub raised_ns: u64,
}

const _: () = assert!(size_of::<Gate>() == 24);

/// What user space tells the programs at load. They see it as constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A reclaim stall of at least this is an event.
    pub stall_edge_ns: u64,
    /// Reclaim after at least this much time without is an event.
    pub quiet_ns: u64,
    /// Least time between two stall events, and two gate events, of one cgroup.
    pub pause_ns: u64,
    /// The controller's own process: what it does is no pressure.
    pub own_tgid: u32,
    /// 1 where `mark_victim` passes the task, 0 where it passes its pid.
    pub victim_is_task: u32,
}

const _: () = assert!(size_of::<Settings>() == 32);

/// Where the running kernel keeps the fields that lead to a cgroup id, in bytes; from its BTF. All zero: unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `mem_cgroup.css.cgroup`
    pub mem_cgroup_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_node_id: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_cgroup: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Offsets>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        for (ns, expected) in [
            (0, 0),
            (999, 0),
            (1_000, 1),
            (1_999, 1),
            (2_000, 2),
            (1_000_000, 10),
            (1_024_000, 11),
            (u64::MAX, 31),
        ] {
            assert_eq!(Histogram::bucket(ns), expected, "{ns} ns");
        }
    }
}
