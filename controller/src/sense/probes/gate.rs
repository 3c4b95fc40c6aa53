//! The gate's user-space half: two sets of cgroups, one switch, one link.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use aya::programs::links::FdLink;
use plimsoll_policy::units::Span;

use super::error::ProbesError;
use super::hook;

/// See [`super::Probes::arm`].
pub(super) struct Gate {
    state: Array<MapData, plimsoll_ebpf::Gate>,
    targets: Set,
    protected: Set,
    window: Span,
    program: Result<&'static str, String>,
    link: Option<FdLink>,
}

/// A set of cgroup ids in the kernel, and what it holds.
pub(super) struct Set {
    name: &'static str,
    map: HashMap<MapData, u64, u8>,
    held: BTreeSet<u64>,
}

impl Set {
    pub(super) fn new(name: &'static str, map: HashMap<MapData, u64, u8>) -> Self {
        Self { name, map, held: BTreeSet::new() }
    }

    fn replace(&mut self, wanted: &BTreeSet<u64>) -> Result<(), ProbesError> {
        for gone in self.held.difference(wanted) {
            // It fails only where it is gone already.
            let _ = self.map.remove(gone);
        }
        self.held.retain(|held| wanted.contains(held));
        for cgroup in wanted {
            if self.held.insert(*cgroup) {
                self.map.insert(cgroup, 1, 0).map_err(ProbesError::map(self.name))?;
            }
        }
        Ok(())
    }
}

impl Gate {
    pub(super) fn new(
        state: Array<MapData, plimsoll_ebpf::Gate>,
        [targets, protected]: [Set; 2],
        window: Span,
        program: Result<&'static str, String>,
    ) -> Self {
        Self { state, targets, protected, window, program, link: None }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn arm(
        &mut self,
        ebpf: &mut Ebpf,
        targets: &[u64],
        protected: &[u64],
    ) -> Result<(), ProbesError> {
        let (targets, protected) = (targets.iter().copied().collect(), protected.iter().copied().collect());
        if self.is_armed() && self.targets.held == targets && self.protected.held == protected {
            return Ok(());
        }
        // Lowered first, so that nobody is stopped by half of the new sets.
        self.lower()?;
        self.targets.replace(&targets)?;
        self.protected.replace(&protected)?;
        if self.link.is_none() {
            let program = self.program.as_ref().map_err(|why| ProbesError::Gate(why.clone()))?;
            self.link = Some(hook::attach(ebpf, program).map_err(ProbesError::Gate)?);
        }
        self.reset()
    }

    pub(super) fn reset(&mut self) -> Result<(), ProbesError> {
        if !self.is_armed() {
            return Ok(());
        }
        self.set(plimsoll_ebpf::Gate { armed: 1, window_ns: self.window.0, raised_ns: 0 })
    }

    pub(super) fn disarm(&mut self) -> Result<(), ProbesError> {
        let lowered = self.lower();
        // Detached even where the map failed: without the program nobody is stopped.
        self.link = None;
        lowered?;
        self.targets.replace(&BTreeSet::new())?;
        self.protected.replace(&BTreeSet::new())
    }

    fn lower(&mut self) -> Result<(), ProbesError> {
        self.set(plimsoll_ebpf::Gate::default())
    }

    fn set(&mut self, state: plimsoll_ebpf::Gate) -> Result<(), ProbesError> {
        self.state.set(0, state, 0).map_err(ProbesError::map("GATE"))
    }
}
