//! All processes of a model together: locked before any is copied, restored before any goes on, and undone where one refuses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::limits::Rank;
use super::tool::{Action, State, Tool};
use crate::ask::way::WayError;

/// What undoing may take beyond the deadline: a process that stays locked serves nobody.
const UNDO: Duration = Duration::from_secs(10);

/// Why it did not work.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Processes of which nobody knows any more what they are doing.
    pub(super) unknown: BTreeSet<Rank>,
    pub(super) error: WayError,
}

impl Failure {
    fn refused(why: String) -> Self {
        Self { unknown: BTreeSet::new(), error: WayError::Refused(why) }
    }
}

/// Moves the GPU memory of all of them to the host, or of none.
pub(super) fn move_out(tool: &Tool, ranks: &BTreeSet<Rank>, by: Instant) -> Result<(), Failure> {
    for rank in ranks {
        let state = tool.state(rank.pid);
        if state != State::Running {
            return Err(Failure::refused(format!("process {} is {state:?}, not running", rank.pid)));
        }
    }
    for (step, action) in [Action::Lock, Action::Checkpoint].into_iter().enumerate() {
        for rank in ranks {
            // Copying is not begun that would have to be given up at once.
            let acted = if step > 0 && Instant::now() >= by {
                Err("no time is left".into())
            } else {
                tool.act(action, rank.pid, by)
            };
            if let Err(why) = acted {
                return Err(undo(tool, ranks, why));
            }
        }
    }
    Ok(())
}

/// Moves it back.
pub(super) fn move_in(tool: &Tool, ranks: &BTreeSet<Rank>, by: Instant) -> Result<(), Failure> {
    for (action, from) in [(Action::Restore, State::Checkpointed), (Action::Unlock, State::Locked)] {
        let (mut unknown, mut failed) = (BTreeSet::new(), None);
        for rank in ranks {
            // One that got so far at an earlier try is left as it is.
            let state = tool.state(rank.pid);
            if state != from && (state == State::Locked || state == State::Running) {
                continue;
            }
            if let Err(why) = tool.act(action, rank.pid, by) {
                failed = Some(why);
                // Still where it was, it can be tried again; anything else is anybody's guess.
                if tool.state(rank.pid) != from {
                    unknown.insert(*rank);
                }
            }
        }
        if let Some(why) = failed {
            return Err(Failure { unknown, error: WayError::Refused(why) });
        }
    }
    Ok(())
}

/// Brings all back to where they were. What can't be brought back, or does not say where it is, is unknown from now on.
fn undo(tool: &Tool, ranks: &BTreeSet<Rank>, why: String) -> Failure {
    let by = Instant::now() + UNDO;
    let mut states: Vec<(Rank, State)> = ranks.iter().map(|rank| (*rank, tool.state(rank.pid))).collect();
    for (from, action) in [(State::Checkpointed, Action::Restore), (State::Locked, Action::Unlock)] {
        for (rank, state) in states.iter_mut().filter(|(_, state)| *state == from) {
            // Whether it worked is seen by the state.
            let _ = tool.act(action, rank.pid, by);
            *state = tool.state(rank.pid);
        }
    }
    let unknown = states.into_iter().filter(|(_, state)| *state != State::Running);
    Failure { unknown: unknown.map(|(rank, _)| rank).collect(), error: WayError::Refused(why) }
}
