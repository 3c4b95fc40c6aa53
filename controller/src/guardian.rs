//! The guardian: a small process that outlives the controller and undoes what it had set.
//!
//! The gate and the freezer can leave a process stopped, so from the first moment on which something may be set,
//! somebody else must be there to undo it. The guardian sleeps on the controller's pidfd; once the controller is
//! dead and did not say goodbye, it releases everything that the ledger lists. It needs nothing from the controller
//! but the ledger, which is shared memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::act::protect::lock_memory;
use crate::ledger::release::{Released, continue_stopped, release};
use crate::ledger::{Flags, Ledger, LedgerError};

/// How often it looks for a controller that was killed but can't die, since one of its threads sits in the kernel.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// The kernel detaches the gate a moment after the controller's death: what it stopped in between is continued too.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// Starts a guardian for this process.
///
/// # Errors
/// When the program can't be started again.
pub fn start(run_dir: &Path) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("plimsoll-guardian")
        .arg("guardian")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("--controller")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null());
    // SAFETY: setsid is async-signal-safe and allocates nothing. A session of its own keeps a Ctrl-C or a hang-up of
    // the controller's terminal away from it.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    command.spawn()
}

/// Why a guardian could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// No ledger.
    #[error("there is no ledger in {0}")]
    NoLedger(PathBuf),
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The controller can't be watched.
    #[error("can't watch the controller (pid {pid})")]
    Watch {
        /// Its pid.
        pid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The guardian's life: waits for the controller's death, releases, ends.
///
/// # Errors
/// [`GuardianError`] where it can't begin. Once it watches, nothing ends it but the controller's end.
pub fn main(run_dir: &Path, controller: u32) -> Result<(), GuardianError> {
    ignore_signals();
    // Without locked memory it still works, later.
    let _ = lock_memory();
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let ledger = Ledger::existing(run_dir)?.ok_or_else(|| GuardianError::NoLedger(run_dir.to_owned()))?;
    wait_for_death(controller).map_err(|source| GuardianError::Watch { pid: controller, source })?;
    // Zero: it released everything itself. Another pid: a successor has taken over and repairs.
    if ledger.controller() == controller {
        let released = release_twice(&ledger, controller);
        tracing::warn!(controller, ?released, "controller died, released what it had set");
    }
    Ok(())
}

fn release_twice(ledger: &Ledger, controller: u32) -> Released {
    let root = ledger.cgroup_root();
    let stopped = ledger.entries().filter(|entry| entry.flags.contains(Flags::STOPPED));
    let stopped: Vec<PathBuf> = stopped.map(|entry| root.join(&*entry.id.path)).collect();
    let mut released = release(ledger);
    for pause in AGAIN {
        std::thread::sleep(pause);
        if ledger.controller() != controller {
            break;
        }
        released.continued += stopped.iter().map(|dir| continue_stopped(dir)).sum::<usize>();
    }
    released
}

/// A pidfd tells of the death of the whole process; a zombie leader tells that it was killed while a thread of it is
/// still stuck in the kernel (in reclaim, say), which can last for seconds.
fn wait_for_death(controller: u32) -> io::Result<()> {
    let Some(pid) = i32::try_from(controller).ok().and_then(Pid::from_raw) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        // It is dead already.
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let stat = format!("/proc/{controller}/stat");
    loop {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        if poll(&mut fds, Some(&LOOK)).unwrap_or(0) > 0 || is_zombie(&stat) {
            return Ok(());
        }
    }
}

fn is_zombie(stat: &str) -> bool {
    fs::read_to_string(stat)
        .ok()
        .and_then(|text| text.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
        // No such file: it is gone altogether.
        .unwrap_or(true)
}

/// Service managers signal the whole cgroup: the guardian ends with its controller, not before.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN is a valid disposition for each of these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_controller_is_seen_at_once_and_a_living_one_is_not_a_zombie() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        wait_for_death(pid).unwrap();
        child.wait().unwrap();
        assert!(!is_zombie(&format!("/proc/{}/stat", std::process::id())));
        assert!(is_zombie("/proc/0/stat"));
    }
}
