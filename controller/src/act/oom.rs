//! Keeps the kernel's order of OOM victims equal to ours: `oom_score_adj` of every process of a workload, and
//! `memory.oom.group`. Runs with discovery, on its thread: reading `/proc` can wait for a target's locks.
//!
//! A process inherits the value from its parent, so what is forked later follows by itself; what is moved into the cgroup
//! later is found at the next look. Processes whose value is neither the one found at first nor ours were given theirs by
//! somebody who meant it (an init system, the model server for a helper) and keep it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_policy::config::Config;
use plimsoll_policy::oom::{Score, scores};
use plimsoll_policy::sample::WorkloadId;

use crate::ledger::release::{pids, put_back_group, put_back_scores};
use crate::ledger::{Flags, Ledger, Scores, SlotId};
use crate::sense::discover::Found;

const GROUP: &str = "memory.oom.group";

/// What the kernel was told.
pub struct OomOrder {
    ledger: Arc<Ledger>,
    root: PathBuf,
    held: BTreeMap<WorkloadId, SlotId>,
    /// Why it could not be told, said once for each workload.
    refused: BTreeMap<WorkloadId, String>,
}

impl OomOrder {
    /// Nothing told yet.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        let (ledger, root) = (Arc::clone(ledger), ledger.cgroup_root());
        Self { ledger, root, held: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Tells the kernel the order of the workloads that were found, and takes it back from those that no longer are any.
    pub fn apply(&mut self, config: &Config, found: &Found) {
        let order = scores(config, found.iter().map(|(path, workload)| (path, &workload.spec)));
        let mut present = BTreeMap::new();
        for (path, score) in order {
            let Some(&inode) = found.get(path).and_then(|workload| workload.ids.first()) else { continue };
            let id = WorkloadId { path: path.as_str().into(), inode };
            match self.tell(&id, score) {
                Ok(slot) => drop(present.insert(id, slot)),
                Err(why) => self.refuse(id, why.to_string()),
            }
        }
        let before = std::mem::replace(&mut self.held, present);
        for (id, slot) in before.iter().filter(|(id, _)| !self.held.contains_key(*id)) {
            self.take_back(id, *slot);
        }
        self.refused.retain(|id, _| found.contains_key(&*id.path));
    }

    fn refuse(&mut self, id: WorkloadId, why: String) {
        if self.refused.get(&id) != Some(&why) {
            tracing::warn!(workload = %id, why, "the kernel's OOM killer does not know its place");
            self.refused.insert(id, why);
        }
    }

    fn tell(&self, id: &WorkloadId, score: Score) -> io::Result<SlotId> {
        let slot = self.ledger.claim(id).map_err(io::Error::other)?;
        let dir = self.root.join(&*id.path);
        self.tell_processes(&dir, slot, score);
        if score.as_a_whole() {
            self.tell_group(&dir, slot)?;
        }
        Ok(slot)
    }

    fn tell_processes(&self, dir: &Path, slot: SlotId, score: Score) {
        let now: Vec<_> = pids(dir).into_iter().filter_map(|pid| Some((pid, read(pid)?))).collect();
        let Some(&(_, first)) = now.first() else { return };
        let held = self.ledger.entry(slot).filter(|entry| entry.flags.contains(Flags::OOM_SCORE));
        let old = held.map_or(Scores { found: first, set: first, before: first }, |entry| entry.scores);
        let set = score.of(old.found);
        let is_to_be_set = |value: i16| value != set && [old.found, old.set, old.before].contains(&value);
        let due: Vec<_> = now.iter().filter(|(_, value)| is_to_be_set(*value)).collect();
        if due.is_empty() {
            return;
        }
        let before = if set == old.set { old.before } else { old.set };
        self.ledger.note_scores(slot, Scores { found: old.found, set, before });
        for (pid, _) in due {
            // One that ended meanwhile needs none; one that refuses keeps what it had.
            let _ = fs::write(score_file(*pid), set.to_string());
        }
    }

    fn tell_group(&self, dir: &Path, slot: SlotId) -> io::Result<()> {
        let file = dir.join(GROUP);
        if fs::read_to_string(&file)?.trim() == "0" && !self.ledger.flags(slot).contains(Flags::OOM_GROUP) {
            self.ledger.raise(slot, Flags::OOM_GROUP);
            fs::write(&file, "1")?;
        }
        Ok(())
    }

    /// It is no workload any more. Its slot is the actor's to give back.
    fn take_back(&self, id: &WorkloadId, slot: SlotId) {
        let Some(entry) = self.ledger.entry(slot).filter(|entry| entry.id == *id) else { return };
        let dir = self.root.join(&*id.path);
        if entry.flags.contains(Flags::OOM_SCORE) {
            put_back_scores(&dir, entry.scores);
        }
        if entry.flags.contains(Flags::OOM_GROUP) {
            // A cgroup that is gone needs no undoing.
            let _ = put_back_group(&dir);
        }
        self.ledger.lower(slot, Flags::OOM_SCORE | Flags::OOM_GROUP);
    }
}

fn score_file(pid: i32) -> String {
    format!("/proc/{pid}/oom_score_adj")
}

fn read(pid: i32) -> Option<i16> {
    fs::read_to_string(score_file(pid)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command};

    use plimsoll_policy::sample::{Preference, Spec};

    use super::*;
    use crate::ledger::release::release;
    use crate::sense::discover::Workload;

    /// A cgroup of ordinary files, with a real process in it.
    struct Group {
        path: String,
        child: Child,
    }

    impl Group {
        fn new(root: &Path, path: &str) -> Self {
            fs::create_dir_all(root.join(path)).unwrap();
            fs::write(root.join(path).join(GROUP), "0\n").unwrap();
            let child = Command::new("sleep").arg("600").spawn().unwrap();
            fs::write(root.join(path).join("cgroup.procs"), format!("{}\n", child.id())).unwrap();
            Self { path: path.to_owned(), child }
        }

        fn score(&self) -> i16 {
            read(self.child.id().cast_signed()).unwrap()
        }

        fn found(&self, root: &Path, priority: i32, preference: Preference) -> (String, Workload) {
            let inode = fs::metadata(root.join(&self.path)).unwrap().ino();
            let spec = Spec { priority, preference, ..Spec::default() };
            (self.path.clone(), Workload { spec, ids: vec![inode], ..Workload::default() })
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn the_order_is_told_followed_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cg");
        let (batch, job) = (Group::new(&root, "m/batch"), Group::new(&root, "m/job"));
        let ledger = Arc::new(Ledger::own(&dir.path().join("run"), root.to_str().unwrap()).unwrap());
        let found_as = batch.score();
        let config = Config::default();
        let mut order = OomOrder::new(&ledger);
        let both = |batch_priority, job_priority| {
            let none = Preference::None;
            Found::from([batch.found(&root, batch_priority, none), job.found(&root, job_priority, none)])
        };
        order.apply(&config, &both(-10, 5));
        assert_eq!((batch.score(), job.score()), (900, 100));
        assert_eq!(fs::read_to_string(root.join("m/batch").join(GROUP)).unwrap(), "1");
        order.apply(&config, &both(5, -10));
        assert_eq!((batch.score(), job.score()), (100, 900), "the order follows the priorities");
        order.apply(&config, &Found::from([job.found(&root, -10, Preference::None)]));
        assert_eq!(batch.score(), found_as, "no workload any more");
        let released = release(&ledger);
        assert_eq!((job.score(), released.scores), (found_as, 1));
        assert_eq!(fs::read_to_string(root.join("m/job").join(GROUP)).unwrap(), "0");
        assert_eq!(ledger.entries().count(), 0);
    }

    #[test]
    fn what_somebody_else_chose_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cg");
        let (batch, helper) = (Group::new(&root, "batch"), Group::new(&root, "helper"));
        let procs = format!("{}\n{}\n", batch.child.id(), helper.child.id());
        fs::write(root.join("batch/cgroup.procs"), procs).unwrap();
        let ledger = Arc::new(Ledger::own(&dir.path().join("run"), root.to_str().unwrap()).unwrap());
        fs::write(score_file(helper.child.id().cast_signed()), "777").unwrap();
        let found = Found::from([batch.found(&root, 0, Preference::None)]);
        OomOrder::new(&ledger).apply(&Config::default(), &found);
        assert_eq!((batch.score(), helper.score()), (900, 777));
        assert_eq!(release(&ledger).scores, 1);
        assert_eq!(helper.score(), 777);
    }
}
