//! What is remembered: reservations, who waits, and whose estimates were wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ErrorMargin;
use super::request::{Caller, Reserve};
use crate::gpu::GpuId;
use crate::sample::WorkloadId;
use crate::units::{Bytes, Monotonic, Share, Span, is_default};

/// Different workloads whose errors are remembered: more than a node has models.
const ERRORS: usize = 256;

/// Where admission is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desk {
    /// Number of the last reservation.
    pub last: u64,
    /// In the order in which they were granted. One that ended is there until the next pass.
    pub reservations: Vec<Reservation>,
    /// Those who wait.
    pub waiting: Vec<Waiting>,
    /// The most that holders of reservations have had since they were last granted one.
    pub peaks: BTreeMap<WorkloadId, Bytes>,
    /// The most that they have had of GPUs where something is held for them.
    #[serde(skip_serializing_if = "is_default")]
    pub gpu_peaks: BTreeMap<WorkloadId, BTreeMap<GpuId, Bytes>>,
    /// By cgroup path: a workload that comes again after an OOM has another inode.
    pub errors: BTreeMap<String, ErrorMargin>,
    /// The same for memory of GPUs.
    #[serde(skip_serializing_if = "is_default")]
    pub gpu_errors: BTreeMap<String, BTreeMap<GpuId, ErrorMargin>>,
}

/// Bytes that somebody has been promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Its number.
    pub id: u64,
    /// The call that it was granted to.
    pub ticket: u64,
    /// The cgroup that will be charged.
    pub holder: WorkloadId,
    /// Where it stands.
    pub stage: Stage,
    /// The size that was granted.
    pub asked: Bytes,
    /// What is held for it: with the learned error.
    pub promised: Bytes,
    /// What of it has been seen in the holder's memory.
    pub settled: Bytes,
    /// The same by GPU.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, Hold>,
    /// When it was granted.
    pub since: Monotonic,
    /// When something was last settled.
    pub grew: Monotonic,
    /// When the caller last said something of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heard: Monotonic,
    /// Ends then.
    pub until: Monotonic,
    /// So long after the last heartbeat.
    pub ttl: Span,
    /// Lives by its cgroup, not by a connection.
    pub detached: bool,
    /// The holder has been seen with processes in it.
    pub lived: bool,
}

/// What is held of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What was asked for.
    pub asked: Bytes,
    /// What is held for it: with the learned error.
    pub promised: Bytes,
    /// What of it has been seen in the holder's memory there.
    pub settled: Bytes,
    /// What the device had in use when that was last looked at: the evidence where nobody knows what the holder has.
    pub level: Bytes,
}

impl Hold {
    /// Bytes that are promised and not yet used.
    #[must_use]
    pub fn unsettled(&self) -> Bytes {
        self.promised.saturating_sub(self.settled)
    }
}

impl Reservation {
    /// Whether all that was promised is used, of the host and of all GPUs.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.promised <= self.settled && self.gpus.values().all(|hold| hold.unsettled() == Bytes::ZERO)
    }

    /// The same of a GPU.
    #[must_use]
    pub fn unsettled_on(&self, gpu: &GpuId) -> Bytes {
        let held = self.gpus.get(gpu).filter(|_| !self.stage.is_over());
        held.map_or(Bytes::ZERO, Hold::unsettled)
    }

    /// Bytes that are promised and not yet used. They count as used.
    #[must_use]
    pub fn unsettled(&self) -> Bytes {
        if self.stage.is_over() { Bytes::ZERO } else { self.promised.saturating_sub(self.settled) }
    }
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is being loaded.
    Granted,
    /// It is loaded; what has not been seen of it expires.
    Committed,
    /// Everything was used.
    Settled,
    /// The rest was given back: by whoever asked, or since he or all the holder's processes are gone.
    Released,
    /// The rest was not used in time, without a sign of life.
    Expired,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Granted, Self::Committed, Self::Settled, Self::Released, Self::Expired];

    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Committed => "committed",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing is held any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Settled | Self::Released | Self::Expired)
    }
}

/// A request that waits for room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its call.
    pub ticket: u64,
    /// Who made it.
    pub caller: Caller,
    /// What it wants.
    pub wants: Reserve,
    /// Since when.
    pub since: Monotonic,
    /// Until then.
    pub deadline: Monotonic,
    /// The GPU that lacks the room; `None` = the host, or nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<GpuId>,
}

impl Desk {
    /// Bytes that are promised and not yet used.
    #[must_use]
    pub fn reserved(&self) -> Bytes {
        self.reservations.iter().map(Reservation::unsettled).sum()
    }

    /// The same of a GPU.
    #[must_use]
    pub fn reserved_on(&self, gpu: &GpuId) -> Bytes {
        self.reservations.iter().map(|r| r.unsettled_on(gpu)).sum()
    }

    /// Whether somebody waits for room on a GPU.
    #[must_use]
    pub fn waits_for(&self, gpu: &GpuId) -> bool {
        self.waiting.iter().any(|w| w.lacks.as_ref() == Some(gpu))
    }

    /// How much more than asked this cgroup gets of a GPU.
    pub(super) fn error_on(&self, path: &str, gpu: &GpuId, at: Monotonic) -> Share {
        let error = self.gpu_errors.get(path).and_then(|of_one| of_one.get(gpu));
        error.map_or(Share::ZERO, |error| error.share(at))
    }

    /// A workload ran out of a GPU's memory.
    pub(super) fn failed_on(&mut self, path: &str, gpu: &GpuId, at: Monotonic) -> Share {
        self.gpu_errors.retain(|_, of_one| {
            of_one.retain(|_, error| error.share(at) > Share::ZERO);
            !of_one.is_empty()
        });
        if self.gpu_errors.len() >= ERRORS && !self.gpu_errors.contains_key(path) {
            return Share::ZERO;
        }
        let of_one = self.gpu_errors.entry(path.to_owned()).or_default();
        of_one.entry(gpu.clone()).or_default().grow(1, at)
    }

    /// Reservations that hold something, or may do so again.
    pub(super) fn live(&mut self) -> impl Iterator<Item = &mut Reservation> {
        self.reservations.iter_mut().filter(|r| !r.stage.is_over())
    }

    /// How much more than asked this cgroup gets.
    pub(super) fn error(&self, path: &str, at: Monotonic) -> Share {
        self.errors.get(path).map_or(Share::ZERO, |error| error.share(at))
    }

    /// A workload ran out of memory.
    pub(crate) fn failed(&mut self, path: &str, times: u64, at: Monotonic) -> Share {
        self.errors.retain(|_, error| error.share(at) > Share::ZERO);
        if self.errors.len() >= ERRORS && !self.errors.contains_key(path) {
            return Share::ZERO;
        }
        self.errors.entry(path.to_owned()).or_default().grow(times, at)
    }
}
