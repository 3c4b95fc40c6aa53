//! `memory.low` counts only up to what every ancestor grants, so a protected workload's ancestors get the sum of what
//! is protected below them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use plimsoll_policy::plan::{Act, Outcome, Plan};
use plimsoll_policy::units::{Bytes, Limit};

use super::worker::{page_floor, raw};
use super::{differs, foreign};
use crate::ledger::{Flags, Ledger, SlotId};
use crate::sense::cgroup::Cgroup;

/// The ancestors that we have given a `memory.low`.
pub(super) struct Ancestors {
    root: PathBuf,
    held: BTreeMap<String, (Cgroup, SlotId)>,
    /// Those that somebody else wrote since: theirs, for as long as they are needed.
    foreign: BTreeSet<String>,
}

impl Ancestors {
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self { root: ledger.cgroup_root(), held: BTreeMap::new(), foreign: BTreeSet::new() }
    }

    /// Grants what the plan protects. Returns those that somebody else has changed meanwhile.
    pub(super) fn grant(&mut self, plan: &Plan, ledger: &Ledger) -> Vec<Outcome> {
        let wanted = sums(plan);
        self.foreign.retain(|path| wanted.contains_key(path));
        let done: Vec<String> =
            self.held.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        for path in done {
            if let Some((cgroup, slot)) = self.held.remove(&path) {
                put_back(&cgroup, slot, ledger);
            }
        }
        wanted.iter().filter_map(|(path, low)| self.hold(path, *low, ledger)).collect()
    }

    /// The foreign write, where there was one.
    fn hold(&mut self, path: &str, low: Bytes, ledger: &Ledger) -> Option<Outcome> {
        if self.foreign.contains(path) {
            return None;
        }
        if !self.held.contains_key(path) {
            // Gone, or nothing can be written down: its workloads are protected less.
            let cgroup = Cgroup::open(&self.root, path).ok()?;
            let slot = ledger.claim(&cgroup.id).ok()?;
            self.held.insert(path.to_owned(), (cgroup, slot));
        }
        let (cgroup, slot) = self.held.get(path)?;
        // An ancestor without a memory controller has no such file, and nothing below it has one either.
        let now_set = cgroup.low().ok()?;
        let ours = ledger.entry(*slot).filter(|entry| entry.flags.contains(Flags::LOW));
        if ours.as_ref().is_some_and(|entry| entry.low.1 != raw(now_set)) {
            let outcome = foreign(cgroup.id.clone(), Act::Low(now_set));
            ledger.lower(*slot, Flags::LOW);
            self.held.remove(path);
            self.foreign.insert(path.to_owned());
            return Some(outcome);
        }
        let found = ours.map_or(raw(now_set), |entry| entry.low.0);
        let low = page_floor(low);
        if found < low.0 && differs(low, now_set) {
            ledger.note_low(*slot, found, low.0);
            // Refused: the ledger says so at the next reading, as if it were foreign.
            let _ = cgroup.set_low(Limit::Bytes(low));
        }
        None
    }
}

fn put_back(cgroup: &Cgroup, slot: SlotId, ledger: &Ledger) {
    if let Some(entry) = ledger.entry(slot)
        && entry.flags.contains(Flags::LOW)
        && cgroup.low().map(raw) == Ok(entry.low.1)
    {
        // A cgroup that went away meanwhile needs no undoing.
        let _ = cgroup.set_low(super::limit(entry.low.0));
    }
    ledger.lower(slot, Flags::LOW);
    ledger.give_back(slot);
}

/// What is protected below each ancestor, the root excepted.
fn sums(plan: &Plan) -> BTreeMap<String, Bytes> {
    let mut sums: BTreeMap<String, Bytes> = BTreeMap::new();
    for (id, low) in plan.workloads.iter().filter_map(|(id, wanted)| Some((id, wanted.low?))) {
        let mut path = &*id.path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            let sum = sums.entry(parent.to_owned()).or_default();
            *sum = *sum + low;
            path = parent;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_policy::plan::Wanted;
    use plimsoll_policy::sample::WorkloadId;

    fn plan(lows: &[(&str, u64)]) -> Plan {
        let wanted = |low: u64| Wanted { low: Some(Bytes::mib(low)), ..Wanted::default() };
        let id = |path: &str| WorkloadId { path: path.into(), inode: 2 };
        Plan {
            workloads: lows.iter().map(|(path, low)| (id(path), wanted(*low))).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn an_ancestor_gets_the_sum_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cg/models/memory.low");
        for child in ["a", "b"] {
            std::fs::create_dir_all(dir.path().join("cg/models").join(child)).unwrap();
        }
        std::fs::write(&file, "0\n").unwrap();
        let root = dir.path().join("cg");
        let ledger = Ledger::own(&dir.path().join("run"), root.to_str().unwrap()).unwrap();
        let mut ancestors = Ancestors::new(&ledger);
        assert_eq!(ancestors.grant(&plan(&[("models/a", 100), ("models/b", 50)]), &ledger), []);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(&(150_u64 << 20).to_string()));
        assert_eq!(ledger.entries().count(), 1);
        std::fs::write(&file, "4096\n").unwrap();
        assert_eq!(ancestors.grant(&plan(&[("models/a", 100)]), &ledger).len(), 1, "somebody else wrote");
        assert_eq!(ancestors.grant(&plan(&[("models/a", 100)]), &ledger), [], "and is not fought");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "4096\n");
        ancestors.grant(&plan(&[]), &ledger);
        assert_eq!(ledger.entries().count(), 0);
    }
}
