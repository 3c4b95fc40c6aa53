//! The way down: under calm, one workload at a time, highest priority first, each only if it fits.

use std::cmp::Reverse;

use super::Turn;
use super::{calm, kill, leash, spell, wish};
use crate::assess::observe::positive;
use crate::assess::{Memory, per};
use crate::plan::{Evidence, Tier};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// Time between two restores: the first one's growth has to be seen before the second.
const APART: Span = Span::secs(2);
/// A workload that is let go is taken to grow as before for this long; by then it is braked again if it has to be. Shorter
/// than the brake is early, or one that was braked would never fit again.
const REGROWTH: Span = Span::millis(200);
/// After this much calm even one that would not fit is tried: its hold grows each time that it fails.
const LONG_CALM: Span = Span::secs(10);

/// Before the controller leaves: nothing is held any more.
pub(crate) fn release_all(turn: &mut Turn<'_>) {
    let all: Vec<_> = turn.tracked().map(|(id, ..)| id.clone()).collect();
    for id in all {
        turn.put(&id, Rung::Free, Vec::new());
        if let Some(track) = turn.state.workloads.get_mut(&id) {
            track.held.low = None;
        }
    }
    wish::release(turn);
    turn.state.gate = crate::plan::Gate::default();
}

/// Lets go of what is empty, or may not be touched (any more): the configuration may have changed.
pub(crate) fn release_ineligible(turn: &mut Turn<'_>) {
    for id in turn.on(|r| r > Rung::Free) {
        let Some((workload, track)) = turn.sample.workloads.get(&id).zip(turn.state.workloads.get(&id))
        else {
            continue;
        };
        let allowed = roles::allows(turn.config, workload, track.held.rung);
        if !roles::is_eligible(turn.config, workload) || !allowed {
            turn.put(&id, Rung::Free, Vec::new());
        }
    }
}

pub(crate) fn review(turn: &mut Turn<'_>) {
    calm::watch(turn);
    if turn.tier() == Tier::Normal {
        for id in turn.on(|r| r == Rung::Trim) {
            turn.put(&id, Rung::Free, calm::evidence(turn));
        }
    }
    end_spells(turn);
    end_long_freezes(turn);
    if let Some((id, back)) = next(turn) {
        let evidence = calm::evidence(turn);
        let_go(turn, &id, back, evidence);
    }
}

/// Lets go of one that is to end in order, which it can't while it is frozen.
pub(crate) fn leave(turn: &mut Turn<'_>, id: &WorkloadId) {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return;
    };
    let fits = turn.memory().is_some_and(|m| fits(turn, &m, workload, track));
    let back = if fits { back(workload, track) } else { Bytes::ZERO };
    let evidence = track.eviction.as_ref().map_or_else(Vec::new, |it| it.evidence.clone());
    let_go(turn, id, back, evidence);
}

/// On a leash where that is possible, else at once.
fn let_go(turn: &mut Turn<'_>, id: &WorkloadId, back: Bytes, evidence: Vec<Evidence>) {
    turn.state.restored = Some(turn.at());
    match turn.sample.workloads.get(id) {
        Some(workload) if leash::possible(turn, workload) => leash::put_on(turn, id, back, evidence),
        _ => turn.put(id, Rung::Free, evidence),
    }
}

/// The workload whose turn it is, with what comes back from swap; `None` while it is not calm, too early, or it would not fit.
fn next(turn: &Turn<'_>) -> Option<(WorkloadId, Bytes)> {
    let memory = turn.memory().filter(|_| apart(turn))?;
    let (id, w, track) = turn
        .held(|r| matches!(r, Rung::Throttle | Rung::Freeze))
        .filter(|(_, _, t)| t.held.leash.is_none() && t.leaves().is_none())
        .max_by_key(|(id, w, _)| (roles::rank(&w.spec), Reverse(*id)))?;
    let dwell = turn.config.host.dwell_down;
    let calm = calm::lasts(turn).filter(|calm| *calm >= dwell);
    let long = turn.tier() == Tier::Normal && calm.is_some_and(|calm| calm >= LONG_CALM);
    let leash = leash::possible(turn, w);
    // On a leash it can do no harm. Without one it waits for the tier, and for the end of its being held off.
    let safe = calm.is_some() || (leash && calm::is_quiet(turn));
    let due = track.held.until <= turn.at() && (leash || track.held_off <= turn.at());
    let back = back(w, track);
    let first = !wish::comes_first(turn, w);
    (safe && due && first && (long || fits(turn, &memory, w, track))).then(|| (id.clone(), back))
}

fn apart(turn: &Turn<'_>) -> bool {
    turn.state.restored.is_none_or(|last| turn.at().since(last) >= APART)
}

/// What comes back from swap.
fn back(workload: &Workload, track: &Track) -> Bytes {
    workload.swap.unwrap_or(track.swap)
}

/// Whether what comes back from swap, and its growth, stays below what constrained may be left at.
fn fits(turn: &Turn<'_>, memory: &Memory, workload: &Workload, track: &Track) -> bool {
    let growth = if leash::possible(turn, workload) {
        leash::slack(turn, memory)
    } else {
        per(positive(track.held.growth), REGROWTH)
    };
    let limit = memory.total.share(turn.config.host.constrained.leave);
    memory.used() + back(workload, track) + growth <= limit
}

/// A freeze of one that is probed ends in time whatever the reason for it, and whoever else is let go then: its probes would have it
/// killed. Where there is no room for it, it comes back on a leash that gives it nothing.
fn end_spells(turn: &mut Turn<'_>) {
    let due = turn.held(|r| r == Rung::Freeze).filter(|(.., t)| spell::is_due(t, turn.at()));
    let due: Vec<WorkloadId> = due.map(|(id, ..)| id.clone()).collect();
    for id in due {
        let Some((workload, track)) = turn.sample.workloads.get(&id).zip(turn.state.workloads.get(&id))
        else {
            continue;
        };
        let fits = turn.memory().is_none_or(|m| fits(turn, &m, workload, track));
        let held = fits || turn.tier() < Tier::Critical || leash::possible(turn, workload);
        if held || !kill::is_next(turn, &id) {
            let back = if fits { back(workload, track) } else { Bytes::ZERO };
            let most = workload.spec.freeze_max.unwrap_or_default();
            let evidence = turn.because([Evidence::Probed { most }]);
            let_go(turn, &id, back, evidence);
        } else {
            kill_at_last(turn, &id);
        }
    }
}

/// The next rung where a freeze has to end and there is no room for what it held.
fn kill_at_last(turn: &mut Turn<'_>, id: &WorkloadId) {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return;
    };
    let expected = turn.candidate(workload, track, Bytes::ZERO).map_or(Bytes::ZERO, |c| c.holding.killable);
    let evidence = turn.because([Evidence::Yield { expected }]);
    turn.put(id, Rung::Kill, evidence);
}

/// No freeze outlasts its maximum without a good reason.
fn end_long_freezes(turn: &mut Turn<'_>) {
    if !apart(turn) {
        return;
    }
    for id in turn.on(|r| r == Rung::Freeze) {
        let Some((workload, track)) = turn.sample.workloads.get(&id).zip(turn.state.workloads.get(&id))
        else {
            continue;
        };
        let lasted = turn.at().since(track.held.since);
        if lasted < turn.config.ladder.freeze_max {
            continue;
        }
        let fits = turn.memory().is_none_or(|m| fits(turn, &m, workload, track));
        if fits || turn.tier() < Tier::Critical {
            // Where it does not fit, nothing comes back that would have to go again at once.
            let back = if fits { back(workload, track) } else { Bytes::ZERO };
            let evidence = turn.because([]);
            let_go(turn, &id, back, evidence);
            return;
        } else if kill::is_next(turn, &id) {
            kill_at_last(turn, &id);
        }
    }
}
