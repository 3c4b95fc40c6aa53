//! What the loads and the demo's guest write down, as JSON lines; the host reads the same types back.
//! Every moment is nanoseconds on the guest's `CLOCK_MONOTONIC`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One request of the open-loop client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it was due to be sent: latency counts from here, whenever it was really sent.
    pub due_ns: u64,
    /// From then until its answer came, or, where none came, until the client stopped waiting.
    pub latency_ns: u64,
    /// Whether an answer came at all.
    pub answered: bool,
}

impl Request {
    /// The client's patience: an answer that comes later is of no use to anybody.
    pub const PATIENCE_NS: u64 = 1_000_000_000;

    /// Refused, never answered, or answered later than [`Self::PATIENCE_NS`].
    #[must_use]
    pub const fn lost(&self) -> bool {
        !self.answered || self.latency_ns > Self::PATIENCE_NS
    }
}

/// What the monitor saw in one look, every 10 ms. Counters are cumulative. A file that could not be read gives `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When the look began.
    pub at_ns: u64,
    /// The model server's cgroup.
    pub server: Group,
    /// The batch job's cgroup.
    pub batch: Group,
    /// `MemFree`, bytes.
    pub free: Option<u64>,
    /// `MemAvailable`, bytes.
    pub available: Option<u64>,
    /// `SwapTotal` - `SwapFree`, bytes.
    pub swap_used: Option<u64>,
    /// Host PSI `some total=`, microseconds.
    pub psi_some_us: Option<u64>,
    /// Host PSI `full total=`, microseconds.
    pub psi_full_us: Option<u64>,
    /// `allocstall_*`: how often an allocation had to reclaim by itself.
    pub direct_reclaims: Option<u64>,
    /// `workingset_refault_*`: pages that were needed again after they had been evicted.
    pub refaults: Option<u64>,
    /// `oom_kill`.
    pub oom_kills: Option<u64>,
}

/// One cgroup in a [`Reading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// `memory.current`, bytes.
    pub current: Option<u64>,
    /// `memory.swap.current`, bytes.
    pub swap: Option<u64>,
    /// `memory.high`, bytes; `None` = `max`.
    pub high: Option<u64>,
    /// `memory.low`, bytes.
    pub low: Option<u64>,
    /// `memory.pressure`: `some total=`, microseconds.
    pub psi_some_us: Option<u64>,
    /// `cgroup.events`: `frozen`.
    pub frozen: Option<bool>,
    /// `cgroup.events`: `populated`.
    pub populated: Option<bool>,
}

/// How a run of the demo went, as the guest saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Kernel release.
    pub kernel: String,
    /// When the client began.
    pub began_ns: u64,
    /// When the source of pressure was told to grow.
    pub growth_ns: u64,
    /// When the watch ended, before anything was stopped.
    pub ended_ns: u64,
    /// How each load stood at the end of the watch.
    pub loads: BTreeMap<String, Fate>,
    /// The cgroups at the end of the watch, and, with protection, after the controller was told to go.
    pub at_end: BTreeMap<String, Group>,
    /// As above; `None` without protection.
    pub after_release: Option<BTreeMap<String, Group>>,
    /// How the controller ended when it was told to: its exit code.
    pub controller_exit: Option<i32>,
    /// `memory.current` and `memory.peak` of the controller's cgroup at the end of the watch, bytes.
    pub controller_memory: Option<(u64, u64)>,
    /// `cpu.stat` `usage_usec` of the controller's cgroup at the moment of growth and at the end of the watch.
    pub controller_cpu_us: Option<(u64, u64)>,
}

/// How a load stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Alive.
    Running,
    /// Gone by itself, with this exit code.
    Exited(i32),
    /// Killed by this signal; `kernel_oom` is its cgroup's `oom_kill` count.
    Killed {
        /// The signal.
        signal: i32,
        /// OOM kills by the kernel in its cgroup.
        kernel_oom: u64,
    },
}
