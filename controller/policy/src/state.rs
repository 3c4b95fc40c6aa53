//! Everything that one pass hands to the next. Small, serializable, one owner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admission::Desk;
use crate::appetite::{Appetite, Refusals};
use crate::assess::thrashing::ThrashTrack;
use crate::assess::tier::TierState;
use crate::eviction::Eviction;
use crate::gpu::GpuId;
use crate::history::Trend;
use crate::learned::{Learned, Rest};
use crate::pause::Pause;
use crate::plan::{Evidence, Gate, Would};
use crate::sample::{Rung, WorkloadId};
use crate::units::{Bytes, Monotonic, is_default};
use crate::voluntary::Voluntary;

/// What the policy remembers. The default is that of a start: no history, nothing held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Number of the last action.
    pub action: u64,
    /// Tier and the timers of its hysteresis.
    pub tier: TierState,
    /// Whether the protected thrash.
    pub thrash: ThrashTrack,
    /// `MemAvailable` over time.
    pub available: Trend,
    /// `MemAvailable` with free swap and what zram takes to hold its pages: reclaim to swap does not move it.
    pub with_swap: Trend,
    /// Swap in use.
    pub swapped: Trend,
    /// File pages.
    pub file: Trend,
    /// Host PSI `some` over time.
    pub host_psi: Trend,
    /// Every workload seen lately.
    pub workloads: BTreeMap<WorkloadId, Track>,
    /// What was learned of those who have no workload at the moment, by path, or by name where the path does not last.
    pub known: BTreeMap<String, Learned>,
    /// What was killed lately, by what its next start is known by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub killed: BTreeMap<String, Killed>,
    /// Who came with this sample, for the decisions of the same pass.
    #[serde(skip)]
    pub newcomers: Vec<WorkloadId>,
    /// The gate as the last plan left it: a workload found frozen that was a target was stopped by it.
    pub gate: Gate,
    /// When the gate was last called for.
    pub gate_due: Option<Monotonic>,
    /// Since when survival has been at stake.
    pub desperate: Option<Monotonic>,
    /// When a workload was last given back what had been taken.
    pub restored: Option<Monotonic>,
    /// Since when no signal has asked for a brake, whatever the tier still is.
    pub quiet: Option<Monotonic>,
    /// Since when the tier has been above normal, and nobody has left for another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strained: Option<Monotonic>,
    /// Every GPU seen lately whose memory is a resource of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, GpuTrack>,
    /// Reservations.
    #[serde(skip_serializing_if = "is_default")]
    pub admission: Desk,
    /// What operators hold off.
    #[serde(skip_serializing_if = "is_default")]
    pub pause: Pause,
}

/// What is remembered of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Track {
    /// When it was last in a sample.
    pub seen: Monotonic,
    /// What it is known by, where that is not its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// `memory.current` + `memory.swap.current`.
    pub usage: Trend,
    /// `memory.swap.current` when it was last read.
    pub swap: Bytes,
    /// File pages that it uses, when `memory.stat` was last read: of a protected one they are not available.
    pub hot: Bytes,
    /// RAM that its swapped pages take, when it was last known.
    pub swap_ram: Bytes,
    /// User page faults while the gate is armed.
    pub minor_faults: Trend,
    /// `memory.pressure` `some`, in microseconds.
    pub psi: Trend,
    /// Time in direct reclaim, in nanoseconds.
    pub reclaim: Trend,
    /// Pages refaulted.
    pub refaults: Trend,
    /// Major faults.
    pub major_faults: Trend,
    /// Refaults and major faults per second, smoothed.
    pub thrash: u64,
    /// When `thrash` was last brought up to date.
    pub thrash_at: Monotonic,
    /// `memory.events` `high`.
    pub high_events: Trend,
    /// `memory.events` `oom_kill`, when it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// `pgscan`, pages.
    pub scan: Trend,
    /// `pgsteal`, pages.
    pub steal: Trend,
    /// What actions on it were worth.
    pub learned: Learned,
    /// Reclaim that brought nothing lately.
    pub rest: Rest,
    /// Reclaim that is under way.
    pub asked: Option<Asked>,
    /// What the last kill was to free, in memory and swap. Its outcome comes when nothing is left to be on a rung.
    pub promised: Bytes,
    /// What is being done to it.
    pub held: Held,
    /// How often lately.
    pub repeats: Repeats,
    /// No throttle before this: the last one was futile.
    pub no_throttle: Monotonic,
    /// Not let go before this, however calm it is.
    pub held_off: Monotonic,
    /// Of one that is probed: its last freezes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spell: Option<Spell>,
    /// How long it has been braked in vain, and whether it is handed to another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Box<Eviction>>,
    /// What a dry rung would do to it.
    pub would: Option<Would>,
    /// When that was last called for.
    pub would_at: Monotonic,
    /// What is asked of its own doing; `None` where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voluntary: Option<Box<Voluntary>>,
}

impl Track {
    /// The rung that it is on, by what is done to it and by what it was asked.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.held.rung.max(self.voluntary.as_ref().map_or(Rung::Free, |it| it.rung()))
    }

    /// What is asked of it, for a change.
    pub(crate) fn volunteer(&mut self) -> &mut Voluntary {
        self.voluntary.get_or_insert_default()
    }
}

/// What is remembered of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuTrack {
    /// When it was last in a sample.
    pub seen: Monotonic,
    /// Tier and the timers of its hysteresis.
    pub tier: TierState,
    /// What is free of it.
    pub free: Trend,
    /// Since when the forecast has been that of an emergency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filling: Option<Monotonic>,
    /// Since when somebody would have to die for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desperate: Option<Monotonic>,
    /// What one of the protected was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusals>,
    /// Whether anybody wants more of it.
    pub appetite: Appetite,
    /// Which of the workloads do.
    pub holders: BTreeMap<WorkloadId, Appetite>,
}

/// A reclaim whose end has not been heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// When it was asked for.
    pub at: Monotonic,
    /// The budget.
    pub budget: Bytes,
    /// What it was to bring into headroom: clean page cache is there already.
    pub promised: Bytes,
    /// How fast.
    pub per_second: Bytes,
}

/// What is being done to a workload, since when and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// The rung.
    pub rung: Rung,
    /// Number of the action that put it there.
    pub action: u64,
    /// Why.
    pub evidence: Vec<Evidence>,
    /// Since when.
    pub since: Monotonic,
    /// Not lowered before this.
    pub until: Monotonic,
    /// `memory.high`, on throttle.
    pub high: Option<Bytes>,
    /// `memory.low`, of a protected workload.
    pub low: Option<Bytes>,
    /// Growth when it was braked: what it would do if it were let go.
    pub growth: i64,
    /// The lease of a throttle.
    pub lease: Lease,
    /// On throttle, where it is no brake but the way back to freedom.
    pub leash: Option<Leash>,
    /// When `memory.reclaim` was last asked for.
    pub trimmed: Option<Monotonic>,
}

/// The lease of a throttle: it ends unless it is seen to help.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// Ends then.
    pub until: Monotonic,
    /// When the present review period began.
    pub begun: Monotonic,
    /// `memory.current` at that time.
    pub current: Bytes,
    /// `memory.events` `high` at that time.
    pub high_events: u64,
    /// `pgscan` and `pgsteal` at that time, if they were known.
    pub scanned: Option<(u64, u64)>,
    /// When `memory.high` was last moved.
    pub stepped: Monotonic,
}

impl Held {
    /// The rung as a brake: a workload on the leash is being let go.
    #[must_use]
    pub fn brake(&self) -> Rung {
        if self.leash.is_some() { Rung::Free } else { self.rung }
    }
}

/// The `memory.high` of a workload that is being let go: it is raised as memory allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leash {
    /// Since when.
    pub since: Monotonic,
    /// When it last ran into it.
    pub pulled: Monotonic,
    /// `memory.events` `high` at that time.
    pub high_events: u64,
    /// When it was last raised.
    pub raised: Monotonic,
    /// Since when it has been running into it in vain.
    pub stuck: Option<Monotonic>,
}

/// Kills of what goes by one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Killed {
    /// How often lately.
    pub times: u32,
    /// When it last was.
    pub at: Monotonic,
}

/// Freezes that a probe may see as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spell {
    /// When it was last frozen or thawed.
    pub last: Monotonic,
    /// It is not frozen any more from then on.
    pub until: Monotonic,
}

/// How often a workload was braked lately: hold times grow with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repeats {
    /// Times, less one for every ten quiet minutes.
    pub times: u32,
    /// When it last counted.
    pub at: Monotonic,
    /// When it was braked, oldest first: those of the last hour, as far as the budget has use for them.
    pub brakes: Vec<Monotonic>,
}
