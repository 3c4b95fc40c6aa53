//! What a workload gives of itself when it is asked: levels, offers, wishes, and what came of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::GpuId;
use crate::plan::ActResult;
use crate::sample::{Rung, WorkloadId};
use crate::units::{Bytes, Monotonic, Span, is_default};

/// How much a workload is asked to give of itself, gentlest first. A level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing: what was given is taken back. As a wish after an offload or an unload it means: restore.
    #[default]
    Nothing,
    /// Collect garbage, empty caches that refill by themselves.
    Gc,
    /// Everything that costs speed but no state: prompt caches, free blocks of the allocator, KV cache that is not in use.
    Aggressive,
    /// GPU memory goes to host memory: engine sleep, `.to("cpu")`. It serves slowly or not at all.
    Offload,
    /// The model is dropped and will be loaded again. It does not serve.
    Unload,
}

impl Level {
    /// All that can be asked for, gentlest first.
    pub const ALL: [Self; 4] = [Self::Gc, Self::Aggressive, Self::Offload, Self::Unload];

    /// The word used in configuration, on the control socket, in metrics and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Gc => "gc",
            Self::Aggressive => "aggressive",
            Self::Offload => "offload",
            Self::Unload => "unload",
        }
    }

    /// The level with this word.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The rung that a workload is on while this is wanted of it.
    #[must_use]
    pub const fn rung(self) -> Rung {
        match self {
            Self::Nothing => Rung::Free,
            Self::Gc | Self::Aggressive => Rung::Trim,
            Self::Offload | Self::Unload => Rung::Offload,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gains {
    /// Of host memory. Negative where the level moves memory to the host.
    #[serde(skip_serializing_if = "is_default")]
    pub host: i64,
    /// Of GPU memory.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, Bytes>,
}

/// What a workload can be asked for at the moment, by whichever way it can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// What it can be asked for, and what that would bring where somebody knows.
    pub levels: BTreeMap<Level, Prospect>,
    /// What is in force by its own word; `None` where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Requests that it is serving; `None` where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inflight: Option<u32>,
    /// Number of the wish that is being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<u64>,
    /// Whether requests can be held off while it is offloaded or unloaded; otherwise the next one may undo it.
    #[serde(skip_serializing_if = "is_default")]
    pub gated: bool,
}

/// What a level would bring, as whoever offers it estimates. The policy trusts what it has measured more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prospect {
    /// Bytes that it would free; `None` where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gains: Option<Gains>,
    /// How long it would take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takes: Option<Span>,
}

/// What is wanted of a workload's own doing: an end state, like everything in a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Counts up with everything that is asked of any workload: the same number is the same asking, however often it is planned.
    pub number: u64,
    /// The level to be on.
    pub level: Level,
    /// GPUs that are short; empty where host memory is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuId>,
    /// What it is to bring, for the meters to be held against. Of a restore: what it will take, as negative or missing gains.
    pub expected: Gains,
    /// From the asking to the end of verification.
    pub deadline: Span,
}

/// How an asking ended. A number is answered once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concession {
    /// The workload.
    pub workload: WorkloadId,
    /// Number of the wish.
    pub number: u64,
    /// The level that was asked for.
    pub level: Level,
    /// By which way: `client`, `engine`, `watch`, `signal`, `webhook`, `hook`, `checkpoint`. Several are joined by `+`.
    pub by: String,
    /// Done: the meters show at least the share of what was expected that the configuration wants (of a restore: it answers
    /// again). Partial: they show less. Failed: in the words of whoever was asked.
    pub result: ActResult,
    /// When it was asked.
    pub begun: Monotonic,
    /// Until the meters showed it, or the deadline.
    pub took: Span,
    /// What the meters show, before minus after: GPU memory of the workload, and of host memory that which only it can give:
    /// `memory.current` and `memory.swap.current` less file pages.
    pub freed: Gains,
    /// What the workload itself claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Gains>,
}
