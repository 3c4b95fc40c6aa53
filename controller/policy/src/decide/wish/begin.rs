//! One asking begins: it gets a number, a deadline and a reason.

use super::prospect::{Promise, moving};
use crate::concession::{Level, Wish};
use crate::decide::Turn;
use crate::gpu::GpuId;
use crate::plan::Evidence;
use crate::sample::{Rung, WorkloadId};
use crate::units::{Monotonic, Span};
use crate::voluntary::Pending;

/// An answer is waited for so many times as long as it is expected to take: learned latencies are means.
const PATIENCE: u64 = 4;
/// But not for less: a busy program looks at its socket now and then, and requests under way are drained first.
const SHORTEST: Span = Span::secs(5);
/// Nor for more, besides the time in which memory moves to the host: what takes longer is no answer to a shortage.
const LONGEST: Span = Span::secs(60);
/// Loading a model takes its time, and nobody is in a hurry then.
const RESTORE: Span = Span::secs(120);

/// Asks for a level, for the sake of these GPUs or of the host.
pub(crate) fn begin(
    turn: &mut Turn<'_>,
    id: &WorkloadId,
    level: Level,
    gpus: Vec<GpuId>,
    promise: Promise,
    evidence: Vec<Evidence>,
) {
    // Memory that moves to the host must not run into a limit there.
    if level == Level::Offload && turn.state.workloads.get(id).is_some_and(|t| t.held.rung == Rung::Throttle)
    {
        turn.put(id, Rung::Free, evidence.clone());
    }
    let at = turn.at();
    let deadline = deadline(turn, id, level, &promise);
    let ladder = &turn.config.ladder;
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    turn.state.action = turn.state.action.saturating_add(1);
    let action = turn.state.action;
    let voluntary = track.volunteer();
    let mut evidence = evidence;
    if level >= Level::Offload && !voluntary.lasts() {
        let brake = voluntary.repeats.brake(ladder, at);
        voluntary.until = (at + brake.hold).max(brake.held_off);
        evidence.extend(brake.evidence);
    }
    let Promise { gains: expected, takes, had, .. } = promise;
    voluntary.wish = Some(Wish { number: action, level, gpus, expected, deadline });
    voluntary.pending = Some(Pending { at, takes, had });
    (voluntary.action, voluntary.evidence) = (action, evidence);
}

fn deadline(turn: &Turn<'_>, id: &WorkloadId, level: Level, promise: &Promise) -> Span {
    if level == Level::Nothing {
        let cost = turn.sample.workloads.get(id).map_or(0, |w| w.spec.restart_cost_ms);
        return RESTORE.max(Span(cost.saturating_mul(2_000_000)));
    }
    let longest = LONGEST.saturating_add(moving(promise.moves()));
    Span(promise.takes.0.saturating_mul(PATIENCE)).clamp(SHORTEST, longest)
}

/// When a wish that was begun then must have been answered, with what the way back takes.
pub(super) fn overdue(begun: Monotonic, deadline: Span) -> Monotonic {
    const WAY_BACK: Span = Span::secs(2);
    begun + deadline.saturating_add(WAY_BACK)
}
