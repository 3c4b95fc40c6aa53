//! Keeps the controller itself alive and quick when memory is short: locked memory, no OOM score, its own `memory.min`.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_policy::units::Bytes;

use crate::ledger::release::limit_of;

/// A protection that could not be had, in words; the controller works without it, less surely.
pub type Missing = Vec<String>;

/// What the controller's own cgroup is guaranteed: twice its budget.
const OWN: Bytes = Bytes::mib(32);

/// The `memory.min` of the controller's own cgroup, put back when this is dropped: others may live in it.
#[derive(Debug, Default)]
pub struct OwnMinimum(Option<(PathBuf, String)>);

impl Drop for OwnMinimum {
    fn drop(&mut self) {
        if let Some((file, found)) = &self.0 {
            // The process ends: there is nobody left to tell.
            let _ = fs::write(file, found);
        }
    }
}

/// The kernel takes everybody else first.
const OOM_SCORE: i32 = -999;

/// Protects this process. `own` is its cgroup below `root`.
#[must_use]
pub fn protect(root: &Path, own: &str) -> (OwnMinimum, Missing) {
    let mut minimum = OwnMinimum::default();
    let mut missing = Missing::new();
    let mut note = |what: &str, result: std::io::Result<()>| {
        if let Err(error) = result {
            missing.push(format!("{what}: {error}"));
        }
    };
    note("oom_score_adj", lower_oom_score());
    note("mlockall", lock_memory());
    if !own.is_empty() {
        // Counts up to what every ancestor grants; in a service below system.slice set it there as well.
        let file = root.join(own).join("memory.min");
        let set = fs::read_to_string(&file).and_then(|found| {
            // A service manager may have granted more.
            if limit_of(found.trim()).is_some_and(|found| found >= OWN.0) {
                return Ok(());
            }
            fs::write(&file, OWN.0.to_string())?;
            minimum = OwnMinimum(Some((file.clone(), found.trim().to_owned())));
            Ok(())
        });
        note("memory.min", set);
    }
    (minimum, missing)
}

/// Next to never a victim of the kernel's OOM killer; a service manager may have asked for never.
fn lower_oom_score() -> std::io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let found: i32 = fs::read_to_string(FILE)?.trim().parse().unwrap_or(0);
    if found <= OOM_SCORE { Ok(()) } else { fs::write(FILE, OOM_SCORE.to_string()) }
}

/// Locks what is touched and what will be. Under a finite `RLIMIT_MEMLOCK` and without `CAP_IPC_LOCK`, locking the
/// future would make later allocations fail, so only the present is locked there.
pub(crate) fn lock_memory() -> std::io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::IPC_LOCK));
    let flags = if limit.is_none() || may { libc::MCL_CURRENT | libc::MCL_FUTURE } else { libc::MCL_CURRENT };
    // SAFETY: mlockall takes flags only and touches no memory of ours.
    let result = unsafe { libc::mlockall(flags | libc::MCL_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
