//! What is asked of a workload's own doing, the level that it is on by that, and what it gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::concession::{Gains, Level, Wish};
use crate::gpu::GpuId;
use crate::plan::Evidence;
use crate::sample::{Rung, Workload};
use crate::state::Repeats;
use crate::units::{Bytes, Monotonic, Span, is_default};

/// Everything that is remembered of asking one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Voluntary {
    /// What is wanted of it: until it is answered where it ends by itself, until it is undone where it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// Of a wish that has not been answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// The level that it is on by what was answered: nothing, offload or unload.
    #[serde(skip_serializing_if = "is_default")]
    pub level: Level,
    /// What it gave to get there, as the meters had it: a restore will take as much.
    #[serde(skip_serializing_if = "is_default")]
    pub gave: Gains,
    /// What it held when it had given that.
    #[serde(skip_serializing_if = "is_default")]
    pub left: Had,
    /// Since when it is on that level.
    pub since: Monotonic,
    /// Not restored before this.
    pub until: Monotonic,
    /// Number of the last action.
    pub action: u64,
    /// Why.
    #[serde(skip_serializing_if = "is_default")]
    pub evidence: Vec<Evidence>,
    /// Levels that are not worth another try for a while; of [`Level::Nothing`], restores that failed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pauses: BTreeMap<Level, Pause>,
    /// How often it was offloaded or unloaded lately.
    #[serde(skip_serializing_if = "is_default")]
    pub repeats: Repeats,
    /// When a request undid an offload or an unload, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reloads: Vec<Monotonic>,
    /// Not asked to offload or unload before this: requests undo it.
    pub held_off: Monotonic,
}

/// A wish that has not been answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// When it was asked.
    pub at: Monotonic,
    /// How long it is expected to take.
    pub takes: Span,
    /// What the workload held then.
    pub had: Had,
}

/// What a workload holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Had {
    /// `memory.current`.
    pub host: Bytes,
    /// What its death would give back to the host.
    pub own: Bytes,
    /// GPU memory.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<GpuId, Bytes>,
}

/// A level that is not asked for, for a while that grows each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// Times in a row that it brought nothing.
    pub times: u32,
    /// Not asked for before this.
    pub until: Monotonic,
}

impl Pause {
    /// Pauses double at most this often.
    const DOUBLINGS: u32 = 6;

    /// After one more that brought nothing.
    pub(crate) fn longer(self, base: Span, at: Monotonic) -> Self {
        let span = Span(base.0.saturating_mul(1 << self.times.min(Self::DOUBLINGS)));
        Self { times: self.times.saturating_add(1), until: at + span }
    }
}

impl Had {
    /// What a workload holds now; what can't be read counts as nothing.
    pub(crate) fn of(workload: &Workload, own: Bytes) -> Self {
        let gpus = workload.gpus.iter().filter_map(|(id, bytes)| Some((id.clone(), (*bytes)?)));
        Self { host: workload.current.unwrap_or_default(), own, gpus: gpus.collect() }
    }

    fn gpu(&self, gpu: &GpuId) -> Bytes {
        self.gpus.get(gpu).copied().unwrap_or_default()
    }
}

impl Voluntary {
    /// The rung that stands for what is wanted.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.wish.as_ref().map_or(Rung::Free, |wish| wish.level.rung())
    }

    /// The wish that has not been answered.
    pub(crate) fn asking(&self) -> Option<(&Wish, &Pending)> {
        self.wish.as_ref().zip(self.pending.as_ref())
    }

    /// The same, where it is to give something.
    pub(crate) fn giving(&self) -> Option<(&Wish, &Pending)> {
        self.asking().filter(|(wish, _)| wish.level > Level::Nothing)
    }

    /// Whether it is being offloaded or unloaded.
    pub(crate) fn leaves(&self) -> bool {
        self.giving().is_some_and(|(wish, _)| wish.level >= Level::Offload)
    }

    /// Whether its memory is, or is about to be, in the host's: a limit there would torment it.
    pub(crate) fn is_moved(&self) -> bool {
        let level = self.wish.as_ref().map_or(self.level, |wish| wish.level);
        level == Level::Offload || self.level == Level::Offload
    }

    /// How much longer the answer may take: who is late by a second is expected to need another one.
    pub(crate) fn remaining(&self, at: Monotonic) -> Option<Span> {
        let (_, Pending { at: asked, takes, .. }) = self.asking()?;
        let passed = at.since(*asked);
        Some(Span(passed.0.abs_diff(takes.0)))
    }

    /// Host memory that is still to come of what is asked; what has been seen to come already is in headroom.
    pub(crate) fn promised(&self, workload: &Workload) -> Bytes {
        let Some((wish, pending)) = self.giving() else { return Bytes::ZERO };
        let expected = Bytes(u64::try_from(wish.expected.host).unwrap_or(0));
        let seen = workload.current.map_or(Bytes::ZERO, |now| pending.had.host.saturating_sub(now));
        expected.saturating_sub(seen)
    }

    /// The same of a GPU.
    pub(crate) fn promised_on(&self, gpu: &GpuId, workload: &Workload) -> Bytes {
        let Some((wish, pending)) = self.giving() else { return Bytes::ZERO };
        let expected = wish.expected.gpus.get(gpu).copied().unwrap_or_default();
        let now = workload.gpus.get(gpu).copied().flatten();
        let seen = now.map_or(Bytes::ZERO, |now| pending.had.gpu(gpu).saturating_sub(now));
        expected.saturating_sub(seen)
    }

    /// Host memory that what is asked will take, and that is not seen there yet.
    pub(crate) fn moving(&self, workload: &Workload) -> Bytes {
        let Some((wish, pending)) = self.asking() else { return Bytes::ZERO };
        let takes =
            if wish.expected.host < 0 { Bytes(wish.expected.host.unsigned_abs()) } else { Bytes::ZERO };
        let seen = workload.current.map_or(Bytes::ZERO, |now| now.saturating_sub(pending.had.host));
        takes.saturating_sub(seen)
    }

    /// Whether what it gave is seen to be back, on the host or on a GPU.
    pub(crate) fn is_back(&self, workload: &Workload) -> bool {
        let back = |gave: u64, left: Bytes, now: Option<Bytes>| {
            gave >= WORTH && now.is_some_and(|now| now.saturating_sub(left).0 >= gave / 4 * 3)
        };
        let on_gpu = |(gpu, gave): (&GpuId, &Bytes)| {
            back(gave.0, self.left.gpu(gpu), workload.gpus.get(gpu).copied().flatten())
        };
        let on_host = u64::try_from(self.gave.host).unwrap_or(0);
        back(on_host, self.left.host, workload.current) || self.gave.gpus.iter().any(on_gpu)
    }

    /// Whether level in force would have to be undone by asking.
    pub(crate) fn lasts(&self) -> bool {
        self.level >= Level::Offload
    }
}

/// Less is within the noise of a program that does nothing.
const WORTH: u64 = 16 << 20;

impl Gains {
    /// Whether nothing is known to be gained.
    pub(crate) fn is_nothing(&self) -> bool {
        self.host <= 0 && self.gpus.values().all(|bytes| *bytes == Bytes::ZERO)
    }

    /// Host memory that is gained.
    pub(crate) fn host_bytes(&self) -> Bytes {
        Bytes(u64::try_from(self.host).unwrap_or(0))
    }

    /// Both together.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.host = sum.host.saturating_add(other.host);
        for (gpu, bytes) in &other.gpus {
            let entry = sum.gpus.entry(gpu.clone()).or_default();
            *entry = *entry + *bytes;
        }
        sum
    }

    /// What taking it back takes.
    pub(crate) fn reversed(&self) -> Self {
        Self { host: self.host.saturating_neg(), gpus: BTreeMap::new() }
    }
}
