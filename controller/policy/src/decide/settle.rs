//! What became of earlier actions: yields are learned, second looks are respected, the gate's stops are taken over.

use super::{Turn, evict};
use crate::join::join;
use crate::plan::{Act, ActResult, Evidence, Outcome, Tier};
use crate::relief::CRUMBS;
use crate::sample::{Rung, WorkloadId};
use crate::state::Track;
use crate::units::Limit;

pub(crate) fn settle(turn: &mut Turn<'_>) {
    for outcome in &turn.sample.outcomes {
        take(turn, outcome);
    }
    adopt(turn);
}

fn take(turn: &mut Turn<'_>, outcome: &Outcome) {
    learn(turn, outcome);
    if outcome.act == Act::Evict {
        evict::answered(turn, outcome);
    }
    let withdrawn = outcome.result == ActResult::Withdrawn && matches!(outcome.act, Act::Freeze | Act::Kill);
    if withdrawn && turn.state.workloads.get(&outcome.workload).is_some_and(|t| matches(t, outcome)) {
        withdraw(turn, &outcome.workload);
    }
}

/// What the outcome says of the next time. A kill that did not end in time has freed what it has freed, and took too long.
fn learn(turn: &mut Turn<'_>, outcome: &Outcome) {
    let at = turn.at();
    let current = turn.sample.workloads.get(&outcome.workload).and_then(|w| w.current);
    let Some(track) = turn.state.workloads.get_mut(&outcome.workload) else { return };
    if let Act::Reclaim(_) = outcome.act {
        track.asked = None;
    }
    if !matches!(outcome.result, ActResult::Done | ActResult::Partial) {
        return;
    }
    let Outcome { took, freed, .. } = *outcome;
    match (outcome.act, freed) {
        (Act::Reclaim(asked), Some(freed)) => {
            let frozen = track.held.rung == Rung::Freeze && outcome.begun >= track.held.since;
            let rung = if frozen { Rung::Freeze } else { Rung::Trim };
            track.learned.reclaimed(rung, asked, freed, took, at);
            track.rest.take(asked, freed, at);
        }
        (Act::High(Limit::Bytes(limit)), Some(freed)) => {
            let asked = freed + current.unwrap_or_default().saturating_sub(limit);
            if asked >= CRUMBS {
                track.learned.reclaimed(Rung::Throttle, asked, freed, took, at);
            }
        }
        (Act::Freeze, _) => track.learned.froze(took, at),
        (Act::Kill, freed) => track.learned.killed(track.promised, freed, took, at),
        _ => {}
    }
}

/// A kill is decided anew from the bottom up. A freeze stands while the host is short: the second look saw no more
/// than that nothing grew in that instant, which is no reason to start over.
fn withdraw(turn: &mut Turn<'_>, id: &WorkloadId) {
    let kill = turn.state.workloads.get(id).is_some_and(|t| t.held.rung == Rung::Kill);
    let frozen = turn.sample.workloads.get(id).is_some_and(|w| w.frozen == Some(true));
    if let Some(workload) = turn.sample.workloads.get(id).filter(|_| kill) {
        turn.state.spared(workload, id);
    }
    if kill && frozen {
        // It was frozen before; that a kill is not needed is no reason to thaw it.
        turn.put(id, Rung::Freeze, turn.because([]));
    } else if kill || turn.tier() < Tier::Constrained {
        turn.put(id, Rung::Free, Vec::new());
    }
}

/// Whether the outcome is of the rung that is still in force, not of an earlier one.
fn matches(track: &Track, outcome: &Outcome) -> bool {
    let rung = if outcome.act == Act::Kill { Rung::Kill } else { Rung::Freeze };
    track.held.rung == rung && outcome.begun >= track.held.since
}

/// A target of the gate that is found frozen was stopped by it: the plan takes it over instead of thawing it.
fn adopt(turn: &mut Turn<'_>) {
    let by_us = |id| turn.state.workloads.get(id).is_none_or(|t| t.held.rung >= Rung::Freeze);
    let targets = turn.state.gate.targets.iter().map(|id| (id, ()));
    let frozen = join(&turn.sample.workloads, targets).filter(|(_, w, ())| w.frozen == Some(true));
    let adopted: Vec<_> = frozen.map(|(id, ..)| id).filter(|id| !by_us(id)).cloned().collect();
    for id in adopted {
        let growth = Evidence::Growth { bytes_per_second: turn.growth(&id) };
        let evidence = turn.because([growth]);
        turn.put(&id, Rung::Freeze, evidence);
    }
}
