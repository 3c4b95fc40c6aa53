//! The ledger: everything we have set in the kernel, in shared memory that outlives us.
//!
//! A fixed array of slots in a file on a tmpfs, mapped by the controller (writes), the guardian (reads after the
//! controller's death), `plimsoll release` and the next controller. A flag is raised *before* the write that it
//! stands for, and taken down after the write that undoes it, so a crash at any instruction leaves at most an undo
//! too many. Raising a flag is one store to mapped memory: no allocation, no disk, no lock on the reaction path.

mod map;
pub mod release;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use plimsoll_policy::sample::WorkloadId;
use rustix::fs::{FlockOperation, flock};

pub use map::{Flags, MAX_PATH, SLOTS};
use map::{HeldCells, Map, Slot};

/// The file's name below the run directory.
pub const FILE: &str = "ledger";

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The run directory or the file can't be made or opened.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not a ledger, or one of another version.
    #[error("{path} is no ledger of this version ({why}); it was left as it is")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another controller runs on this node.
    #[error("another plimsoll runs here already (pid {pid} holds {path})")]
    Held {
        /// Its pid.
        pid: u32,
        /// The lock.
        path: PathBuf,
    },
    /// No slot is left, or the path is too long to be written down.
    #[error("no room in the ledger for {path:?} ({why})")]
    NoRoom {
        /// The cgroup.
        path: String,
        /// Why.
        why: &'static str,
    },
}

/// The open ledger.
pub struct Ledger {
    map: Map,
    path: PathBuf,
    /// Two threads look for free slots.
    claims: Mutex<()>,
    /// Holds the lock of the one controller of this node; `None` for readers.
    _lock: Option<fs::File>,
}

/// A slot's number, valid for this ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(usize);

/// What is written down of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is written.
    pub slot: SlotId,
    /// The cgroup.
    pub id: WorkloadId,
    /// What is set.
    pub flags: Flags,
    /// `memory.high`.
    pub high: Held,
    /// `memory.low`.
    pub low: Held,
    /// `oom_score_adj` of its processes.
    pub scores: Scores,
}

/// A limit that we hold; `u64::MAX` = max.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// As found: what is put back.
    pub found: u64,
    /// As set by us.
    pub set: u64,
    /// As set by us before that: what stands there after a crash, or a refusal, just before the write.
    pub before: u64,
}

impl Held {
    /// Whether a value of the file is one that we wrote.
    #[must_use]
    pub const fn is_ours(&self, value: u64) -> bool {
        value == self.set || value == self.before
    }
}

/// `oom_score_adj` of the processes of a workload. Only those that have one of these values are ever written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// As found at its first process.
    pub found: i16,
    /// As set by us.
    pub set: i16,
    /// As set by us before that: a crash between two processes leaves some with this.
    pub before: i16,
}

impl Scores {
    fn pack(self) -> u64 {
        let Self { found, set, before } = self;
        [found, set, before].iter().fold(0, |all, score| all << 16 | u64::from(score.cast_unsigned()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "16 bits at a time are what was packed")]
    fn unpack(packed: u64) -> Self {
        let at = |shift: u32| ((packed >> shift) as u16).cast_signed();
        Self { found: at(32), set: at(16), before: at(0) }
    }
}

impl Ledger {
    /// Opens the ledger of `run_dir` for the one controller of this node, making it where it is missing.
    ///
    /// # Errors
    /// [`LedgerError::Held`] when another controller runs; a damaged ledger is moved aside to `ledger.damaged`.
    pub fn own(run_dir: &Path, cgroup_root: &str) -> Result<Self, LedgerError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::Io { what, path, source }
        };
        fs::create_dir_all(run_dir).map_err(io("can't make the run directory", run_dir))?;
        let path = run_dir.join(FILE);
        let lock = lock(run_dir)?;
        if let Err(LedgerError::Damaged { .. }) = Map::open(&path) {
            let aside = run_dir.join("ledger.damaged");
            fs::rename(&path, &aside).map_err(io("can't move the damaged ledger aside", &path))?;
        }
        let map = Map::create(&path)?;
        if cgroup_root.len() > map::MAX_ROOT {
            return Err(LedgerError::NoRoom {
                path: cgroup_root.to_owned(),
                why: "path of the cgroup root too long",
            });
        }
        map.set_root(cgroup_root);
        Ok(Self { map, path, claims: Mutex::default(), _lock: Some(lock) })
    }

    /// Opens an existing ledger to list or release; `None` where there is none.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn existing(run_dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = run_dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Self { map: Map::open(&path)?, path, claims: Mutex::default(), _lock: None }))
    }

    /// The directory that it is in.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The cgroup root that the paths are below.
    #[must_use]
    pub fn cgroup_root(&self) -> PathBuf {
        PathBuf::from(self.map.root())
    }

    /// The controller that writes here; 0 when it ended in order.
    #[must_use]
    pub fn controller(&self) -> u32 {
        self.map.header().controller.load(Acquire)
    }

    /// Says who writes here from now.
    pub fn set_controller(&self, pid: u32) {
        self.map.header().controller.store(pid, Release);
    }

    /// The slot for a workload: its own from before, or a free one.
    ///
    /// # Errors
    /// [`LedgerError::NoRoom`].
    pub fn claim(&self, id: &WorkloadId) -> Result<SlotId, LedgerError> {
        let no_room = |why| LedgerError::NoRoom { path: id.path.to_string(), why };
        if id.path.len() > MAX_PATH {
            return Err(no_room("path too long"));
        }
        let _claiming = self.claims.lock();
        let mut free = None;
        for (index, slot) in self.map.slots().iter().enumerate() {
            let inode = slot.inode.load(Acquire);
            if inode == id.inode && slot.path().is_some_and(|path| *path == *id.path) {
                return Ok(SlotId(index));
            }
            if inode == 0 && free.is_none() {
                free = Some(index);
            }
        }
        let index = free.ok_or_else(|| no_room("all slots are taken"))?;
        self.map.slots()[index].write_id(id);
        Ok(SlotId(index))
    }

    /// Gives a slot back, provided that nothing is set any more.
    pub fn give_back(&self, slot: SlotId) {
        let slot = &self.map.slots()[slot.0];
        if slot.flags.load(Acquire) == 0 {
            slot.inode.store(0, Release);
        }
    }

    /// Gives back every slot in which nothing is set: those of workloads that are no longer any.
    pub fn sweep(&self) {
        (0..SLOTS).for_each(|index| self.give_back(SlotId(index)));
    }

    /// Raises flags. Call it before the write.
    pub fn raise(&self, slot: SlotId, flags: Flags) {
        self.map.slots()[slot.0].flags.fetch_or(flags.bits(), Release);
    }

    /// Takes flags down. Call it after the write that undoes.
    pub fn lower(&self, slot: SlotId, flags: Flags) {
        self.map.slots()[slot.0].flags.fetch_and(!flags.bits(), Release);
    }

    /// Notes `memory.high` as it stands and as it is about to be set; `u64::MAX` = max. Call it before the write, and not
    /// where somebody else has overwritten ours since: then [`Self::lower`] the flag first, and theirs is what was found.
    pub fn note_high(&self, slot: SlotId, stands: u64, set: u64) {
        let slot = &self.map.slots()[slot.0];
        note(slot, Flags::HIGH, &slot.high, stands, set);
    }

    /// The same for `memory.low`.
    pub fn note_low(&self, slot: SlotId, stands: u64, set: u64) {
        let slot = &self.map.slots()[slot.0];
        note(slot, Flags::LOW, &slot.low, stands, set);
    }

    /// `memory.high`, where it is ours. Without allocation.
    #[must_use]
    pub fn high(&self, slot: SlotId) -> Option<Held> {
        self.flags(slot).contains(Flags::HIGH).then(|| held(&self.map.slots()[slot.0].high))
    }

    /// `memory.low`, where it is ours. Without allocation.
    #[must_use]
    pub fn low(&self, slot: SlotId) -> Option<Held> {
        self.flags(slot).contains(Flags::LOW).then(|| held(&self.map.slots()[slot.0].low))
    }

    /// Notes the `oom_score_adj` of its processes as it is about to be set. Call it before the first of them is written.
    pub fn note_scores(&self, slot: SlotId, scores: Scores) {
        let slot = &self.map.slots()[slot.0];
        slot.scores.store(scores.pack(), Relaxed);
        slot.flags.fetch_or(Flags::OOM_SCORE.bits(), Release);
    }

    /// What is set in one slot, without allocation.
    #[must_use]
    pub fn flags(&self, slot: SlotId) -> Flags {
        Flags::from_bits_truncate(self.map.slots()[slot.0].flags.load(Acquire))
    }

    /// What is written in one slot.
    #[must_use]
    pub fn entry(&self, id: SlotId) -> Option<Entry> {
        let slot = &self.map.slots()[id.0];
        let inode = slot.inode.load(Acquire);
        let path = slot.path().filter(|_| inode != 0)?.to_owned();
        Some(Entry {
            slot: id,
            id: WorkloadId { path: path.into(), inode },
            flags: self.flags(id),
            high: held(&slot.high),
            low: held(&slot.low),
            scores: Scores::unpack(slot.scores.load(Relaxed)),
        })
    }

    /// Everything that is set now.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..SLOTS).filter_map(|index| self.entry(SlotId(index))).filter(|entry| !entry.flags.is_empty())
    }
}

/// What stands there is what was found the first time, and later our own. At every instant with the flag up, what the file
/// holds is `set` or `before`.
fn note(slot: &Slot, flag: Flags, cells: &HeldCells, stands: u64, set: u64) {
    if slot.flags.load(Acquire) & flag.bits() == 0 {
        cells.found.store(stands, Relaxed);
        cells.before.store(set, Release);
    } else {
        cells.before.store(stands, Release);
    }
    cells.set.store(set, Release);
    slot.flags.fetch_or(flag.bits(), Release);
}

fn held(cells: &HeldCells) -> Held {
    Held {
        found: cells.found.load(Relaxed),
        set: cells.set.load(Acquire),
        before: cells.before.load(Acquire),
    }
}

fn lock(run_dir: &Path) -> Result<fs::File, LedgerError> {
    use std::io::{Read, Seek, Write};
    let path = run_dir.join("lock");
    let io = |source| LedgerError::Io { what: "can't open the lock", path: path.clone(), source };
    let mut file =
        fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        // An unreadable lock file still says that somebody holds it.
        let _ = file.read_to_string(&mut text);
        return Err(LedgerError::Held { pid: text.trim().parse().unwrap_or(0), path });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str, inode: u64) -> WorkloadId {
        WorkloadId { path: path.into(), inode }
    }

    #[test]
    fn what_is_raised_is_listed_and_what_is_lowered_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
        let slot = ledger.claim(&id("models/chat", 7)).unwrap();
        assert_eq!(ledger.entries().count(), 0);
        ledger.raise(slot, Flags::FROZEN);
        ledger.note_high(slot, u64::MAX, 4096);
        ledger.note_high(slot, 4096, 8192);
        let scores = Scores { found: -997, set: 900, before: i16::MIN };
        ledger.note_scores(slot, scores);
        let entry = ledger.entries().next().unwrap();
        assert_eq!(entry.scores, scores);
        ledger.lower(slot, Flags::OOM_SCORE);
        let entry = ledger.entry(entry.slot).unwrap();
        let high = Held { found: u64::MAX, set: 8192, before: 4096 };
        assert_eq!((entry.high, entry.flags), (high, Flags::FROZEN | Flags::HIGH));
        ledger.lower(slot, Flags::FROZEN | Flags::HIGH);
        assert_eq!(ledger.entries().count(), 0);
    }

    #[test]
    fn a_value_of_somebody_else_s_is_what_was_found_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
        let slot = ledger.claim(&id("models/chat", 7)).unwrap();
        ledger.note_high(slot, u64::MAX, 4096);
        assert!(!ledger.high(slot).unwrap().is_ours(12_288));
        ledger.lower(slot, Flags::HIGH);
        assert_eq!(ledger.high(slot), None);
        ledger.note_high(slot, 12_288, 8192);
        assert_eq!(ledger.high(slot), Some(Held { found: 12_288, set: 8192, before: 8192 }));
    }

    #[test]
    fn a_successor_sees_what_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let slot = {
            let ledger = Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
            let slot = ledger.claim(&id("models/batch", 9)).unwrap();
            ledger.raise(slot, Flags::FROZEN);
            slot
        };
        let ledger = Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
        assert_eq!(ledger.entry(slot).unwrap().id, id("models/batch", 9));
        assert_eq!(ledger.claim(&id("models/batch", 9)).unwrap(), slot, "same path and inode, same slot");
        assert_ne!(ledger.claim(&id("models/batch", 10)).unwrap(), slot, "same path, other inode");
    }

    #[test]
    fn two_controllers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
        assert!(matches!(Ledger::own(dir.path(), "/"), Err(LedgerError::Held { .. })));
    }

    #[test]
    fn damage_is_named_and_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"not a ledger").unwrap();
        assert!(matches!(Ledger::existing(dir.path()), Err(LedgerError::Damaged { .. })));
        Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap();
        assert_eq!(fs::read(dir.path().join("ledger.damaged")).unwrap(), b"not a ledger");
    }

    #[test]
    fn too_long_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::own(dir.path(), "/").unwrap();
        let long = "x".repeat(MAX_PATH + 1);
        assert!(matches!(ledger.claim(&id(&long, 3)), Err(LedgerError::NoRoom { .. })));
    }
}
