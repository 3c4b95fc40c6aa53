//! Whom the kernel may stop on its own before the next pass.

use super::{Turn, spell};
use crate::assess::Memory;
use crate::plan::{Gate, Tier};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::Span;

/// The gate is armed where memory might run out within this time.
const ARM_AHEAD: Span = Span::secs(10);
/// It stays armed for this long: attaching a program has its price, and forecasts come and go.
const LINGER: Span = Span::secs(2);
/// Direct reclaim with caches left is no emergency: the host must be near elevated within this time.
const NEAR: Span = Span::secs(2);

pub(crate) fn arm(turn: &mut Turn<'_>) {
    // On a gap the gate stays as it is, less those that are gone.
    let due = turn.memory().map_or(turn.state.gate.armed(), |m| due(turn, &m));
    if due {
        turn.state.gate_due = Some(turn.at());
    }
    let armed =
        turn.config.ladder.gate && turn.state.gate_due.is_some_and(|last| turn.at().since(last) < LINGER);
    turn.state.gate = if armed { gate(turn) } else { Gate::default() };
}

fn due(turn: &Turn<'_>, memory: &Memory) -> bool {
    let soon = turn.assessed.report.forecast.left().is_some_and(|left| left < ARM_AHEAD);
    let near = memory.above(turn.config.host.elevated.leave, memory.decline, NEAR).0 > 0;
    near && (soon || turn.tier() >= Tier::Constrained)
}

/// The lowest priority only: the gate can't choose, and must not stop one above another that would do.
fn gate(turn: &Turn<'_>) -> Gate {
    let (mut lowest, mut targets) = (None, Vec::new());
    for (id, workload, track) in turn.tracked().filter(|(_, w, t)| freezable(turn, w, t)) {
        let rank = roles::rank(&workload.spec);
        if lowest.is_none_or(|lowest| rank < lowest) {
            lowest = Some(rank);
            targets.clear();
        }
        let gives = track.voluntary.as_ref().is_some_and(|it| it.leaves())
            && turn.answers(workload, track, turn.patience());
        let rests = spell::rests(workload, track, turn.at()).is_some();
        if lowest == Some(rank) && track.held.rung < Rung::Freeze && !gives && !rests {
            targets.push(id);
        }
    }
    let targets: Vec<WorkloadId> = targets.into_iter().cloned().collect();
    let protected = roles::protected(turn.config, turn.sample).map(|(id, _)| id.clone());
    Gate { protected: if targets.is_empty() { Vec::new() } else { protected.collect() }, targets }
}

/// One that is frozen still counts as the lowest: the next priority is not the gate's business until the plan says so.
fn freezable(turn: &Turn<'_>, workload: &Workload, track: &Track) -> bool {
    roles::is_eligible(turn.config, workload)
        && roles::allows(turn.config, workload, Rung::Freeze)
        && track.held.rung < Rung::Kill
        && !turn.is_leaving(track)
}
