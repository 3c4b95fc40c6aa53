//! What the sources of a look have found so far, before processes are turned into cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::sample::Gap;
use plimsoll_policy::units::Bytes;

use super::Held;

/// One look in the making.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Every GPU.
    pub(super) gpus: BTreeMap<GpuId, Gpu>,
    /// What each process holds.
    pub(super) processes: BTreeMap<u32, Held>,
    /// GPUs whose processes could not be read.
    pub(super) blind: BTreeSet<GpuId>,
    /// PCI addresses that have been read already, like `0000:03:00.0`.
    pub(super) addresses: BTreeSet<String>,
    /// What could not be read.
    pub(super) gaps: Vec<Gap>,
}

impl Reading {
    /// Notes what a process holds. Drivers list a process once for computing and once for graphics, with the same figure: the larger
    /// one counts, and what nobody knows stays unknown.
    pub(super) fn hold(&mut self, pid: u32, gpu: &GpuId, bytes: Option<Bytes>) {
        let known = self.processes.entry(pid).or_default().entry(gpu.clone()).or_insert(bytes);
        *known = known.zip(bytes).map(|(known, new)| known.max(new));
    }

    /// Notes a failure.
    pub(super) fn gap(&mut self, what: impl Into<String>, why: &impl fmt::Display) {
        self.gaps.push(Gap { what: what.into(), why: why.to_string() });
    }

    /// Notes that nobody can say who uses a GPU.
    pub(super) fn blind(&mut self, gpu: &GpuId, why: &impl fmt::Display) {
        self.gap(format!("gpu:{gpu}"), why);
        self.blind.insert(gpu.clone());
    }
}
