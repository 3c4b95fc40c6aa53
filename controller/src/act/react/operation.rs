//! Freeze, thaw and kill as they run on the reaction thread: begun by a write, ended by what the kernel shows.

use std::os::fd::OwnedFd;

use plimsoll_policy::plan::Act;
use plimsoll_policy::units::{Bytes, Monotonic};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::Look;
use super::watched::Watched;
use crate::act::mail::{End, Ended};
use crate::act::worker::end_of;
use crate::ledger::{Flags, Ledger};
use crate::sense::cgroup::{Cgroup, FileError};
use crate::sense::clock::now;

/// An action that waits for its effect.
pub(super) struct Operation {
    pub(super) act: Act,
    pub(super) begun: Monotonic,
    pub(super) deadline: Monotonic,
    before: Option<Bytes>,
    /// Threads were stopped by the gate: continue them once they are frozen.
    hand_over: bool,
}

impl Operation {
    /// The message of its end.
    pub(super) fn ended(&self, cgroup: &Cgroup, end: End) -> Ended {
        let freed =
            self.before.zip(held(cgroup, self.act)).map(|(before, after)| before.saturating_sub(after));
        let inode = cgroup.id.inode;
        Ended { inode, act: self.act, end, begun: self.begun, took: now().since(self.begun), freed }
    }
}

/// Who asked for a freeze.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Plan,
    Gate,
}

/// What beginning an action led to.
pub(super) enum Begun {
    /// It waits for its effect.
    Waits(Operation),
    /// It has ended already.
    Over(Ended),
}

fn over(act: Act, cgroup: &Cgroup, end: End) -> Begun {
    let inode = cgroup.id.inode;
    Begun::Over(Ended {
        inode,
        act,
        end,
        begun: now(),
        took: plimsoll_policy::units::Span::ZERO,
        freed: None,
    })
}

/// Begins to freeze. The ledger knows before the kernel does. What somebody else has frozen before us is his to thaw, so it is
/// not written down; what he has thawed since we froze it is not frozen again by the plan before he is heard of.
pub(super) fn freeze(watched: &Watched, ledger: &Ledger, look: Look, why: Why) -> Begun {
    let cgroup = &watched.cgroup;
    let flags = ledger.flags(watched.slot);
    let hand_over = flags.contains(Flags::STOPPED);
    match (flags.contains(Flags::FROZEN), cgroup.is_to_freeze()) {
        (true, Ok(false)) if why == Why::Plan => {
            ledger.lower(watched.slot, Flags::FROZEN);
            return over(Act::Freeze, cgroup, End::Foreign);
        }
        (false, Ok(true)) => return Begun::Waits(operation(Act::Freeze, cgroup, look, hand_over)),
        _ => {}
    }
    ledger.raise(watched.slot, Flags::FROZEN);
    if let Err(error) = cgroup.freeze() {
        ledger.lower(watched.slot, Flags::FROZEN);
        return over(Act::Freeze, cgroup, end_of(&error));
    }
    Begun::Waits(operation(Act::Freeze, cgroup, look, hand_over))
}

fn operation(act: Act, cgroup: &Cgroup, look: Look, hand_over: bool) -> Operation {
    let begun = now();
    Operation { act, begun, deadline: begun + look.deadline, before: held(cgroup, act), hand_over }
}

/// What an action may free: a kill frees what is in swap as well.
fn held(cgroup: &Cgroup, act: Act) -> Option<Bytes> {
    let current = cgroup.current().ok()?;
    let swap = if act == Act::Kill { cgroup.swap().unwrap_or_default() } else { Bytes::ZERO };
    Some(current + swap)
}

/// Thaws and continues. What the gate stopped while it froze has a SIGSTOP pending, which SIGCONT takes back.
pub(super) fn thaw(watched: &Watched, ledger: &Ledger) -> Ended {
    let begun = now();
    let cgroup = &watched.cgroup;
    let flags = ledger.flags(watched.slot);
    // One that was frozen before us stays so.
    let thawed = if flags.contains(Flags::FROZEN) { cgroup.thaw() } else { Ok(()) };
    let end = thawed.map_or_else(|error| end_of(&error), |()| End::Done);
    if matches!(end, End::Done | End::Gone) {
        ledger.lower(watched.slot, Flags::FROZEN);
    }
    if flags.contains(Flags::STOPPED) {
        resume(cgroup);
    }
    Ended { inode: cgroup.id.inode, act: Act::Thaw, end, begun, took: now().since(begun), freed: None }
}

/// SIGCONT to every process of the cgroup.
fn resume(cgroup: &Cgroup) {
    // A cgroup that is gone has nobody to continue, and a process that ended needs no SIGCONT.
    let _ = cgroup.each_pid(|pid| {
        let _ = kill_process(pid, Signal::CONT);
    });
}

/// Room for the pidfds of one kill; more processes than that die by `cgroup.kill` all the same, unaided.
pub(super) const REAPED: usize = 64;

/// Begins to kill. `pidfds` are for `process_mrelease`, and for the kill itself where `cgroup.kill` is missing.
pub(super) fn kill(watched: &Watched, look: Look, pidfds: &mut Vec<OwnedFd>) -> Begun {
    let cgroup = &watched.cgroup;
    let operation = operation(Act::Kill, cgroup, look, false);
    pidfds.clear();
    let listed = cgroup.each_pid(|pid| {
        if pidfds.len() < REAPED {
            pidfds.extend(pidfd_open(pid, PidfdFlags::empty()));
        }
    });
    match listed.and_then(|()| cgroup.kill()) {
        Ok(()) => Begun::Waits(operation),
        Err(FileError::Missing(_)) => {
            // Before 5.14. A fork may slip through; the operation ends only when nothing is populated, and the
            // pass asks again at its deadline.
            for process in pidfds.iter() {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
            Begun::Waits(operation)
        }
        Err(error) => over(Act::Kill, cgroup, end_of(&error)),
    }
}

/// Looks whether an operation has come to its end.
pub(super) fn progress(operation: &Operation, cgroup: &Cgroup) -> Option<End> {
    let late = now() >= operation.deadline;
    let reached = match (cgroup.state(), operation.act) {
        (Ok((frozen, _)), Act::Freeze) => frozen,
        (Ok((_, populated)), _) => !populated,
        (Err(FileError::Gone), Act::Kill) => true,
        (Err(error), _) => return Some(end_of(&error)),
    };
    if reached {
        if operation.hand_over {
            resume(cgroup);
        }
        return Some(End::Done);
    }
    late.then_some(End::Partial)
}
