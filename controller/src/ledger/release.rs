//! Undoes what the ledger lists: thaw, SIGCONT, limits back to what was found.
//!
//! The same code runs at the end of `plimsoll run`, at its start for what a predecessor left, in the guardian after
//! the controller's death, and as `plimsoll release`. It may run twice without harm.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{Entry, Flags, Held, Ledger, Scores};

/// What a release did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Released {
    /// Cgroups thawed.
    pub thawed: Vec<String>,
    /// Processes continued that were stopped.
    pub continued: usize,
    /// Processes whose `oom_score_adj` was put back.
    pub scores: usize,
    /// Limits put back, as `path/file`.
    pub limits: Vec<String>,
    /// Limits that somebody else had changed since; left alone.
    pub foreign: Vec<String>,
    /// Cgroups that are gone, or whose path now names another one.
    pub gone: Vec<String>,
    /// What could not be undone, and why; it stays in the ledger.
    pub failed: Vec<String>,
}

impl Released {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Undoes everything that `ledger` lists.
#[must_use]
pub fn release(ledger: &Ledger) -> Released {
    let mut released = Released::default();
    let root = ledger.cgroup_root();
    for entry in ledger.entries() {
        release_entry(ledger, &root, &entry, &mut released);
    }
    released
}

fn release_entry(ledger: &Ledger, root: &Path, entry: &Entry, released: &mut Released) {
    let dir = root.join(&*entry.id.path);
    let same = fs::metadata(&dir).is_ok_and(|meta| meta.ino() == entry.id.inode);
    if !same {
        released.gone.push(entry.id.path.to_string());
        ledger.lower(entry.slot, Flags::all());
        return;
    }
    let mut undo = |flag: Flags, result: io::Result<()>| match result {
        Ok(()) => ledger.lower(entry.slot, flag),
        Err(error) => released.failed.push(format!("{}: {flag:?}: {error}", entry.id.path)),
    };
    if entry.flags.contains(Flags::HIGH) {
        undo(
            Flags::HIGH,
            put_back(&dir, "memory.high", entry.high, &mut released.limits, &mut released.foreign),
        );
    }
    if entry.flags.contains(Flags::LOW) {
        undo(
            Flags::LOW,
            put_back(&dir, "memory.low", entry.low, &mut released.limits, &mut released.foreign),
        );
    }
    if entry.flags.contains(Flags::OOM_GROUP) {
        undo(Flags::OOM_GROUP, put_back_group(&dir));
    }
    if entry.flags.contains(Flags::OOM_SCORE) {
        released.scores += put_back_scores(&dir, entry.scores);
        undo(Flags::OOM_SCORE, Ok(()));
    }
    if entry.flags.contains(Flags::FROZEN) {
        let result = fs::write(dir.join("cgroup.freeze"), "0");
        if result.is_ok() {
            released.thawed.push(entry.id.path.to_string());
        }
        undo(Flags::FROZEN, result);
    }
    if entry.flags.contains(Flags::STOPPED) {
        released.continued += continue_stopped(&dir);
        undo(Flags::STOPPED, Ok(()));
    }
}

/// Writes `found` where the file still holds what we set. Raising a limit never blocks.
fn put_back(
    dir: &Path,
    file: &str,
    held: Held,
    limits: &mut Vec<String>,
    foreign: &mut Vec<String>,
) -> io::Result<()> {
    let path = dir.join(file);
    let now = fs::read_to_string(&path)?;
    let name = path.display().to_string();
    if !limit_of(now.trim()).is_some_and(|now| held.is_ours(now)) {
        foreign.push(name);
        return Ok(());
    }
    let value = if held.found == u64::MAX { "max".to_owned() } else { held.found.to_string() };
    fs::write(&path, value)?;
    limits.push(name);
    Ok(())
}

/// Gives the processes that have a value of ours the one that was found. Returns how many had one.
pub(crate) fn put_back_scores(dir: &Path, scores: Scores) -> usize {
    let Scores { found, set, before } = scores;
    let ours = |file: &String| {
        let value = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i16>().ok());
        value.is_some_and(|value| value != found && [set, before].contains(&value))
    };
    let files = pids(dir).into_iter().map(|pid| format!("/proc/{pid}/oom_score_adj"));
    // A process that ended meanwhile has none to put back.
    files.filter(ours).filter(|file| fs::write(file, found.to_string()).is_ok()).count()
}

/// Only ever set where it was 0.
pub(crate) fn put_back_group(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("memory.oom.group"), "0")
}

/// `max` = `u64::MAX`; `None` where it is no number.
pub(crate) fn limit_of(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// Sends SIGCONT to every process in the cgroup and below: it continues what is stopped and takes back a SIGSTOP that
/// is still on its way. Returns how many were stopped.
pub(crate) fn continue_stopped(dir: &Path) -> usize {
    let mut count = 0;
    for pid in pids(dir).into_iter().filter_map(Pid::from_raw) {
        count += usize::from(is_stopped(pid));
        // A process that ended meanwhile needs no SIGCONT.
        let _ = kill_process(pid, Signal::CONT);
    }
    count
}

/// The processes of a cgroup and of all below it; none where it has vanished.
pub(crate) fn pids(dir: &Path) -> Vec<i32> {
    let procs = |dir: PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let parse = |procs: String| procs.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    subtree(dir).into_iter().map(procs).flat_map(parse).collect()
}

fn is_stopped(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with(['T', 't'])))
        .unwrap_or(false)
}

/// A cgroup and all below it, parents first.
pub(crate) fn subtree(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next).cloned() {
        next += 1;
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        all.extend(dirs.map(|entry| entry.path()));
    }
    all
}

/// Prints a release for people, one fact per line.
///
/// # Errors
/// When `out` can't be written.
pub fn print(released: &Released, out: &mut impl Write) -> io::Result<()> {
    if released.is_empty() {
        return writeln!(out, "nothing was set");
    }
    let lists = [
        ("thawed", &released.thawed),
        ("limit put back", &released.limits),
        ("left alone, since somebody else changed it", &released.foreign),
        ("gone", &released.gone),
        ("could not be undone", &released.failed),
    ];
    for (what, items) in lists {
        for item in items {
            writeln!(out, "{what}: {item}")?;
        }
    }
    if released.continued > 0 {
        writeln!(out, "continued: {} processes", released.continued)?;
    }
    if released.scores > 0 {
        writeln!(out, "oom_score_adj put back: {} processes", released.scores)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_policy::sample::WorkloadId;

    fn world() -> (tempfile::TempDir, Ledger, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("cg/models/batch");
        fs::create_dir_all(&group).unwrap();
        for (file, text) in
            [("memory.high", "8192\n"), ("memory.low", "0\n"), ("cgroup.freeze", "1\n"), ("cgroup.procs", "")]
        {
            fs::write(group.join(file), text).unwrap();
        }
        let root = dir.path().join("cg");
        let ledger = Ledger::own(&dir.path().join("run"), root.to_str().unwrap()).unwrap();
        (dir, ledger, group)
    }

    fn claim(ledger: &Ledger, group: &Path) -> super::super::SlotId {
        let inode = fs::metadata(group).unwrap().ino();
        ledger.claim(&WorkloadId { path: "models/batch".into(), inode }).unwrap()
    }

    #[test]
    fn what_was_set_is_put_back() {
        let (_dir, ledger, group) = world();
        let slot = claim(&ledger, &group);
        ledger.note_high(slot, u64::MAX, 8192);
        ledger.raise(slot, Flags::FROZEN);
        let released = release(&ledger);
        assert_eq!(fs::read_to_string(group.join("memory.high")).unwrap(), "max");
        assert_eq!(fs::read_to_string(group.join("cgroup.freeze")).unwrap(), "0");
        assert_eq!(released.thawed, ["models/batch"]);
        assert_eq!(ledger.entries().count(), 0);
        assert!(release(&ledger).is_empty(), "a second release finds nothing");
    }

    #[test]
    fn a_value_that_somebody_else_wrote_is_left_alone() {
        let (_dir, ledger, group) = world();
        let slot = claim(&ledger, &group);
        ledger.note_high(slot, u64::MAX, 4096);
        let released = release(&ledger);
        assert_eq!(fs::read_to_string(group.join("memory.high")).unwrap(), "8192\n");
        assert_eq!(released.foreign.len(), 1);
    }

    /// A crash between the note and the write, which would have set 4096.
    #[test]
    fn what_was_about_to_be_overwritten_is_put_back_too() {
        let (_dir, ledger, group) = world();
        let slot = claim(&ledger, &group);
        ledger.note_high(slot, u64::MAX, 8192);
        ledger.note_high(slot, 8192, 4096);
        assert_eq!(release(&ledger).foreign, Vec::<String>::new());
        assert_eq!(fs::read_to_string(group.join("memory.high")).unwrap(), "max");
    }

    #[test]
    fn another_inode_at_the_same_path_is_gone() {
        let (_dir, ledger, _group) = world();
        let slot = ledger.claim(&WorkloadId { path: "models/batch".into(), inode: 1 }).unwrap();
        ledger.raise(slot, Flags::FROZEN);
        assert_eq!(release(&ledger).gone, ["models/batch"]);
    }
}
