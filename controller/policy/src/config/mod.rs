//! The configuration as the program uses it. `manifests/plimsoll.yaml` documents every key; reading text into
//! these types, with every error at once, is in `config::read`.

mod admission;
mod advice;
pub mod annotations;
pub mod ask;
mod daemon;
mod dry_run;
pub mod engine;
mod error;
mod gpu;
mod host;
mod kubernetes;
mod ladder;
mod nearest;
mod node;
mod pace;
pub mod preset;
mod quantity;
mod read;
mod rules;
mod scalar;
mod section;
mod selector;
pub mod signals;
#[cfg(test)]
mod tests;
pub mod ways;

pub use advice::advise;
pub use dry_run::DryRun;
pub use error::{ConfigError, Problem};
pub(crate) use ladder::MOST_ACTIONS;
pub use node::Node;
pub use preset::{Preset, Size, SizedHost};
pub use quantity::{bytes as memory, span as time};
pub use read::read;
pub use selector::Selector;

use serde::{Deserialize, Serialize};

use self::ask::Ask;
use self::ways::Means;
use crate::sample::{Preference, Rung};
use crate::units::{Bytes, Share, Span, is_default};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Which table the thresholds are from that are not given.
    pub preset: Preset,
    /// When the host is how short. Until [`Config::resolve`], for the smallest hosts that the thresholds given are valid on.
    pub host: HostThresholds,
    /// The same for hosts of every size, until it is known on which one this runs. What was written down has been resolved.
    #[serde(skip, default = "Vec::new")]
    pub by_size: Vec<SizedHost>,
    /// When a GPU is how short.
    pub gpu: Gpu,
    /// How the rungs behave.
    pub ladder: Ladder,
    /// How often to look.
    pub pace: Pace,
    /// How workloads are asked to give memory back.
    pub ask: Ask,
    /// Which cgroups are workloads, first match wins.
    pub workloads: Vec<Rule>,
    /// Workloads of this priority and above are protected: `memory.low`, sensed on, never victims while others are left.
    pub protect_priority: i32,
    /// How much may be promised to those who want to load a model.
    pub admission: Admission,
    /// Pods of this node, and what the API server is told.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes: Kubernetes,
    /// Paths and addresses of the daemon.
    pub daemon: Daemon,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            preset: Preset::Default,
            host: HostThresholds::default(),
            by_size: SizedHost::all(Preset::Default),
            gpu: Gpu::default(),
            ladder: Ladder::default(),
            pace: Pace::default(),
            ask: Ask::default(),
            workloads: Vec::new(),
            // A rule without a priority has 0: protecting it by default would leave nothing to take from.
            protect_priority: 1000,
            admission: Admission::default(),
            kubernetes: Kubernetes::default(),
            daemon: Daemon::default(),
        }
    }
}

/// Thresholds of the host resource, one set per tier above normal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostThresholds {
    /// Elevated.
    pub elevated: Threshold,
    /// Constrained.
    pub constrained: Threshold,
    /// Critical.
    pub critical: Threshold,
    /// Emergency.
    pub emergency: Threshold,
    /// How long each signal must hold before the tier goes up.
    pub dwell: Dwell,
    /// How far the signals other than the used share must be back before a tier may be left.
    pub leave: Leave,
    /// All signals must be below their leave values this long before the tier goes down, one tier at a time.
    pub dwell_down: Span,
    /// When the protected are taken to thrash.
    pub thrash: ThrashRates,
    /// Bytes kept back: exhaustion is when only this much is left.
    pub reserve: Bytes,
}

/// How long each signal must ask for a tier before that is entered. Forecast and used share of emergency count at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dwell {
    /// Used share.
    pub used: Span,
    /// Forecast.
    pub forecast: Span,
    /// Stall.
    pub stall: Span,
    /// Thrash, where memory is short by another signal as well.
    pub thrash: Span,
}

/// Leave values as shares of the threshold that was crossed. The used share has its own in each tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leave {
    /// Forecast: one and more, since it falls when it gets worse.
    pub forecast: Share,
    /// Stall.
    pub stall: Share,
    /// Thrash.
    pub thrash: Share,
}

/// When refaults and major faults of the protected are taken for thrash. The rates are those of the tiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrashRates {
    /// Pages per second below which nobody thrashes.
    pub healthy: u64,
    /// How long a rate must last where no other signal says that memory is short.
    pub sustained: Span,
    /// How long the rate must be healthy before it is over.
    pub recovery: Span,
    /// The smoothed rate, as a share of the threshold of critical, that corroborates a panic.
    pub panic_mean: Share,
}

/// The signals of one tier; the worst signal decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Used share at which the tier is entered.
    pub used: Share,
    /// Used share below which it may be left.
    pub leave: Share,
    /// Time to exhaustion below which it is entered.
    pub forecast: Option<Span>,
    /// Stall of protected workloads at which it is entered.
    pub stall: Share,
    /// Refaults + major faults per second of protected workloads at which it is entered. Elevated has none of its own.
    pub thrash: Option<u64>,
}

impl Default for HostThresholds {
    fn default() -> Self {
        Preset::Default.thresholds(Size::Small)
    }
}

impl Default for Dwell {
    fn default() -> Self {
        HostThresholds::default().dwell
    }
}

impl Default for Leave {
    fn default() -> Self {
        HostThresholds::default().leave
    }
}

impl Default for ThrashRates {
    fn default() -> Self {
        HostThresholds::default().thrash
    }
}

/// Thresholds of every GPU whose memory is its own, and what is peculiar to GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Elevated.
    pub elevated: GpuThreshold,
    /// Constrained.
    pub constrained: GpuThreshold,
    /// Critical.
    pub critical: GpuThreshold,
    /// Emergency.
    pub emergency: GpuThreshold,
    /// How long a signal must hold before the tier goes up. The used share of emergency counts at once.
    pub dwell: Span,
    /// How long the signals must be below their leave values before the tier goes down, one tier at a time.
    pub dwell_down: Span,
    /// How long a GPU counts as contested after its use grew or an allocation failed.
    pub contested_for: Span,
    /// How long a promise lasts of which nothing is seen to be used.
    pub claim: Span,
}

/// The signals of one tier of a GPU; the worse one decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuThreshold {
    /// Used share at which the tier is entered.
    pub used: Share,
    /// Used share below which it may be left.
    pub leave: Share,
    /// Time until it is full below which it is entered.
    pub forecast: Option<Span>,
}

impl Gpu {
    /// The tiers above normal by their names, the calmest first.
    #[must_use]
    pub const fn tiers(&self) -> [(&'static str, &GpuThreshold); 4] {
        [
            ("elevated", &self.elevated),
            ("constrained", &self.constrained),
            ("critical", &self.critical),
            ("emergency", &self.emergency),
        ]
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Preset::Default.gpu()
    }
}

/// How the rungs behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ladder {
    /// Rungs that may be used at all.
    pub rungs: Vec<Rung>,
    /// The most that one pass asks `memory.reclaim` for, per workload.
    pub reclaim_step: Bytes,
    /// How far below `memory.current` a throttle may be set at once, as a share of it.
    pub throttle_step: Share,
    /// Added to memory that can't be reclaimed: `memory.high` never goes below the sum.
    pub floor_margin: Bytes,
    /// How long a throttle holds without being renewed.
    pub throttle_lease: Span,
    /// How long a freeze may last in all before the workload is thawed or, where the tier still asks for it, killed.
    pub freeze_max: Span,
    /// How long a rung is held before it may go down for the first time; doubles with each repetition within ten minutes.
    pub hold: Span,
    /// How long to wait for `frozen 1`.
    pub freeze_deadline: Span,
    /// How long to wait for `populated 0` before the next kill may be considered.
    pub kill_deadline: Span,
    /// Whether the kernel's OOM killer is told our order (`oom_score_adj`, `memory.oom.group`).
    pub oom_order: bool,
    /// Whether the eBPF gate may stop workloads.
    pub gate: bool,
    /// Brakes (a throttle or a freeze of a workload that ran free) within an hour, per workload; survival is not bound by it.
    pub actions_per_hour: u32,
    /// How long a workload is not let go that was braked, let go and braked again three times in ten minutes.
    pub hold_off: Span,
    /// Which rungs are decided, journaled and reported, but not done.
    pub dry_run: DryRun,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            rungs: vec![Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill],
            reclaim_step: Bytes::mib(64),
            throttle_step: Share::percent(10),
            floor_margin: Bytes::mib(8),
            throttle_lease: Span::secs(5),
            freeze_max: Span::secs(120),
            hold: Span::secs(5),
            freeze_deadline: Span::millis(500),
            kill_deadline: Span::secs(5),
            oom_order: true,
            gate: true,
            actions_per_hour: 12,
            hold_off: Span::secs(300),
            dry_run: DryRun::default(),
        }
    }
}

/// How often to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pace {
    /// When all is calm.
    pub calm: Span,
    /// When the tier is above normal or memory fills quickly.
    pub busy: Span,
    /// How old `memory.stat` may be.
    pub stat: Span,
    /// How often to look for new workloads.
    pub discover: Span,
    /// How often to look at GPUs while one is nearly full or its use changes; a quarter as often while they are calm.
    pub gpu: Span,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            calm: Span::millis(500),
            busy: Span::millis(50),
            stat: Span::secs(2),
            discover: Span::secs(1),
            gpu: Span::millis(250),
        }
    }
}

/// Which cgroups or processes are a workload, and what they are worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Name for people; with several matches the cgroup's last path component is appended.
    pub name: String,
    /// What it matches.
    pub find: Find,
    /// Who yields last.
    pub priority: i32,
    /// Whether it may be touched.
    pub preference: Preference,
    /// Rungs that may be used; `None` = those of the ladder.
    pub rungs: Option<Vec<Rung>>,
    /// What a restart costs.
    pub restart_cost: Span,
    /// By what means it can be asked to give memory back.
    #[serde(skip_serializing_if = "is_default")]
    pub ask: Means,
}

/// How a rule finds its workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Find {
    /// A glob over paths below the cgroup root (`*` stays within a component).
    Cgroup(String),
    /// A systemd unit; its cgroup wherever it is in the tree.
    Unit(String),
    /// A process whose command line contains `command`, owned by `user` where given. The workload is the cgroup
    /// that it is in, provided that everything in that cgroup matches.
    Process {
        /// Part of the command line, arguments joined by blanks.
        command: String,
        /// Name or number of the user.
        user: Option<String>,
    },
}

impl Default for Find {
    fn default() -> Self {
        Self::Cgroup(String::new())
    }
}

/// Whether pods of this node are workloads, which of them, and what the API server is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Whether this machine is a node whose pods are workloads.
    pub enabled: bool,
    /// The node's name; `None` = the environment's `NODE_NAME`, else the host's name.
    pub node: Option<String>,
    /// How to reach the API server; `None` = as a pod of the cluster does.
    pub kubeconfig: Option<String>,
    /// Labels of the pods that are managed; `None` = of all.
    pub select: Option<String>,
    /// Namespaces whose pods are managed; empty = all.
    pub namespaces: Vec<String>,
    /// Namespaces whose pods never are.
    pub omit_namespaces: Vec<String>,
    /// Whether pods are told what is done to them, by Events.
    pub events: bool,
    /// Whether the node gets the condition `plimsoll.dev/MemoryTier`.
    pub condition: bool,
    /// Whether the node is tainted while it is short.
    pub taint: bool,
    /// Whether pods may be handed to other nodes.
    pub evict: bool,
    /// How long a pod has to have been braked before that.
    pub evict_after: Span,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            enabled: false,
            node: None,
            kubeconfig: None,
            select: Some("plimsoll.dev/managed!=false".into()),
            namespaces: Vec::new(),
            omit_namespaces: vec!["kube-system".into()],
            events: true,
            condition: true,
            taint: true,
            evict: true,
            evict_after: Span::secs(30),
        }
    }
}

/// How much may be promised to those who want to load a model, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admission {
    /// Kept back at tier normal.
    pub margin_normal: Bytes,
    /// Kept back at tier elevated.
    pub margin_elevated: Bytes,
    /// Kept back at tier constrained. Beyond that nothing is promised.
    pub margin_constrained: Bytes,
    /// How long a reservation lasts without a heartbeat.
    pub ttl: Span,
    /// How long a model that lives in its own cgroup may take to load before its reservation needs growth to last.
    pub load: Span,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            margin_normal: Bytes::mib(1536),
            margin_elevated: Bytes::mib(2048),
            margin_constrained: Bytes::mib(2560),
            ttl: Span::secs(120),
            load: Span::secs(600),
        }
    }
}

/// Paths and addresses of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Daemon {
    /// Address of `/metrics`, `/healthz`, `/readyz`, `/status`; `None` = no HTTP.
    pub listen: Option<std::net::SocketAddr>,
    /// Where the ledger of everything that is set lives; a tmpfs.
    pub run_dir: String,
    /// Journal file; `None` = no journal.
    pub journal: Option<String>,
    /// The journal is renamed to `.1` beyond this size.
    pub journal_size: Bytes,
    /// How many files it may have, the one that is written included.
    pub journal_files: u32,
    /// Where what was learned is kept; `None` = forgotten at the end.
    pub state: Option<String>,
    /// Where cgroup v2 is mounted.
    pub cgroup_root: String,
    /// The parent cgroup of what `plimsoll exec` starts, below the root.
    pub models: String,
    /// The control socket, absolute or below `run_dir`; `None` = no control socket.
    pub control: Option<String>,
    /// NVIDIA's management library, for the loader: a name that it finds or an absolute path; `None` = not asked.
    pub nvml: Option<String>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 9478))),
            run_dir: "/run/plimsoll".into(),
            journal: Some("/var/log/plimsoll/journal.jsonl".into()),
            journal_size: Bytes::mib(64),
            journal_files: 2,
            state: Some("/var/lib/plimsoll/state.json".into()),
            cgroup_root: "/sys/fs/cgroup".into(),
            models: "plimsoll.slice/models".into(),
            control: Some("control.sock".into()),
            nvml: Some("libnvidia-ml.so.1".into()),
        }
    }
}
