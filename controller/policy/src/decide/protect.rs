//! `memory.low` for the protected while the tier is above normal, so that reclaim starts where it should.

use std::cmp::Reverse;

use super::turn::{Turn, part};
use crate::plan::Tier;
use crate::roles;
use crate::sample::WorkloadId;
use crate::units::{Bytes, Limit};

/// All protections together stay below this share of the memory: with more, reclaim finds nothing
/// unprotected and takes from everybody alike.
const MOST_PERCENT: u32 = 85;
/// Protections move in steps of this, so that they are not written again with every request served.
const GRAIN: u64 = 4 << 20;

pub(crate) fn protect(turn: &mut Turn<'_>) {
    if turn.tier() == Tier::Normal || turn.config.ladder.dry_run.is_whole() {
        turn.state.workloads.values_mut().for_each(|t| t.held.low = None);
        return;
    }
    // Without meminfo there is no saying what would be too much: what holds, holds.
    let Some(memory) = turn.memory() else { return };
    let unprotected =
        |id: &WorkloadId| turn.sample.workloads.get(id).is_some_and(|w| !roles::is_protected(turn.config, w));
    for (_, track) in
        turn.state.workloads.iter_mut().filter(|(id, t)| t.held.low.is_some() && unprotected(id))
    {
        track.held.low = None;
    }
    let mut left = part(&memory, MOST_PERCENT);
    let mut order: Vec<_> = roles::protected(turn.config, turn.sample).collect();
    order.sort_by_key(|(id, w)| (Reverse(w.spec.priority), *id));
    for (id, workload) in order {
        let Some(track) = turn.state.workloads.get_mut(id) else { continue };
        let set = working_set(workload.current, workload.max);
        // It only grows while the pressure lasts: what is evicted still belongs to the working set.
        let low = set.max(track.held.low).map(|low| low.min(left));
        left = left.saturating_sub(low.unwrap_or_default());
        track.held.low = low;
    }
}

fn working_set(current: Option<Bytes>, max: Option<Limit>) -> Option<Bytes> {
    let set = Bytes(current?.0.checked_next_multiple_of(GRAIN)?);
    Some(match max {
        Some(Limit::Bytes(max)) => set.min(max),
        Some(Limit::Max) | None => set,
    })
}
