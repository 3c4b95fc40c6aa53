//! What one look at the machine gave. A reading that failed is `None` and named in `gaps`; it is never a zero.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::Request;
use crate::concession::{Concession, Offer};
use crate::gpu::{Gpu, GpuId};
use crate::plan::Outcome;
use crate::units::{Bytes, Limit, Monotonic, Span, is_default};

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
    /// A client asked for something.
    Request,
    /// The use of a GPU's memory moved, or a GPU came or was lost.
    Gpu,
    /// What a workload can be asked for changed, or it answered.
    Concession,
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
    /// Every GPU that is known, those whose memory is the host's included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<GpuId, Gpu>,
    /// Every workload that was found.
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// What actions that ended since the last sample achieved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// What workloads that were asked gave since the last sample.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conceded: Vec<Concession>,
    /// What clients asked for since the last sample, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
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
    #[serde(skip_serializing_if = "is_default")]
    pub meminfo: Option<Meminfo>,
    /// `/proc/vmstat`.
    #[serde(skip_serializing_if = "is_default")]
    pub vmstat: Option<Vmstat>,
    /// `/proc/pressure/memory`, cumulative.
    #[serde(skip_serializing_if = "is_default")]
    pub psi: Option<Psi>,
    /// Cumulative counters of the eBPF programs for the whole host.
    #[serde(skip_serializing_if = "is_default")]
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
#[serde(default)]
pub struct Vmstat {
    /// `workingset_refault_anon`.
    #[serde(skip_serializing_if = "is_default")]
    pub refault_anon: u64,
    /// `workingset_refault_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub refault_file: u64,
    /// `pgmajfault`.
    #[serde(skip_serializing_if = "is_default")]
    pub major_faults: u64,
    /// `pgscan_direct`.
    #[serde(skip_serializing_if = "is_default")]
    pub scan_direct: u64,
    /// `pgsteal_direct`.
    #[serde(skip_serializing_if = "is_default")]
    pub steal_direct: u64,
    /// `pgscan_kswapd`.
    #[serde(skip_serializing_if = "is_default")]
    pub scan_kswapd: u64,
    /// `pswpin`.
    #[serde(skip_serializing_if = "is_default")]
    pub swap_in: u64,
    /// `pswpout`.
    #[serde(skip_serializing_if = "is_default")]
    pub swap_out: u64,
    /// `oom_kill`.
    #[serde(skip_serializing_if = "is_default")]
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
    #[serde(skip_serializing_if = "is_default")]
    pub direct_reclaims: u64,
    /// kswapd wake-ups.
    #[serde(skip_serializing_if = "is_default")]
    pub kswapd_wakes: u64,
    /// Victims of the kernel's OOM killer.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_victims: u64,
    /// Ring-buffer events that found no room.
    #[serde(skip_serializing_if = "is_default")]
    pub lost_events: u64,
    /// Counts that found no room in a map: the counters of some cgroup are too low.
    #[serde(skip_serializing_if = "is_default")]
    pub lost_counts: u64,
}

/// A workload's identity: the path of its cgroup below the cgroup root, and the inode of that directory.
/// Two cgroups that had the same path at different times differ in the inode. Written `path#inode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkloadId {
    /// Path relative to the cgroup root, without a leading slash. Shared: every pass hands ids on.
    pub path: Arc<str>,
    /// Inode of the cgroup directory, which is also the kernel's cgroup id.
    pub inode: u64,
}

impl PartialOrd for WorkloadId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By path, then by inode. Paths under Kubernetes are long and begin alike, so the one that a sample, the state and a plan share
/// is told by its address.
impl Ord for WorkloadId {
    fn cmp(&self, other: &Self) -> Ordering {
        let same = Arc::ptr_eq(&self.path, &other.path);
        let paths = if same { Ordering::Equal } else { self.path.cmp(&other.path) };
        paths.then(self.inode.cmp(&other.inode))
    }
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
            .and_then(|(path, inode)| Some(Self { path: path.into(), inode: inode.parse().ok()? }))
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
    /// Its class in Kubernetes: of several with the same priority the lower class yields first.
    #[serde(skip_serializing_if = "is_default")]
    pub qos: Qos,
    /// The longest that it may be frozen without a break, where that is less than the ladder allows: beyond it, somebody who
    /// watches it (a liveness probe) would have it killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_max: Option<Span>,
    /// Its path does not last: it is known by its name from one start to the next.
    #[serde(skip_serializing_if = "is_default")]
    pub by_name: bool,
    /// How long it takes to end in order when it is asked to; `None` where nobody can hand it to another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evictable: Option<Span>,
}

/// Quality of service of a pod, from what it requests and what it is limited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Qos {
    /// Neither requests nor limits.
    BestEffort,
    /// In between; also what is not in Kubernetes.
    #[default]
    Burstable,
    /// Every container is limited to what it requests.
    Guaranteed,
}

impl Spec {
    /// What it is known by from one start to the next: each restart of a container brings another path.
    #[must_use]
    pub fn key<'a>(&'a self, id: &'a WorkloadId) -> &'a str {
        if self.by_name && !self.name.is_empty() { &self.name } else { &id.path }
    }
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: String::new(),
            priority: 0,
            preference: Preference::None,
            rungs: vec![Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill],
            restart_cost_ms: 0,
            qos: Qos::Burstable,
            freeze_max: None,
            by_name: false,
            evictable: None,
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
    /// By its own doing: give back GPU memory, or unload the model.
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
    #[serde(skip_serializing_if = "is_default")]
    pub current: Option<Bytes>,
    /// `memory.swap.current`.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Option<Bytes>,
    /// RAM that its swapped pages still take: those in zram are compressed, not gone. Zero with swap on a disk.
    #[serde(skip_serializing_if = "is_default")]
    pub swap_ram: Option<Bytes>,
    /// `memory.stat`; may be older than the sample (see `stat_at`), since reading it is dear.
    #[serde(skip_serializing_if = "is_default")]
    pub stat: Option<MemoryStat>,
    /// When `stat` was read.
    pub stat_at: Monotonic,
    /// `memory.high` as it stands, whoever set it.
    #[serde(skip_serializing_if = "is_default")]
    pub high: Option<Limit>,
    /// `memory.low` as it stands.
    #[serde(skip_serializing_if = "is_default")]
    pub low: Option<Limit>,
    /// `memory.max`.
    #[serde(skip_serializing_if = "is_default")]
    pub max: Option<Limit>,
    /// `memory.swap.max`.
    #[serde(skip_serializing_if = "is_default")]
    pub swap_max: Option<Limit>,
    /// `memory.events`.
    #[serde(skip_serializing_if = "is_default")]
    pub events: Option<Events>,
    /// `memory.pressure`, cumulative.
    #[serde(skip_serializing_if = "is_default")]
    pub psi: Option<Psi>,
    /// `cgroup.events`: `frozen`.
    #[serde(skip_serializing_if = "is_default")]
    pub frozen: Option<bool>,
    /// `cgroup.events`: `populated`.
    #[serde(skip_serializing_if = "is_default")]
    pub populated: Option<bool>,
    /// Cumulative counters of the eBPF programs for this cgroup and those below it.
    #[serde(skip_serializing_if = "is_default")]
    pub probes: Option<Probes>,
    /// GPU memory that its processes hold, by device; `None` for a device that it uses by an amount that nobody knows.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, Option<Bytes>>,
    /// What it can be asked for; `None` where there is no way to ask.
    #[serde(skip_serializing_if = "is_default")]
    pub offer: Option<Offer>,
}

/// From `memory.stat`: bytes, and cumulative page counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStat {
    /// `anon`.
    #[serde(skip_serializing_if = "is_default")]
    pub anon: Bytes,
    /// `file` (includes `shmem`).
    #[serde(skip_serializing_if = "is_default")]
    pub file: Bytes,
    /// `shmem`.
    #[serde(skip_serializing_if = "is_default")]
    pub shmem: Bytes,
    /// `file_mapped`.
    #[serde(skip_serializing_if = "is_default")]
    pub file_mapped: Bytes,
    /// `inactive_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub inactive_file: Bytes,
    /// `active_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub active_file: Bytes,
    /// `kernel`.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: Bytes,
    /// `slab_reclaimable`.
    #[serde(skip_serializing_if = "is_default")]
    pub slab_reclaimable: Bytes,
    /// `unevictable` (mlocked and the like).
    #[serde(skip_serializing_if = "is_default")]
    pub unevictable: Bytes,
    /// `workingset_refault_anon`, pages.
    #[serde(skip_serializing_if = "is_default")]
    pub refault_anon: u64,
    /// `workingset_refault_file`, pages.
    #[serde(skip_serializing_if = "is_default")]
    pub refault_file: u64,
    /// `pgmajfault`.
    #[serde(skip_serializing_if = "is_default")]
    pub major_faults: u64,
    /// `pgfault`.
    #[serde(skip_serializing_if = "is_default")]
    pub faults: u64,
    /// `pgscan`, pages.
    #[serde(skip_serializing_if = "is_default")]
    pub scan: u64,
    /// `pgsteal`, pages.
    #[serde(skip_serializing_if = "is_default")]
    pub steal: u64,
}

/// From `memory.events`, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// `low`.
    #[serde(skip_serializing_if = "is_default")]
    pub low: u64,
    /// `high`.
    #[serde(skip_serializing_if = "is_default")]
    pub high: u64,
    /// `max`.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// `oom`.
    #[serde(skip_serializing_if = "is_default")]
    pub oom: u64,
    /// `oom_kill`.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill: u64,
}

/// Cumulative counters of the eBPF programs for one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Times a task of this cgroup went into global direct reclaim.
    #[serde(skip_serializing_if = "is_default")]
    pub direct_reclaims: u64,
    /// Time its tasks spent there.
    #[serde(skip_serializing_if = "is_default")]
    pub direct_reclaim_ns: u64,
    /// Reclaims of this cgroup's own memory, whoever had to do them, except those we asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub memcg_reclaims: u64,
    /// Time its tasks spent reclaiming for a limit, be it this cgroup's or an ancestor's.
    #[serde(skip_serializing_if = "is_default")]
    pub memcg_reclaim_ns: u64,
    /// Time its tasks were throttled by vmscan.
    #[serde(skip_serializing_if = "is_default")]
    pub vmscan_throttled_ns: u64,
    /// Time its tasks slept over `memory.high`.
    #[serde(skip_serializing_if = "is_default")]
    pub over_high_ns: u64,
    /// Major page faults.
    #[serde(skip_serializing_if = "is_default")]
    pub major_faults: u64,
    /// User page faults (nearly all of them minor), counted only while the gate is armed.
    #[serde(skip_serializing_if = "is_default")]
    pub minor_faults: u64,
    /// Threads that the gate stopped.
    #[serde(skip_serializing_if = "is_default")]
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
