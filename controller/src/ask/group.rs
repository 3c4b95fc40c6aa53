//! A program with all that it starts: one process group, which is ended together.

use rustix::process::{Pid, Signal, kill_process_group};

/// What a program and its children are in. All of them are killed with this value, whatever became of the program itself; one that
/// chose a group of its own has chosen to live on.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The one of a program that was started with `process_group(0)`. Drop it soon after the program is reaped: the number of a group
    /// without members may be given to another process, when all others have had their turn.
    pub(super) fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody is left where it fails.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
