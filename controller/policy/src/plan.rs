//! What a pass concluded and wants: tier, wanted end state of every workload, findings, outcomes; with the reasons for it.

mod reasons;
mod wants;

use std::collections::BTreeMap;

pub use reasons::{Evidence, Refusal, Refused};
pub use wants::Wants;

use serde::{Deserialize, Serialize};

use crate::admission::{Answer, Reservation, Waiting};
use crate::assess::forecast::Forecast;
use crate::assess::thrashing::ThrashState;
use crate::concession::Wish;
use crate::gpu::GpuId;
use crate::sample::{Rung, WorkloadId};
use crate::units::{Bytes, Limit, Monotonic, Share, Span, is_default};

/// How short a resource is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Enough.
    #[default]
    Normal,
    /// Trim, protect.
    Elevated,
    /// Throttle.
    Constrained,
    /// Freeze.
    Critical,
    /// Kill, where nothing gentler can do.
    Emergency,
}

impl Tier {
    /// All tiers, calmest first.
    pub const ALL: [Self; 5] =
        [Self::Normal, Self::Elevated, Self::Constrained, Self::Critical, Self::Emergency];

    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Constrained => "constrained",
            Self::Critical => "critical",
            Self::Emergency => "emergency",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one pass made of the sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The host's tier after hysteresis.
    pub tier: Tier,
    /// The signal that decided it.
    pub because: Option<Evidence>,
    /// Used share; `None` where meminfo was a gap.
    pub used: Option<Share>,
    /// Bytes until exhaustion, not counting the file pages of protected workloads as available.
    pub headroom: Option<Bytes>,
    /// Time until exhaustion at the present growth.
    pub forecast: Forecast,
    /// Share of time that protected workloads stalled.
    pub stall: Option<Share>,
    /// Refaults and major faults of the protected, per second.
    pub thrash_per_second: Option<u64>,
    /// What that has come to over time.
    #[serde(default)]
    pub thrash: ThrashState,
    /// Bytes wanted back to be calm again.
    pub deficit: Bytes,
    /// Growth in bytes per second of each workload that grows or shrinks; absent also where two readings of the same inode
    /// are missing.
    pub growth: BTreeMap<WorkloadId, i64>,
    /// Every GPU whose memory is a resource of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<GpuId, GpuAssessment>,
}

impl Assessment {
    /// The worst tier of all resources.
    #[must_use]
    pub fn worst_tier(&self) -> Tier {
        self.gpus.values().map(|gpu| gpu.tier).fold(self.tier, Tier::max)
    }
}

/// What one pass made of a GPU's readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuAssessment {
    /// The tier after hysteresis.
    pub tier: Tier,
    /// The signal that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<Evidence>,
    /// Used share, with what is promised; `None` where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<Share>,
    /// Bytes until it is full, less what is promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Bytes>,
    /// Time until it is full at the present growth.
    pub forecast: Forecast,
    /// Bytes wanted back to be calm again.
    pub deficit: Bytes,
    /// Whether somebody needs more of it: its use moves, an allocation failed, or a reservation waits. Engines fill a GPU once and
    /// for all: one that is merely full is not short, and nobody has to make room on it.
    pub contested: bool,
}

impl GpuAssessment {
    /// Whether it could not be read this time: the tier is that of before, and nothing new is done for its sake.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.used.is_none()
    }
}

/// The wanted end state of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// The rung it is on from now.
    pub rung: Rung,
    /// `memory.high` to hold; `None` = as it was found.
    #[serde(skip_serializing_if = "is_default")]
    pub high: Option<Bytes>,
    /// Whether that is no brake but the way back to freedom: a limit that is raised as memory allows.
    #[serde(skip_serializing_if = "is_default")]
    pub leash: bool,
    /// `memory.low` to hold; `None` = as it was found.
    #[serde(skip_serializing_if = "is_default")]
    pub low: Option<Bytes>,
    /// Whether it shall be frozen.
    #[serde(skip_serializing_if = "is_default")]
    pub frozen: bool,
    /// Whether it shall be killed.
    #[serde(skip_serializing_if = "is_default")]
    pub kill: bool,
    /// Whether its pod shall be handed to another node: it is wanted until it is gone, or somebody said no.
    #[serde(skip_serializing_if = "is_default")]
    pub evict: bool,
    /// Budget for `memory.reclaim` in this pass.
    #[serde(skip_serializing_if = "is_default")]
    pub reclaim: Option<Bytes>,
    /// What is wanted of its own doing; absent where nothing was, or what was is undone and answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// When a throttle or a freeze ends unless it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Monotonic>,
    /// It is not let go before this, however calm: it flapped, or its brakes of the hour are used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_off: Option<Monotonic>,
    /// What would be done to it if the rung were not dry. Nothing of it is done, and nothing else rests on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would: Option<Would>,
    /// Number of the action, given when the rung last changed; `explain` finds it by this.
    #[serde(skip_serializing_if = "is_default")]
    pub action: u64,
    /// Why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// What the action will bring; only in the pass that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// What was not done instead; only in the pass that took the action, and at most [`Refused::MOST`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

impl Wanted {
    /// The GPU that a kill is to make room on; `None` where it is for the host, or no kill.
    #[must_use]
    pub fn killed_for(&self) -> Option<&GpuId> {
        self.evidence.iter().filter(|_| self.kill).find_map(|fact| match fact {
            Evidence::OnGpu { gpu, .. } => Some(gpu),
            _ => None,
        })
    }
}

/// The end state that a dry rung stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Would {
    /// The rung.
    pub rung: Rung,
    /// Whether it would be handed to another node.
    #[serde(skip_serializing_if = "is_default")]
    pub evict: bool,
    /// Number of the action that was not taken; `explain` finds it by this.
    pub action: u64,
    /// Since when it has been called for.
    pub since: Monotonic,
    /// Why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// What an action is expected to bring: to be held against its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expected {
    /// Bytes that headroom gains before the deadline.
    pub bytes: Bytes,
    /// Bytes per second of growth that it stops.
    pub growth: Bytes,
    /// From the decision until the last of the bytes is there; until growth has stopped where there are none.
    pub takes: Span,
    /// Outcomes that the figures rest on, the older ones forgotten by and by; with 0 they are priors.
    pub observations: u32,
}

/// What the reaction thread may do on its own when the kernel says that reclaim began, before the next pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// Workloads whose threads stop at their next page fault once reclaim began, and are then frozen. Empty = disarmed.
    pub targets: Vec<WorkloadId>,
    /// Workloads whose own reclaim trips the gate (global direct reclaim always does).
    pub protected: Vec<WorkloadId>,
}

impl Gate {
    /// Whether the page-fault program shall be attached.
    #[must_use]
    pub fn armed(&self) -> bool {
        !self.targets.is_empty()
    }
}

/// The wanted end state of the node. It leaves no choice to execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What is wanted of every workload of the sample.
    pub workloads: Wants,
    /// The kernel's brake.
    pub gate: Gate,
    /// How long the next sample may wait if nothing happens.
    pub next: Span,
    /// By an operator's word nothing is done before this, and everything was let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Monotonic>,
    /// What clients are told, of this pass's requests and of earlier ones that waited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// All reservations after this pass; those that ended with it are there for the last time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation>,
    /// Who waits for room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
}

/// What `lint` has to say of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The workload whose action it is about; `None` = the gate or the plan as a whole.
    pub workload: Option<WorkloadId>,
    /// Number of the invariant in the README's list.
    pub invariant: u8,
    /// A fatal finding blocks the action.
    pub fatal: bool,
    /// In words.
    pub message: String,
}

/// What an action achieved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The workload.
    pub workload: WorkloadId,
    /// What was tried.
    pub act: Act,
    /// How it ended.
    pub result: ActResult,
    /// When it was begun.
    pub begun: Monotonic,
    /// How long it took.
    pub took: Span,
    /// `memory.current` before minus after, where the action was to free memory; of a kill with `memory.swap.current`, read when
    /// nothing was populated any more. `None` where the cgroup was removed before it could be read.
    pub freed: Option<Bytes>,
}

/// One write, or one series of writes, to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// `memory.reclaim` of a budget.
    Reclaim(Bytes),
    /// `memory.high`.
    High(Limit),
    /// `memory.low`.
    Low(Limit),
    /// `cgroup.freeze` = 1, until `frozen 1`.
    Freeze,
    /// `cgroup.freeze` = 0, and SIGCONT for what the gate had stopped.
    Thaw,
    /// `cgroup.kill`, until `populated 0`.
    Kill,
    /// The Eviction API was asked to have the pod end here in order, for its owner to start it on another node.
    Evict,
}

impl Act {
    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reclaim(_) => "reclaim",
            Self::High(_) => "high",
            Self::Low(_) => "low",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Kill => "kill",
            Self::Evict => "evict",
        }
    }
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActResult {
    /// Done and seen to be done.
    Done,
    /// Done in part: the deadline passed, or the kernel could free no more.
    Partial,
    /// The cgroup is gone: an answer, not an error.
    Gone,
    /// A second look before freeze or kill showed that it is no longer wanted.
    Withdrawn,
    /// Somebody else wrote the value meanwhile; it was left alone.
    Foreign,
    /// Whoever has a say in it said no for now: a disruption budget allows none, in words.
    Blocked(String),
    /// The kernel refused; the error in words.
    Failed(String),
}
