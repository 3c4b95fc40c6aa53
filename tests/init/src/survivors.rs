//! What a command leaves behind in the guest: processes and cgroups.
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Kills every process but init, the caller and kernel threads, and waits until they are gone or `limit` is over:
/// one in uninterruptible sleep must not keep the guest. Frozen and stopped ones die as well.
pub fn kill_all(limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let alive = processes();
        for pid in &alive {
            // One that has just exited by itself is as good.
            let _ = kill_process(*pid, Signal::KILL);
        }
        if alive.is_empty() || Instant::now() > deadline {
            return;
        }
        sleep(Duration::from_millis(10));
    }
}

/// Removes all cgroups below `root`, innermost first. What is still populated stays.
pub fn remove_cgroups(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Zombies and kernel threads have no command line.
fn processes() -> Vec<Pid> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let spared = [Pid::INIT, getpid()];
    let has_command = |pid: &Pid| {
        fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| !line.is_empty())
    };
    pids.filter(|pid| !spared.contains(pid)).filter(has_command).collect()
}
