//! `memory.low` for the protected while the tier is above normal, so that reclaim starts where it should.

use std::cmp::Reverse;

use super::turn::{Turn, part};
use crate::join::join;
use crate::plan::Tier;
use crate::roles;
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
    let mut order = Vec::new();
    for (_, workload, track) in join(&turn.sample.workloads, &mut turn.state.workloads) {
        if roles::is_protected(turn.config, workload) {
            order.push((workload, track));
        } else {
            track.held.low = None;
        }
    }
    // Equals stay in the order of their ids.
    order.sort_by_key(|(w, _)| Reverse(w.spec.priority));
    let mut left = part(&memory, MOST_PERCENT);
    for (workload, track) in order {
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
