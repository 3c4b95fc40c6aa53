//! Asks by signal: to the main process of a workload, or to all of them, and only to those that catch it.

use std::fs;
use std::future::ready;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_policy::concession::{Level, Offer, Prospect};
use plimsoll_policy::config::signals::{Recipients, Signal, Signals};
use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};

use super::way::{Answered, Answering, Asking, Way, WayError};
use crate::ledger::release::subtree;
use crate::sense::cgroup::Cgroup;
use crate::sense::discover::cgroup_of;

/// Sends signals to one workload.
#[derive(Debug)]
pub(super) struct Signalled {
    signals: Signals,
    cgroup: Arc<Cgroup>,
    dir: PathBuf,
}

impl Signalled {
    pub(super) fn new(signals: Signals, cgroup: Arc<Cgroup>, root: &Path) -> Self {
        let dir = root.join(&*cgroup.id.path);
        Self { signals, cgroup, dir }
    }

    /// Sends the signal of a level. Which process is the main one is looked up each time: servers restart their workers.
    fn send(&self, level: Level) -> Result<Answered, WayError> {
        let Some(signal) = self.signals.of(level) else {
            // Without a signal to restore it, a program comes back by itself.
            return if level == Level::Nothing {
                Ok(Answered::default())
            } else {
                Err(WayError::NotOffered(level))
            };
        };
        let processes = self.processes();
        let recipients = match self.signals.to {
            Recipients::Main => processes.into_iter().take(1).collect(),
            Recipients::All => processes,
        };
        if recipients.is_empty() {
            return Err(WayError::Unreachable("no process is left".into()));
        }
        let heeding = recipients.iter().filter(|process| process.heeds(signal));
        let sent = heeding.filter(|process| self.deliver(process, signal)).count();
        if sent == 0 {
            return Err(WayError::Refused(format!("no process catches {signal}, which would end it")));
        }
        Ok(Answered::default())
    }

    /// The processes of the workload, the one that was started first at the beginning.
    fn processes(&self) -> Vec<Process> {
        // A path that names another cgroup by now has none of ours.
        if self.cgroup.state().is_err() {
            return Vec::new();
        }
        let listed = subtree(&self.dir);
        let listed = listed.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        let pids: Vec<i32> = listed
            .flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        let mut processes: Vec<Process> = pids.into_iter().filter_map(Process::open).collect();
        processes.sort_by_key(|process| (process.started, process.pid));
        processes
    }

    /// The descriptor names the process for good; where that process is now is looked up once more.
    fn deliver(&self, process: &Process, signal: Signal) -> bool {
        let ours = |path: String| {
            path.strip_prefix(&*self.cgroup.id.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        cgroup_of(process.pid).is_some_and(ours)
            && number(signal).is_some_and(|number| pidfd_send_signal(&process.fd, number).is_ok())
    }
}

impl Way for Signalled {
    fn name(&self) -> &'static str {
        "signal"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        let levels = Level::ALL.into_iter().filter(|level| self.signals.of(*level).is_some());
        let levels = levels.map(|level| (level, Prospect::default())).collect();
        Box::pin(ready(Ok(Offer { levels, ..Offer::default() })))
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(async { self.send(asking.level) })
    }
}

/// A process, held by a descriptor before anything is read of it.
struct Process {
    pid: i32,
    fd: OwnedFd,
    /// Clock ticks after boot.
    started: u64,
    /// Signals that don't end it, the lowest bit being signal 1: those with a handler, and those that all its threads have
    /// blocked, to wait for them.
    heeded: u64,
}

impl Process {
    fn open(pid: i32) -> Option<Self> {
        let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let caught = mask(Path::new(&format!("/proc/{pid}/status")), "SigCgt:")?;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let blocked = tasks.filter_map(|task| mask(&task.path().join("status"), "SigBlk:"));
        let heeded = caught | blocked.reduce(|all, one| all & one).unwrap_or(0);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything; the start is the 20th field after it.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, fd, started, heeded })
    }

    fn heeds(&self, signal: Signal) -> bool {
        number(signal).is_some_and(|number| self.heeded & 1 << (number.as_raw() - 1) != 0)
    }
}

fn mask(file: &Path, key: &str) -> Option<u64> {
    let status = fs::read_to_string(file).ok()?;
    u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix(key))?.trim(), 16).ok()
}

fn number(signal: Signal) -> Option<Number> {
    match signal {
        Signal::Hup => Some(Number::HUP),
        Signal::Usr1 => Some(Number::USR1),
        Signal::Usr2 => Some(Number::USR2),
        Signal::Urg => Some(Number::URG),
        Signal::Winch => Some(Number::WINCH),
        Signal::Realtime(n) => realtime(n),
    }
}

#[expect(
    unsafe_code,
    reason = "rustix knows no real-time signals: which of them the C library keeps for itself, it can't know"
)]
fn realtime(n: u8) -> Option<Number> {
    let number = libc::SIGRTMIN() + i32::from(n);
    // SAFETY: a real-time signal from SIGRTMIN on is a signal, and none that the C library uses itself.
    (number <= libc::SIGRTMAX()).then(|| unsafe { Number::from_raw_unchecked(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_handlers() {
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        assert!(!own.heeds(Signal::Realtime(7)), "this test handles none");
        assert!(own.started > 0);
        let all = Process { heeded: 1 << (10 - 1), ..own };
        assert!(all.heeds(Signal::Usr1) && !all.heeds(Signal::Usr2));
    }

    #[test]
    fn real_time_signals_begin_where_the_library_says() {
        assert_eq!(number(Signal::Realtime(3)).map(Number::as_raw), Some(libc::SIGRTMIN() + 3));
        assert!(number(Signal::Realtime(29)).is_some());
    }
}
