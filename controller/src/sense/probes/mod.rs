//! The eBPF programs as seen from user space: loads and attaches what the kernel has, reads the counters, arms the gate.
//!
//! Nothing is pinned: the programs live exactly as long as [`Probes`], so a controller that dies leaves none behind.

mod batch;
mod btf;
mod error;
mod gate;
mod hook;
mod load;
mod ring;

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{HashMap, IterableMap, MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::links::FdLink;
use plimsoll_ebpf::{Counters, HostCounters};
use plimsoll_policy::sample::{HostProbes, Probes as CgroupProbes};
use plimsoll_policy::units::Span;

pub use plimsoll_ebpf::{BUCKETS, Event, Histogram, Kind};

use self::batch::Batch;
pub use self::error::ProbesError;
use self::gate::Gate;
pub use self::hook::Hook;
pub use self::ring::Ring;

/// What is an edge, and how the gate behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A stall in reclaim of at least this is an event.
    pub stall_edge: Span,
    /// The first reclaim after at least this much time without is an event.
    pub quiet: Span,
    /// Least time between two stall events, or two gate events, of one cgroup.
    pub pause: Span,
    /// How long after the last sign of reclaim the gate goes on stopping threads.
    pub gate_window: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // One tick of a 100 Hz kernel: what the scheduler does anyway is shorter.
            stall_edge: Span::millis(10),
            quiet: Span::millis(100),
            // As often as the kernel notifies `memory.events` (CGROUP_FILE_NOTIFY_MIN_INTV).
            pause: Span::millis(10),
            // Long enough for a starved controller to take over by freezing.
            gate_window: Span::millis(200),
        }
    }
}

/// The loaded programs, their maps, and their links. Dropping it detaches everything.
pub struct Probes {
    hooks: Vec<Hook>,
    counters: PerCpuHashMap<MapData, u64, Counters>,
    histograms: PerCpuHashMap<MapData, u64, Histogram>,
    host: PerCpuArray<MapData, HostCounters>,
    ignored: HashMap<MapData, u32, u8>,
    gate: Gate,
    ring: Option<Ring>,
    counters_batch: Batch<Counters>,
    histograms_batch: Batch<Histogram>,
    cpus: usize,
    ebpf: Ebpf,
    // Held for their descriptors.
    _links: Vec<FdLink>,
}

impl Probes {
    /// Loads the programs and attaches every hook that the kernel has, except the gate.
    ///
    /// # Errors
    /// When nothing can be attached: no BTF, no permission, no eBPF. A single hook that is missing is no error: see
    /// [`Probes::hooks`].
    pub fn load(options: &Options) -> Result<Self, ProbesError> {
        load::load(options)
    }

    /// Every hook, and why those that are missing are.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The events, once: they are read by one thread.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// Cumulative counters by cgroup id. A cgroup to which nothing happened is absent.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn read(&mut self) -> Result<BTreeMap<u64, CgroupProbes>, ProbesError> {
        let mut read = BTreeMap::new();
        self.counters_batch
            .read(self.counters.map().fd(), self.cpus, |cgroup, cpus| {
                let mut sum = CgroupProbes::default();
                for counters in cpus {
                    sum += counted(counters);
                }
                read.insert(cgroup, sum);
            })
            .map_err(|source| ProbesError::Read { map: "COUNTERS", source })?;
        Ok(read)
    }

    /// Reclaim stalls by cgroup id.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn histograms(&mut self) -> Result<BTreeMap<u64, Histogram>, ProbesError> {
        let mut read = BTreeMap::new();
        self.histograms_batch
            .read(self.histograms.map().fd(), self.cpus, |cgroup, cpus| {
                let sum: &mut Histogram = read.entry(cgroup).or_default();
                for Histogram { sum_ns, buckets } in cpus {
                    sum.sum_ns += sum_ns;
                    sum.buckets.iter_mut().zip(buckets).for_each(|(sum, bucket)| *sum += bucket);
                }
            })
            .map_err(|source| ProbesError::Read { map: "HISTOGRAMS", source })?;
        Ok(read)
    }

    /// Cumulative counters of the host.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn host(&mut self) -> Result<HostProbes, ProbesError> {
        let cpus = self.host.get(&0, 0).map_err(ProbesError::map("HOST"))?;
        let mut sum = HostProbes::default();
        for HostCounters { direct_reclaims, kswapd_wakes, oom_victims, lost_events, no_room } in cpus.iter() {
            sum.direct_reclaims += direct_reclaims;
            sum.kswapd_wakes += kswapd_wakes;
            sum.oom_victims += oom_victims;
            sum.lost_events += lost_events;
            sum.lost_counts += no_room;
        }
        Ok(sum)
    }

    /// Makes room for a cgroup's counters now. Without this they are made at the first event, when memory may be
    /// too short for them (the loss is then counted).
    ///
    /// # Errors
    /// When the maps are full.
    pub fn watch(&mut self, cgroup: u64) -> Result<(), ProbesError> {
        if self.counters.get(&cgroup, 0).is_ok() {
            return Ok(());
        }
        let counters =
            vec![Counters::default(); self.cpus].try_into().map_err(ProbesError::values("COUNTERS"))?;
        self.counters.insert(cgroup, counters, 0).map_err(ProbesError::map("COUNTERS"))?;
        let stalls =
            vec![Histogram::default(); self.cpus].try_into().map_err(ProbesError::values("HISTOGRAMS"))?;
        self.histograms.insert(cgroup, stalls, 0).map_err(ProbesError::map("HISTOGRAMS"))
    }

    /// Drops a cgroup's counters. The programs do so themselves when its directory is removed.
    pub fn forget(&mut self, cgroup: u64) {
        // They fail only where there is nothing to drop.
        let _ = self.counters.remove(&cgroup);
        let _ = self.histograms.remove(&cgroup);
    }

    /// Says which threads of *other* processes reclaim for us; our own process is ignored anyway. Replaces the former.
    /// Thread ids are those of the initial pid namespace.
    ///
    /// # Errors
    /// When there are more than 64.
    pub fn ignore(&mut self, tids: &[u32]) -> Result<(), ProbesError> {
        let former: Vec<u32> = self.ignored.keys().filter_map(Result::ok).collect();
        for tid in former.iter().filter(|tid| !tids.contains(tid)) {
            let _ = self.ignored.remove(tid);
        }
        tids.iter().try_for_each(|tid| self.ignored.insert(tid, 1, 0)).map_err(ProbesError::map("IGNORED"))
    }

    /// Arms the gate: from the first reclaim on (global, or of a protected cgroup, and not ours), threads of the target
    /// cgroups stop themselves (SIGSTOP) at their next page fault. Cgroups are ids, each named for itself: a
    /// workload's children belong into the list, and so does an ancestor whose limit should count as
    /// its protected child's.
    ///
    /// The same sets again change nothing. Other sets replace the former, and the gate waits for a new reclaim.
    /// Who continues the stopped threads must first reset or disarm the gate, or freeze them, or they stop again.
    ///
    /// # Errors
    /// When the kernel has no hook for it, or the sets are too large.
    pub fn arm(&mut self, targets: &[u64], protected: &[u64]) -> Result<(), ProbesError> {
        self.gate.arm(&mut self.ebpf, targets, protected)
    }

    /// Lowers the gate and leaves it armed: it waits for a new reclaim.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn reset_gate(&mut self) -> Result<(), ProbesError> {
        self.gate.reset()
    }

    /// Lowers the gate and detaches it from the page fault. It continues nobody.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn disarm(&mut self) -> Result<(), ProbesError> {
        self.gate.disarm()
    }

    /// Whether the gate is armed.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.gate.is_armed()
    }
}

/// The counters of one CPU in the policy's words.
fn counted(counters: &Counters) -> CgroupProbes {
    let Counters {
        direct_reclaims,
        direct_reclaim_ns,
        memcg_reclaims,
        memcg_reclaim_ns,
        vmscan_throttled_ns,
        over_high_ns,
        major_faults,
        faults: minor_faults,
        gate_stops,
    } = *counters;
    CgroupProbes {
        direct_reclaims,
        direct_reclaim_ns,
        memcg_reclaims,
        memcg_reclaim_ns,
        vmscan_throttled_ns,
        over_high_ns,
        major_faults,
        minor_faults,
        gate_stops,
    }
}
