//! What clients ask of the pass. Requests are part of the sample: whatever was asked, in which order, is in the journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::GpuId;
use crate::sample::WorkloadId;
use crate::units::{Bytes, Span, is_default};

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Number of the call, rising with time. The answer bears it.
    pub ticket: u64,
    /// Who calls.
    pub caller: Caller,
    /// What for.
    pub call: Call,
}

/// Whom a client may speak for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// Everybody.
    Root,
    /// The workload that this cgroup is, or is within.
    Cgroup(WorkloadId),
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Room for a model.
    Reserve(Reserve),
    /// Another size for a reservation. More is decided as a new one would be, and never waits.
    Amend {
        /// The reservation.
        id: u64,
        /// Bytes in all.
        bytes: Bytes,
    },
    /// The model is loaded.
    Commit {
        /// The reservation.
        id: u64,
        /// What it took.
        measured: Bytes,
    },
    /// It is still being loaded.
    Heartbeat {
        /// The reservation.
        id: u64,
    },
    /// What was not used is no longer wanted.
    Release {
        /// The reservation.
        id: u64,
    },
    /// Whoever made an earlier call is gone: it waits no longer, and what it was granted and did not commit is released.
    Withdraw {
        /// Number of that call.
        ticket: u64,
    },
    /// A load of this workload ended for lack of memory.
    ReportOom {
        /// Its cgroup.
        cgroup: WorkloadId,
    },
    /// An allocation on a GPU failed for lack of memory. The driver tells nobody but the process that it happened to.
    CudaOutOfMemory {
        /// The cgroup of that process.
        cgroup: WorkloadId,
        /// The device; `None` = it could not say, which counts for all that its workload uses.
        gpu: Option<GpuId>,
    },
    /// How much would be granted now.
    Headroom,
    /// An operator's: let everything go, and do nothing for so long.
    Pause {
        /// From now.
        lasts: Span,
    },
    /// An operator's: end that, and what was said by [`Self::LetGo`].
    Resume,
    /// An operator's: let go, and take nothing for so long.
    LetGo {
        /// Of whom; `None` = of all.
        workload: Option<WorkloadId>,
        /// From now.
        lasts: Span,
    },
}

/// Room for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reserve {
    /// The cgroup that will be charged for it: that of a workload, or one within, or one that is none (yet).
    pub holder: WorkloadId,
    /// Sizes that would do, the most wanted first.
    pub sizes: Vec<Bytes>,
    /// Bytes by device, beside whichever of the sizes: all is granted, or nothing. [`GpuId::ANY`] is the device with the most room. A
    /// model that is spread over several is one entry each: nobody else knows how it splits.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, Bytes>,
    /// What the holder was charged for when it asked; counts where the sample does not know the holder.
    pub current: Bytes,
    /// Its priority; counts where the sample does not know the holder.
    pub priority: i32,
    /// Whether it had processes in it: once it has none, there is nobody to use what was reserved.
    pub populated: bool,
    /// How long the reservation lasts without a heartbeat; `None` = as configured.
    pub ttl: Option<Span>,
    /// How long to wait for room.
    pub wait: Span,
    /// It lives by its cgroup and not by whoever asked: a cgroup with processes in it is its heartbeat.
    pub detached: bool,
}
