//! What one look at the machine gave. A reading that failed is `None` and named in `gaps`; it is never a zero.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::plan::Outcome;
use crate::units::{Bytes, Limit, Monotonic};

/// Why a pass ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The periodic look.
    #[default]
    Timer,
    /// An edge from the eBPF ring buffer.
    Probe,
    /// A PSI trigger fired.
    Psi,
    /// A `memory.events` file changed.
    Events,
    /// An action came to its end.
    Outcome,
    /// Workloads came or went.
    Workloads,
    /// The configuration was read again.
    Reload,
    /// The last pass: everything is about to be released.
    Shutdown,
}

/// All readings of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When the reading began.
    pub at: Monotonic,
    /// Why it was taken.
    pub trigger: Trigger,
    /// The machine as a whole.
    pub host: Host,
    /// Every workload that was found.
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// What actions that ended since the last sample achieved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A reading that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The file or sensor.
    pub what: String,
    /// The error in words.
    pub why: String,
}

/// The host resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// `/proc/meminfo`.
    pub meminfo: Option<Meminfo>,
    /// `/proc/vmstat`.
    pub vmstat: Option<Vmstat>,
    /// `/proc/pressure/memory`, cumulative.
    pub psi: Option<Psi>,
    /// Cumulative counters of the eBPF programs for the whole host.
    pub probes: Option<HostProbes>,
}

/// From `/proc/meminfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meminfo {
    /// `MemTotal`.
    pub total: Bytes,
    /// `MemFree`.
    pub free: Bytes,
    /// `MemAvailable`: the kernel's estimate, which counts hot mapped model pages as available.
    pub available: Bytes,
    /// `Cached` + `Buffers` - `Shmem`: file pages.
    pub file: Bytes,
    /// `Shmem`.
    pub shmem: Bytes,
    /// The zones' high watermarks (`/proc/zoneinfo`): with less free than this the kernel reclaims.
    #[serde(default)]
    pub reserved: Bytes,
    /// `SwapTotal`.
    pub swap_total: Bytes,
    /// `SwapFree`.
    pub swap_free: Bytes,
}

/// From `/proc/vmstat`, cumulative, in pages or events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmstat {
    /// `workingset_refault_anon`.
    pub refault_anon: u64,
    /// `workingset_refault_file`.
    pub refault_file: u64,
    /// `pgmajfault`.
    pub major_faults: u64,
    /// `pgscan_direct`.
    pub scan_direct: u64,
    /// `pgsteal_direct`.
    pub steal_direct: u64,
    /// `pgscan_kswapd`.
    pub scan_kswapd: u64,
    /// `pswpin`.
    pub swap_in: u64,
    /// `pswpout`.
    pub swap_out: u64,
    /// `oom_kill`.
    pub oom_kills: u64,
}

/// Cumulative stall time of a PSI file, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Psi {
    /// `some total=`: at least one task waited.
    pub some_us: u64,
    /// `full total=`: every non-idle task waited.
    pub full_us: u64,
}

/// Host-wide counters of the eBPF programs, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostProbes {
    /// Global direct reclaims begun by anybody but us.
    pub direct_reclaims: u64,
    /// kswapd wake-ups.
    pub kswapd_wakes: u64,
    /// Victims of the kernel's OOM killer.
    pub oom_victims: u64,
    /// Ring-buffer events that found no room.
    pub lost_events: u64,
    /// Counts that found no room in a map: the counters of some cgroup are too low.
    pub lost_counts: u64,
}

/// A workload's identity: the path of its cgroup below the cgroup root, and the inode of that directory.
/// Two cgroups that had the same path at different times differ in the inode. Written `path#inode`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkloadId {
    /// Path relative to the cgroup root, without a leading slash.
    pub path: String,
    /// Inode of the cgroup directory, which is also the kernel's cgroup id.
    pub inode: u64,
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.path, self.inode)
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.to_string()
    }
}

/// A text that is no workload id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a workload id (expected path#inode): {0:?}")]
pub struct BadWorkloadId(String);

impl TryFrom<String> for WorkloadId {
    type Error = BadWorkloadId;
    fn try_from(text: String) -> Result<Self, BadWorkloadId> {
        text.parse()
    }
}

impl FromStr for WorkloadId {
    type Err = BadWorkloadId;
    fn from_str(text: &str) -> Result<Self, BadWorkloadId> {
        text.rsplit_once('#')
            .and_then(|(path, inode)| Some(Self { path: path.to_owned(), inode: inode.parse().ok()? }))
            .ok_or_else(|| BadWorkloadId(text.to_owned()))
    }
}

/// How a workload may be treated, as its owner declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Name for people, unique among the workloads that are present.
    pub name: String,
    /// Who yields last; the scale of a Kubernetes `PriorityClass`.
    pub priority: i32,
    /// Whether it may be touched at all.
    pub preference: Preference,
    /// Rungs that may be used on it, gentlest first. `Free` is always allowed.
    pub rungs: Vec<Rung>,
    /// What a restart costs (the time to load the model again). Among equals the cheapest yields first.
    pub restart_cost_ms: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: String::new(),
            priority: 0,
            preference: Preference::None,
            rungs: vec![Rung::Trim, Rung::Throttle, Rung::Freeze, Rung::Kill],
            restart_cost_ms: 0,
        }
    }
}

/// systemd's words for how willing one is to be a victim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// An ordinary candidate.
    #[default]
    None,
    /// Only when nothing else is left.
    Avoid,
    /// Never.
    Omit,
}

impl Preference {
    /// The word used in configuration, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Avoid => "avoid",
            Self::Omit => "omit",
        }
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is being done to a workload, gentlest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Nothing.
    #[default]
    Free,
    /// Reclaim in small budgets.
    Trim,
    /// `memory.high`, a lease.
    Throttle,
    /// Give back GPU memory or unload the model. Planned by a later version: never chosen by this one.
    Offload,
    /// `cgroup.freeze`, then reclaim while frozen.
    Freeze,
    /// `cgroup.kill`.
    Kill,
}

impl Rung {
    /// All rungs, gentlest first.
    pub const ALL: [Self; 6] =
        [Self::Free, Self::Trim, Self::Throttle, Self::Offload, Self::Freeze, Self::Kill];

    /// The word used in configuration, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Trim => "trim",
            Self::Throttle => "throttle",
            Self::Offload => "offload",
            Self::Freeze => "freeze",
            Self::Kill => "kill",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One workload's readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// How it may be treated.
    pub spec: Spec,
    /// `memory.current`.
    pub current: Option<Bytes>,
    /// `memory.swap.current`.
    pub swap: Option<Bytes>,
    /// RAM that its swapped pages still take: those in zram are compressed, not gone. Zero with swap on a disk.
    pub swap_ram: Option<Bytes>,
    /// `memory.stat`; may be older than the sample (see `stat_at`), since reading it is dear.
    pub stat: Option<MemoryStat>,
    /// When `stat` was read.
    pub stat_at: Monotonic,
    /// `memory.high` as it stands, whoever set it.
    pub high: Option<Limit>,
    /// `memory.low` as it stands.
    pub low: Option<Limit>,
    /// `memory.max`.
    pub max: Option<Limit>,
    /// `memory.swap.max`.
    pub swap_max: Option<Limit>,
    /// `memory.events`.
    pub events: Option<Events>,
    /// `memory.pressure`, cumulative.
    pub psi: Option<Psi>,
    /// `cgroup.events`: `frozen`.
    pub frozen: Option<bool>,
    /// `cgroup.events`: `populated`.
    pub populated: Option<bool>,
    /// Cumulative counters of the eBPF programs for this cgroup and those below it.
    pub probes: Option<Probes>,
}

/// From `memory.stat`: bytes, and cumulative page counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStat {
    /// `anon`.
    pub anon: Bytes,
    /// `file` (includes `shmem`).
    pub file: Bytes,
    /// `shmem`.
    pub shmem: Bytes,
    /// `file_mapped`.
    pub file_mapped: Bytes,
    /// `inactive_file`.
    pub inactive_file: Bytes,
    /// `active_file`.
    pub active_file: Bytes,
    /// `kernel`.
    pub kernel: Bytes,
    /// `slab_reclaimable`.
    pub slab_reclaimable: Bytes,
    /// `unevictable` (mlocked and the like).
    pub unevictable: Bytes,
    /// `workingset_refault_anon`, pages.
    pub refault_anon: u64,
    /// `workingset_refault_file`, pages.
    pub refault_file: u64,
    /// `pgmajfault`.
    pub major_faults: u64,
    /// `pgfault`.
    pub faults: u64,
    /// `pgscan`, pages.
    pub scan: u64,
    /// `pgsteal`, pages.
    pub steal: u64,
}

/// From `memory.events`, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// `low`.
    pub low: u64,
    /// `high`.
    pub high: u64,
    /// `max`.
    pub max: u64,
    /// `oom`.
    pub oom: u64,
    /// `oom_kill`.
    pub oom_kill: u64,
}

/// Cumulative counters of the eBPF programs for one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Times a task of this cgroup went into global direct reclaim.
    pub direct_reclaims: u64,
    /// Time its tasks spent there.
    pub direct_reclaim_ns: u64,
    /// Reclaims of this cgroup's own memory, whoever had to do them, except those we asked for.
    pub memcg_reclaims: u64,
    /// Time its tasks spent reclaiming for a limit, be it this cgroup's or an ancestor's.
    pub memcg_reclaim_ns: u64,
    /// Time its tasks were throttled by vmscan.
    pub vmscan_throttled_ns: u64,
    /// Time its tasks slept over `memory.high`.
    pub over_high_ns: u64,
    /// Major page faults.
    pub major_faults: u64,
    /// User page faults (nearly all of them minor), counted only while the gate is armed.
    pub minor_faults: u64,
    /// Threads that the gate stopped.
    pub gate_stops: u64,
}

impl AddAssign for Probes {
    fn add_assign(&mut self, other: Self) {
        // Destructured in full, so that a new counter can't be forgotten.
        let Self {
            direct_reclaims,
            direct_reclaim_ns,
            memcg_reclaims,
            memcg_reclaim_ns,
            vmscan_throttled_ns,
            over_high_ns,
            major_faults,
            minor_faults,
            gate_stops,
        } = other;
        self.direct_reclaims += direct_reclaims;
        self.direct_reclaim_ns += direct_reclaim_ns;
        self.memcg_reclaims += memcg_reclaims;
        self.memcg_reclaim_ns += memcg_reclaim_ns;
        self.vmscan_throttled_ns += vmscan_throttled_ns;
        self.over_high_ns += over_high_ns;
        self.major_faults += major_faults;
        self.minor_faults += minor_faults;
        self.gate_stops += gate_stops;
    }
}
