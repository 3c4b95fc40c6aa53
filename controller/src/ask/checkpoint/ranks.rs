//! All processes of a model together: locked before any is copied, restored before any goes on, and brought back where one refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_policy::concession::Level;

use super::limits::Rank;
use super::patience::Patience;
use super::tool::{Action, State, Tool};
use crate::ask::way::WayError;

/// How long is waited for the state of a process on which a step has failed.
const STATE: Duration = Duration::from_secs(2);

/// The processes of a workload, each with the state in which it was left or seen.
#[derive(Debug, Default)]
pub(super) struct Ranks(BTreeMap<Rank, State>);

impl Ranks {
    /// Forgets the dead.
    pub(super) fn keep(&mut self, living: &BTreeSet<Rank>) {
        self.0.retain(|rank, _| living.contains(rank));
    }

    /// Looks at those that are new, and again at those that did not say how they were: reading harms nobody.
    pub(super) fn look(&mut self, tool: &Tool, living: &BTreeSet<Rank>, patience: &Patience) {
        self.keep(living);
        let unsure =
            |rank: &&Rank| matches!(self.0.get(rank), None | Some(State::Silent | State::Unknown(_)));
        let unsure: Vec<Rank> = living.iter().filter(unsure).copied().collect();
        self.read(tool, unsure, patience);
    }

    /// Looks at all of them, and waits for those in the middle of a copy.
    pub(super) fn look_at_all(&mut self, tool: &Tool, living: &BTreeSet<Rank>, patience: &Patience) {
        self.keep(living);
        self.read(tool, living.iter().copied(), patience);
    }

    fn read(&mut self, tool: &Tool, ranks: impl IntoIterator<Item = Rank>, patience: &Patience) {
        for rank in ranks {
            self.set(rank, tool.state(rank.pid, patience));
        }
    }

    fn set(&mut self, rank: Rank, state: State) {
        if state == State::Failed && self.0.get(&rank) != Some(&State::Failed) {
            tracing::error!(pid = rank.pid, "cuda-checkpoint calls a process failed: it has to be restarted");
        }
        self.0.insert(rank, state);
    }

    /// The level that they are on; `None` where there are none. One that is away, or on its way, makes all of them be.
    pub(super) fn level(&self) -> Result<Option<Level>, WayError> {
        let away = |state: &State| matches!(state, State::Locked | State::Checkpointed | State::Silent);
        if self.0.values().any(away) {
            return Ok(Some(Level::Offload));
        }
        self.trouble()?;
        Ok((!self.0.is_empty()).then_some(Level::Nothing))
    }

    /// An error that names one with which nothing can be done now.
    pub(super) fn trouble(&self) -> Result<(), WayError> {
        let usable = |state: &State| matches!(state, State::Running | State::Locked | State::Checkpointed);
        self.0.iter().find(|(_, state)| !usable(state)).map_or(Ok(()), refused)
    }

    /// An error where one of them is in the middle of a copy, as far as is to be seen.
    pub(super) fn settled(&self) -> Result<(), WayError> {
        self.0.iter().find(|(_, state)| **state == State::Silent).map_or(Ok(()), refused)
    }

    /// Whether the GPU memory of all is on the host.
    pub(super) fn are_away(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|state| *state == State::Checkpointed)
    }

    /// Moves the GPU memory of all of them to the host, or of none. It is begun while somebody waits for it; what was begun is
    /// finished also where nobody does any more.
    pub(super) fn move_out(&mut self, tool: &Tool, patience: &Patience) -> Result<(), WayError> {
        self.0.iter().find(|(_, state)| **state != State::Running).map_or(Ok(()), refused)?;
        for action in [Action::Lock, Action::Checkpoint] {
            if action == Action::Checkpoint && patience.is_over() {
                return Err(self.undo(tool, "no time is left".into()));
            }
            for rank in self.those(&action.needs()) {
                if let Err(why) = self.step(tool, rank, action) {
                    return Err(self.undo(tool, why));
                }
            }
        }
        Ok(())
    }

    /// Brings back whoever is away, for as long as it takes: who stays half way serves nobody. An error where one of them is not known
    /// to run after it.
    pub(super) fn move_in(&mut self, tool: &Tool) -> Result<(), WayError> {
        for action in [Action::Restore, Action::Unlock] {
            let mut failed = Ok(());
            for rank in self.those(&action.needs()) {
                if let Err(why) = self.step(tool, rank, action) {
                    failed = Err(WayError::Refused(why));
                }
            }
            failed?;
        }
        self.trouble()
    }

    /// Takes a step. Where that fails, the process says how it is now.
    fn step(&mut self, tool: &Tool, rank: Rank, action: Action) -> Result<(), String> {
        let acted = tool.act(action, rank.pid);
        let state = match acted {
            Ok(()) => action.result(),
            Err(_) => tool.state(rank.pid, &Patience::within(STATE)),
        };
        self.set(rank, state);
        acted
    }

    fn undo(&mut self, tool: &Tool, why: String) -> WayError {
        let undone =
            self.move_in(tool).map_or_else(|error| format!("; not undone: {error}"), |()| String::new());
        WayError::Refused(why + &undone)
    }

    fn those(&self, state: &State) -> Vec<Rank> {
        self.0.iter().filter(|(_, its)| *its == state).map(|(rank, _)| *rank).collect()
    }
}

fn refused((rank, state): (&Rank, &State)) -> Result<(), WayError> {
    Err(WayError::Refused(format!("process {} is {state}", rank.pid)))
}
