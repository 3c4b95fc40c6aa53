//! The guardian: a small process that outlives the controller and undoes what it had set.
//!
//! The gate and the freezer can leave a process stopped, so from the first moment on which something may be set,
//! somebody else must be there to undo it. The guardian sleeps on the controller's pidfd; once the controller is
//! dead and did not say goodbye, it releases everything that the ledger lists. It needs nothing from the controller
//! but the ledger, which is shared memory.
//!
//! A container runtime kills everything in the container's cgroup, so in a pod it lives in a cgroup of its own beside those of the
//! models. It keeps the container's mounts until it ends, which is a second after the controller.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use plimsoll_policy::config::Daemon;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::act::protect::lock_memory;
use crate::ledger::release::{Released, continue_stopped, pids, release};
use crate::ledger::{Flags, Ledger, LedgerError};
use crate::place::ends_as_a_whole;

/// How often it looks for a controller that was killed but can't die, since one of its threads sits in the kernel.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// The kernel detaches the gate a moment after the controller's death: what it stopped in between is continued too.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// The guardian of this process.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    home: Option<PathBuf>,
}

/// The cgroup that a guardian of a controller in the cgroup `own` lives in; `None` where it may stay with the controller, since nobody
/// ends it there. systemd does, as soon as the main process has ended, and may be faster than the guardian.
#[must_use]
pub fn home(daemon: &Daemon, own: &str) -> Option<PathBuf> {
    let beside = Path::new(&daemon.models).parent().unwrap_or(Path::new(""));
    ends_as_a_whole(own).then(|| Path::new(&daemon.cgroup_root).join(beside).join("guardian"))
}

impl Guardian {
    /// Starts one, in a cgroup of its own where `home` names one. Where that can't be had it says so and stays here.
    ///
    /// # Errors
    /// When the program can't be started again.
    pub fn start(run_dir: &Path, home: Option<&Path>) -> io::Result<Self> {
        let door = home.and_then(|home| {
            let opened = fs::create_dir_all(home)
                .and_then(|()| File::options().write(true).open(home.join("cgroup.procs")));
            opened.map_err(|error| no_home(home, &error.to_string())).ok()
        });
        let home = home.filter(|_| door.is_some()).map(Path::to_owned);
        let child = spawn(run_dir, home.as_deref(), door)?;
        if let Some(home) = &home
            && !pids(home).contains(&child.id().cast_signed())
        {
            no_home(home, "the kernel did not let it in");
        }
        Ok(Self { child, home })
    }

    /// Another one in its place.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn another(&self, run_dir: &Path) -> io::Result<Self> {
        Self::start(run_dir, self.home.as_deref())
    }

    /// Its pid.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it, since there is nothing left to undo. It would see our end and go by itself; this way no process and no cgroup
    /// is left when we are gone.
    pub fn dismiss(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(home) = &self.home {
            remove(home);
        }
    }
}

fn no_home(home: &Path, error: &str) {
    tracing::warn!(home = %home.display(), error, "the guardian stays in the cgroup of the controller and may be ended with it: `plimsoll check` says what is missing");
}

/// The cgroup, and the one that it is in where nobody else has one there.
fn remove(home: &Path) {
    if fs::remove_dir(home).is_ok()
        && let Some(parent) = home.parent()
    {
        // With anything in it, the kernel keeps it.
        let _ = fs::remove_dir(parent);
    }
}

/// `door` is the open `cgroup.procs` of its home.
fn spawn(run_dir: &Path, home: Option<&Path>, door: Option<File>) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("plimsoll-guardian")
        .arg("guardian")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("--controller")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Some(home) = home {
        command.arg("--home").arg(home);
    }
    let enter = move || {
        if let Some(door) = &door {
            // Refused, it stays where it is: seen by who started it.
            let _ = rustix::io::write(door, b"0");
        }
        // A session of its own keeps a Ctrl-C or a hang-up of the controller's terminal away from it.
        Ok(rustix::process::setsid().map(drop)?)
    };
    // SAFETY: write and setsid are async-signal-safe, and nothing here allocates.
    unsafe { command.pre_exec(enter) };
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
pub fn main(run_dir: &Path, controller: u32, home: Option<&Path>) -> Result<(), GuardianError> {
    ignore_signals();
    // The directory that the container was started in may be a mount of its own.
    let _ = std::env::set_current_dir("/");
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
    if let Some(home) = home {
        // Nobody is left to remove it, and a cgroup with a process in it can't be: its last moment is in the root.
        if fs::write(ledger.cgroup_root().join("cgroup.procs"), "0").is_ok() {
            remove(home);
        }
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
    fn where_others_would_end_it_it_has_a_cgroup_beside_the_models() {
        let daemon = Daemon::default();
        for own in ["kubepods.slice/kubepods-podx.slice/cri-containerd-1.scope", "plimsoll.service"] {
            assert_eq!(home(&daemon, own), Some("/sys/fs/cgroup/plimsoll.slice/guardian".into()), "{own}");
        }
        assert_eq!(home(&daemon, ""), None);
        let alone = Daemon { models: "models".into(), ..daemon };
        assert_eq!(home(&alone, "kubepods/pod1/2"), Some("/sys/fs/cgroup/guardian".into()));
    }

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
