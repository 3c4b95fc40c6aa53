//! The plan in the words of the cgroup files: what each rung means for `high`, `low`, `frozen`, `kill`, `reclaim`.

use super::Turn;
use super::lease::set_high;
use crate::holding::Holding;
use crate::plan::{Plan, Tier, Wanted};
use crate::relief::CRUMBS;
use crate::sample::{Rung, Trigger, Workload, WorkloadId};
use crate::state::{Held, Track};
use crate::units::{Bytes, Span};

/// Growth that must not be missed between two calm passes, in bytes per second.
const FASTEST: u64 = 2 << 30;
/// Time between two trims below constrained, where nothing is urgent.
const TRIM_APART: Span = Span::millis(500);

pub(crate) fn plan(turn: &mut Turn<'_>) -> Plan {
    set_high(turn);
    let mut plan = Plan { gate: turn.state.gate.clone(), next: next(turn), ..Plan::default() };
    plan.workloads =
        turn.tracked().map(|(id, w, t)| (id.clone(), wanted(&t.held, reclaim(turn, id, w, t)))).collect();
    for (id, _) in plan.workloads.iter().filter(|(_, w)| w.reclaim.is_some()) {
        if let Some(track) = turn.state.workloads.get_mut(id) {
            track.held.trimmed = Some(turn.sample.at);
        }
    }
    plan
}

/// What is held, as the end state of the files.
pub(crate) fn wanted(held: &Held, reclaim: Option<Bytes>) -> Wanted {
    Wanted {
        rung: held.rung,
        high: held.high,
        low: held.low,
        frozen: held.rung == Rung::Freeze,
        kill: held.rung == Rung::Kill,
        reclaim,
        action: held.action,
        evidence: held.evidence.clone(),
        ..Wanted::default()
    }
}

/// The budget of this pass: what the calm target still lacks, as far as the rung may ask for it.
fn reclaim(turn: &Turn<'_>, id: &WorkloadId, workload: &Workload, track: &Track) -> Option<Bytes> {
    let memory = turn.memory().filter(|_| matches!(track.held.rung, Rung::Trim | Rung::Freeze))?;
    let holding = Holding::of(workload, memory.swap_free, &turn.config.ladder)?;
    let deficit = turn.assessed.report.deficit;
    let free = super::ladder::free_wanted(&memory);
    let frozen = track.held.rung == Rung::Freeze;
    let from_anon = if frozen { holding.swappable } else { holding.trimmable(turn.growth(id)) };
    let budget = from_anon.min(deficit).max(holding.file.min(free)).min(turn.config.ladder.reclaim_step);
    let may = turn.tier() > Tier::Normal && workload.populated == Some(true) && rested(turn, track);
    (may && budget >= CRUMBS.min(turn.config.ladder.reclaim_step) && budget > Bytes::ZERO).then_some(budget)
}

fn rested(turn: &Turn<'_>, track: &Track) -> bool {
    let pace = if turn.tier() >= Tier::Constrained { Span::ZERO } else { TRIM_APART };
    let paced = track.held.trimmed.is_none_or(|last| turn.at().since(last) >= pace);
    paced && turn.at() >= track.learned.rest_until
}

/// Soon while anything is going on; otherwise so that the fastest growth is seen at half of the headroom.
fn next(turn: &Turn<'_>) -> Span {
    let pace = &turn.config.pace;
    let held = turn.held(|r| r > Rung::Free).next().is_some();
    let Some(memory) = turn.memory().filter(|_| turn.tier() == Tier::Normal && !held) else {
        return if turn.sample.trigger == Trigger::Shutdown { pace.calm } else { pace.busy };
    };
    if turn.state.gate.armed() {
        return pace.busy;
    }
    let safe = u128::from(memory.headroom.0) * 500_000_000 / u128::from(FASTEST);
    Span(u64::try_from(safe).unwrap_or(u64::MAX)).min(pace.calm).max(pace.busy)
}
