//! `memory.low` counts only up to what every ancestor grants, so a protected workload's ancestors get the sum of what
//! is protected below them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::{Bytes, Limit};

use super::limits::{Overwritten, differs, limit};
use super::others::File;
use super::patience::Patience;
use super::worker::{page_floor, raw};
use crate::ledger::{Flags, Ledger, SlotId};
use crate::sense::cgroup::Cgroup;
use crate::sense::clock::now;

/// The ancestors that we have given a `memory.low`.
pub(super) struct Ancestors {
    root: PathBuf,
    held: BTreeMap<String, Ancestor>,
}

struct Ancestor {
    cgroup: Cgroup,
    slot: SlotId,
    patience: Patience,
}

impl Ancestors {
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self { root: ledger.cgroup_root(), held: BTreeMap::new() }
    }

    /// Grants what each protected workload gets beyond what somebody else grants it. Returns those that somebody else has
    /// changed meanwhile.
    pub(super) fn grant(&mut self, increments: &[(WorkloadId, Bytes)], ledger: &Ledger) -> Vec<Overwritten> {
        let wanted = sums(increments);
        let done: Vec<String> =
            self.held.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        for ancestor in done.iter().filter_map(|path| self.held.remove(path)) {
            put_back(&ancestor, ledger);
        }
        wanted.iter().filter_map(|(path, low)| self.hold(path, *low, ledger)).collect()
    }

    /// The foreign write, where there was one.
    fn hold(&mut self, path: &str, increment: Bytes, ledger: &Ledger) -> Option<Overwritten> {
        if !self.held.contains_key(path) {
            // Gone, or nothing can be written down: its workloads are protected less.
            let cgroup = Cgroup::open(&self.root, path).ok()?;
            let slot = ledger.claim(&cgroup.id).ok()?;
            let patience = Patience::default();
            self.held.insert(path.to_owned(), Ancestor { cgroup, slot, patience });
        }
        let Ancestor { cgroup, slot, patience } = self.held.get_mut(path)?;
        // An ancestor without a memory controller has no such file, and nothing below it has one either.
        let now_set = cgroup.low().ok()?;
        let ours = ledger.low(*slot);
        if let Some(held) = ours.filter(|held| !held.is_ours(raw(now_set))) {
            ledger.lower(*slot, Flags::LOW);
            let (id, again) = (cgroup.id.clone(), patience.overwritten(now()));
            return Some(Overwritten { id, file: File::Low, ours: held.set, now_set, again });
        }
        // What somebody else grants is for those that he grants it to; ours comes on top.
        let found = ours.map_or(now_set, |held| limit(held.found));
        let Limit::Bytes(granted) = found else { return None };
        let low = page_floor(granted + increment);
        if granted < low && differs(low, now_set) && patience.is_over(now()) {
            if ours.is_none() {
                patience.stands(now());
            }
            ledger.note_low(*slot, raw(now_set), low.0);
            // Refused: its workloads are protected less, and what stands is still known as ours.
            let _ = cgroup.set_low(Limit::Bytes(low));
        }
        None
    }
}

fn put_back(ancestor: &Ancestor, ledger: &Ledger) {
    let Ancestor { cgroup, slot, .. } = ancestor;
    if let Some(held) = ledger.low(*slot)
        && cgroup.low().is_ok_and(|now| held.is_ours(raw(now)))
    {
        // A cgroup that went away meanwhile needs no undoing.
        let _ = cgroup.set_low(limit(held.found));
    }
    ledger.lower(*slot, Flags::LOW);
    ledger.give_back(*slot);
}

/// What is protected below each ancestor, the root excepted.
fn sums(increments: &[(WorkloadId, Bytes)]) -> BTreeMap<String, Bytes> {
    let mut sums: BTreeMap<String, Bytes> = BTreeMap::new();
    for (id, low) in increments {
        let mut path = &*id.path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            let sum = sums.entry(parent.to_owned()).or_default();
            *sum = *sum + *low;
            path = parent;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn increments(lows: &[(&str, u64)]) -> Vec<(WorkloadId, Bytes)> {
        let id = |path: &str| WorkloadId { path: path.into(), inode: 2 };
        lows.iter().map(|(path, low)| (id(path), Bytes::mib(*low))).collect()
    }

    fn mib(mib: u64) -> String {
        format!("{}\n", mib << 20)
    }

    /// A cgroup of ordinary files; what is written begins at the start and cuts nothing off.
    struct Tree {
        dir: tempfile::TempDir,
        ledger: Ledger,
        ancestors: Ancestors,
    }

    impl Tree {
        fn new(found: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for child in ["a", "b"] {
                std::fs::create_dir_all(dir.path().join("cg/models").join(child)).unwrap();
            }
            let root = dir.path().join("cg");
            let ledger = Ledger::own(&dir.path().join("run"), root.to_str().unwrap()).unwrap();
            let ancestors = Ancestors::new(&ledger);
            let tree = Self { dir, ledger, ancestors };
            tree.write(&mib(found));
            tree
        }

        fn write(&self, text: &str) {
            std::fs::write(self.dir.path().join("cg/models/memory.low"), text).unwrap();
        }

        fn holds(&self, mib: u64) -> bool {
            let text = std::fs::read_to_string(self.dir.path().join("cg/models/memory.low")).unwrap();
            text.trim().starts_with(&(mib << 20).to_string())
        }

        fn grant(&mut self, lows: &[(&str, u64)]) -> usize {
            self.ancestors.grant(&increments(lows), &self.ledger).len()
        }
    }

    #[test]
    fn an_ancestor_gets_the_sum_and_gives_it_back() {
        let mut tree = Tree::new(0);
        assert_eq!(tree.grant(&[("models/a", 100), ("models/b", 50)]), 0);
        assert!(tree.holds(150));
        assert_eq!(tree.ledger.entries().count(), 1);
        tree.grant(&[]);
        assert_eq!(tree.ledger.entries().count(), 0);
    }

    #[test]
    fn what_kubelet_grants_stays_below_ours() {
        let mut tree = Tree::new(64);
        tree.grant(&[("models/a", 100)]);
        assert!(tree.holds(164));
    }

    #[test]
    fn somebody_else_s_value_is_not_fought_and_stays_at_the_end() {
        let mut tree = Tree::new(0);
        tree.grant(&[("models/a", 100)]);
        tree.write("4096\n");
        assert_eq!(tree.grant(&[("models/a", 100)]), 1, "somebody else wrote");
        assert_eq!(tree.grant(&[("models/a", 100)]), 0, "and is not fought");
        tree.grant(&[]);
        assert!(tree.ledger.entries().count() == 0);
        let text = std::fs::read_to_string(tree.dir.path().join("cg/models/memory.low")).unwrap();
        assert_eq!(text, "4096\n");
    }
}
