//! The way back: under calm, one workload at a time, the one that matters most first, each only if all that it gave fits again.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::prospect::{Promise, is_frozen};
use super::{begin, is_ahead, settle};
use crate::concession::Level;
use crate::decide::{Turn, calm};
use crate::gpu::GpuId;
use crate::plan::{Evidence, Tier};
use crate::roles;
use crate::sample::{Preference, Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};
use crate::voluntary::{Had, Voluntary};

/// After this much calm a model may fill more than it would be given otherwise: it was there before.
const LONG_CALM: Span = Span::secs(60);
/// Left free on a GPU, as a part of it: contexts and fragments.
const GPU_SLACK: u64 = 64;

/// Before the controller leaves, everybody who was asked is asked to take back what he gave.
pub(crate) fn release(turn: &mut Turn<'_>) {
    for id in those(turn, |_, _, voluntary| voluntary.wish.is_some() || voluntary.lasts()) {
        undo(turn, &id);
    }
}

/// Undoes what was asked of those who may not be asked (any more): the configuration may have changed.
pub(crate) fn undo_ineligible(turn: &mut Turn<'_>) {
    let asked = those(turn, |_, _, voluntary| voluntary.wish.is_some());
    for id in asked {
        settle::forget_gentle(turn, &id);
    }
    let out = those(turn, |turn, workload, voluntary| {
        let level = voluntary.wish.as_ref().map_or(voluntary.level, |wish| wish.level.max(voluntary.level));
        let restoring = voluntary.wish.as_ref().is_some_and(|wish| wish.level == Level::Nothing);
        let may = workload.spec.preference != Preference::Omit
            && !roles::is_protected(turn.config, workload)
            && roles::allows(turn.config, workload, level.rung());
        level >= Level::Offload && !restoring && !may && workload.populated != Some(false)
    });
    for id in out {
        undo(turn, &id);
    }
}

fn those(turn: &Turn<'_>, test: impl Fn(&Turn<'_>, &Workload, &Voluntary) -> bool) -> Vec<WorkloadId> {
    let found =
        turn.volunteers().filter(|(_, w, t)| t.voluntary.as_ref().is_some_and(|it| test(turn, w, it)));
    found.map(|(id, ..)| id.clone()).collect()
}

fn undo(turn: &mut Turn<'_>, id: &WorkloadId) {
    let mut evidence = calm::evidence(turn);
    evidence.push(Evidence::Asked { level: Level::Nothing });
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get_mut(id)) else {
        return;
    };
    let voluntary = track.volunteer();
    // What had been asked and was not answered yet may be done by the time that this is.
    let asked = voluntary.wish.as_ref().map_or(Level::Nothing, |wish| wish.level);
    voluntary.level = voluntary.level.max(asked);
    let promise = Promise {
        gains: voluntary.gave.reversed(),
        had: Had::of(workload, Bytes::ZERO),
        ..Promise::default()
    };
    begin(turn, id, Level::Nothing, Vec::new(), promise, evidence);
}

pub(super) fn review(turn: &mut Turn<'_>) {
    if turn.volunteers().any(|(_, _, t)| is_being_restored(t)) {
        return;
    }
    if let Some(id) = next(turn) {
        turn.state.restored = Some(turn.at());
        undo(turn, &id);
    }
}

fn is_being_restored(track: &Track) -> bool {
    let asking = track.voluntary.as_ref().and_then(|it| it.asking());
    asking.is_some_and(|(wish, _)| wish.level == Level::Nothing)
}

/// Whose turn it is. One that has to wait for a resource keeps those who matter less from it.
fn next(turn: &Turn<'_>) -> Option<WorkloadId> {
    calm::lasts(turn).filter(|calm| *calm >= turn.config.host.dwell_down)?;
    let waits = turn.volunteers().filter(|(_, w, t)| waits(turn, w, t));
    let mut waiting: Vec<_> = waits.map(|(id, w, t)| (Reverse(roles::rank(&w.spec)), id, w, t)).collect();
    waiting.sort_by_key(|(rank, id, ..)| (*rank, *id));
    let mut taken: BTreeSet<Option<&GpuId>> = BTreeSet::new();
    for (_, id, workload, track) in waiting {
        let Some(voluntary) = track.voluntary.as_deref() else { continue };
        let needs = needs(voluntary);
        let free = needs.is_disjoint(&taken);
        let due = !is_ahead(voluntary.until, turn.at()) && !braked_above(turn, workload);
        if free && due && fits(turn, voluntary) {
            return Some(id.clone());
        }
        taken.extend(needs);
    }
    None
}

/// Whether it is to be restored, and can be asked.
fn waits(turn: &Turn<'_>, workload: &Workload, track: &Track) -> bool {
    let Some(voluntary) = track.voluntary.as_deref() else { return false };
    let paused = voluntary.pauses.get(&Level::Nothing).is_some_and(|pause| is_ahead(pause.until, turn.at()));
    voluntary.lasts()
        && voluntary.pending.is_none()
        && !paused
        && workload.offer.is_some()
        && workload.populated != Some(false)
        && !is_frozen(workload, track)
}

/// Whether one of its kind waits that matters more than this one and needs the host's memory: a brake is let off after that.
pub(crate) fn comes_first(turn: &Turn<'_>, workload: &Workload) -> bool {
    let rank = roles::rank(&workload.spec);
    turn.volunteers().any(|(_, w, t)| {
        let host = t.voluntary.as_ref().is_some_and(|it| it.gave.host > 0 && !is_ahead(it.until, turn.at()));
        host && roles::rank(&w.spec) > rank && (waits(turn, w, t) || is_being_restored(t))
    })
}

/// Whether one that matters more is braked: that goes first.
fn braked_above(turn: &Turn<'_>, workload: &Workload) -> bool {
    let rank = roles::rank(&workload.spec);
    let mut braked = turn.held(|rung| matches!(rung, Rung::Throttle | Rung::Freeze));
    braked.any(|(_, w, t)| t.held.leash.is_none() && roles::rank(&w.spec) > rank)
}

/// What it takes back: the host's memory (`None`) and that of GPUs.
fn needs(voluntary: &Voluntary) -> BTreeSet<Option<&GpuId>> {
    let host = (voluntary.gave.host > 0).then_some(None);
    host.into_iter().chain(on_gpus(voluntary).map(|(gpu, _)| Some(gpu))).collect()
}

/// What it takes back on GPUs; one that gave nothing where it was asked to waits for calm there all the same.
fn on_gpus(voluntary: &Voluntary) -> impl Iterator<Item = (&GpuId, Bytes)> {
    let gave = &voluntary.gave.gpus;
    let asked = voluntary.wish.iter().flat_map(|wish| &wish.gpus).filter(|gpu| !gave.contains_key(*gpu));
    gave.iter().map(|(gpu, bytes)| (gpu, *bytes)).chain(asked.map(|gpu| (gpu, Bytes::ZERO)))
}

fn fits(turn: &Turn<'_>, voluntary: &Voluntary) -> bool {
    let Some(memory) = turn.memory() else { return false };
    let host = &turn.config.host;
    let long = turn.tier() == Tier::Normal && calm::lasts(turn).is_some_and(|calm| calm >= LONG_CALM);
    let limit = if long { host.critical.leave } else { host.constrained.leave };
    let on_host = memory.used() + voluntary.gave.host_bytes() <= memory.total.share(limit);
    let on_gpu = |(id, bytes): (&GpuId, Bytes)| {
        // One that is gone, or can't be read, has no room.
        let Some(seen) = turn.assessed.report.gpus.get(id) else { return false };
        let total = turn.sample.gpus.get(id).and_then(|gpu| gpu.total).unwrap_or_default();
        let wanted = bytes + Bytes(total.0 / GPU_SLACK);
        seen.tier <= Tier::Elevated && seen.headroom.is_some_and(|headroom| headroom >= wanted)
    };
    on_host && on_gpus(voluntary).all(on_gpu)
}
