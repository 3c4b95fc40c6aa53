//! What came of asking: answers are measured and learned from, silence and failure are waited out, and what a request has undone
//! is noticed.

use super::begin::overdue;
use crate::concession::{Concession, Gains, Level};
use crate::decide::Turn;
use crate::holding::Holding;
use crate::learned::{Learned, Pool};
use crate::plan::{ActResult, Evidence};
use crate::relief::CRUMBS;
use crate::roles;
use crate::sample::{Workload, WorkloadId};
use crate::units::{Bytes, Monotonic, Share, Span};
use crate::voluntary::{Had, Pause, Pending, Voluntary};

/// A gentle level is asked for again after this long at the earliest: what it frees has to grow first.
const GENTLE: Span = Span::secs(10);
/// After a failure, and after an offload or unload that brought next to nothing.
const FAILED: Span = Span::secs(30);
/// After a restore that failed: 60 s, 120 s, and so on.
const UNRESTORED: Span = Span::secs(60);
/// Less of what was expected counts as nothing.
const FRUITLESS: Share = Share::percent(10);
/// An offer is asked for every few seconds: what it says of the level may be as old as this.
const STALE_OFFER: Span = Span::secs(10);
/// A model that is undone again and again within this time is held off.
const CYCLES_WITHIN: Span = Span::secs(600);
/// So often.
const CYCLES: usize = 3;

pub(crate) fn settle(turn: &mut Turn<'_>) {
    for concession in &turn.sample.conceded {
        answered(turn, concession);
    }
    let ids: Vec<WorkloadId> = turn.volunteers().map(|(id, ..)| id.clone()).collect();
    for id in ids {
        if turn.sample.workloads.get(&id).is_some_and(|w| w.populated == Some(false)) {
            // Nobody is left who could be asked for anything, or get anything back.
            turn.state.workloads.get_mut(&id).into_iter().for_each(|track| track.voluntary = None);
            continue;
        }
        expire(turn, &id);
        notice(turn, &id);
    }
}

/// Takes an answer to a wish that is still waited for; others are of wishes that were overtaken or given up.
fn answered(turn: &mut Turn<'_>, concession: &Concession) {
    let Concession { workload: id, number, level, by, result, took, freed, claimed, .. } = concession;
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    let Some(voluntary) = track.voluntary.as_deref_mut() else { return };
    let Some((wish, pending)) = voluntary.asking().filter(|(wish, _)| wish.number == *number) else { return };
    let (expected, pending) = (wish.expected.clone(), pending.clone());
    let done = *result == ActResult::Done;
    // Of one that could not even be asked it is not known what it would have given.
    if (done || *result == ActResult::Partial || !freed.is_nothing()) && *level > Level::Nothing {
        learn(&mut track.learned, *level, &pending, freed, *took, turn.sample.at);
    }
    let evidence = vec![Evidence::Conceded {
        level: *level,
        by: by.clone(),
        result: result.clone(),
        freed: freed.clone(),
        claimed: claimed.clone(),
        took: *took,
    }];
    let good = is_worth(freed, &expected);
    close(turn, id, End { gave: freed.clone(), done, good, evidence });
}

/// How an asking ended.
struct End {
    /// What the meters show, whatever was said.
    gave: Gains,
    done: bool,
    /// Whether that was worth it.
    good: bool,
    evidence: Vec<Evidence>,
}

/// On whichever resource most was expected.
fn is_worth(freed: &Gains, expected: &Gains) -> bool {
    let host = expected.host_bytes() > Bytes::ZERO && freed.host_bytes() >= floor(expected.host_bytes());
    let gpu = |(id, bytes): (&_, &Bytes)| {
        *bytes > Bytes::ZERO && freed.gpus.get(id).copied().unwrap_or_default() >= floor(*bytes)
    };
    host || expected.gpus.iter().any(gpu) || (expected.is_nothing() && !freed.is_nothing())
}

fn floor(expected: Bytes) -> Bytes {
    expected.share(FRUITLESS).max(CRUMBS)
}

fn learn(learned: &mut Learned, level: Level, pending: &Pending, freed: &Gains, took: Span, at: Monotonic) {
    if freed.host >= 0 && pending.had.own > Bytes::ZERO {
        learned.granted(level, Pool::Host, freed.host_bytes(), pending.had.own, took, at);
    }
    let (mut had, mut gave) = (Bytes::ZERO, Bytes::ZERO);
    for (gpu, bytes) in &pending.had.gpus {
        had = had + *bytes;
        gave = gave + freed.gpus.get(gpu).copied().unwrap_or_default();
    }
    learned.granted(level, Pool::Gpu, gave, had, took, at);
}

/// Ends an asking: a gentle one is over, an offload or unload is in force, a restore has undone it; or else it waits.
fn close(turn: &mut Turn<'_>, id: &WorkloadId, end: End) {
    let at = turn.at();
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    let own = Holding::of(workload, Bytes::ZERO, &turn.config.ladder).map_or(Bytes::ZERO, |h| h.killable);
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    // Who was frozen meanwhile could not answer: that is nothing to hold against it.
    let excused = !end.done && super::prospect::is_frozen(workload, track);
    let Some(voluntary) = track.voluntary.as_deref_mut() else { return };
    let Some(level) = voluntary.wish.as_ref().map(|wish| wish.level) else { return };
    voluntary.pending = None;
    match level {
        Level::Nothing if end.done => restored(voluntary, at),
        // One that never gave anything was most likely never gone.
        Level::Nothing if voluntary.gave == Gains::default() => restored(voluntary, at),
        Level::Nothing => pause(voluntary, level, UNRESTORED, at),
        Level::Gc | Level::Aggressive => {
            rest(voluntary, level, if end.done || end.good { GENTLE } else { FAILED }, end.good, at);
            voluntary.wish = None;
        }
        Level::Offload | Level::Unload => {
            match end.good {
                true => drop(voluntary.pauses.remove(&level)),
                false if excused => {}
                false => pause(voluntary, level, FAILED, at),
            }
            // Even one that failed may be half way there: it is to be undone like the others.
            voluntary.level = level;
            voluntary.gave = voluntary.gave.and(&end.gave);
            (voluntary.left, voluntary.since) = (Had::of(workload, own), at);
        }
    }
    let over = voluntary.wish.is_none();
    if over || level >= Level::Offload {
        voluntary.evidence = end.evidence;
    } else {
        voluntary.evidence.extend(end.evidence);
    }
    if over {
        turn.state.action = turn.state.action.saturating_add(1);
        voluntary.action = turn.state.action;
    }
}

/// A rest after every asking for a gentle level, and a longer one each time that it brought nothing.
fn rest(voluntary: &mut Voluntary, level: Level, base: Span, good: bool, at: Monotonic) {
    let before = voluntary.pauses.get(&level).copied().unwrap_or_default();
    let next = if good { Pause { times: 0, until: at + base } } else { before.longer(base, at) };
    voluntary.pauses.insert(level, next);
    // What includes it has left it nothing to free.
    for gentler in [Level::Gc, Level::Aggressive].into_iter().filter(|it| *it < level) {
        let pause = voluntary.pauses.entry(gentler).or_default();
        pause.until = pause.until.max(at + base);
    }
}

fn pause(voluntary: &mut Voluntary, level: Level, base: Span, at: Monotonic) {
    let pause = voluntary.pauses.get(&level).copied().unwrap_or_default().longer(base, at);
    voluntary.pauses.insert(level, pause);
}

/// It has what it gave again: what is kept is how often, and what is not worth another try.
fn restored(voluntary: &mut Voluntary, at: Monotonic) {
    voluntary.wish = None;
    voluntary.pending = None;
    voluntary.level = Level::Nothing;
    voluntary.gave = Gains::default();
    voluntary.left = Had::default();
    voluntary.since = at;
    voluntary.pauses.remove(&Level::Nothing);
}

/// Nobody waits for ever.
fn expire(turn: &mut Turn<'_>, id: &WorkloadId) {
    let voluntary = turn.state.workloads.get(id).and_then(|track| track.voluntary.as_deref());
    let Some((wish, pending)) = voluntary.and_then(Voluntary::asking) else { return };
    if turn.at() >= overdue(pending.at, wish.deadline) {
        let evidence = vec![Evidence::Unanswered { level: wish.level, within: wish.deadline }];
        close(turn, id, End { gave: Gains::default(), done: false, good: false, evidence });
    }
}

/// A request has loaded again what we had unloaded, or brought back what we had offloaded.
fn notice(turn: &mut Turn<'_>, id: &WorkloadId) {
    let (at, hold_off) = (turn.at(), turn.config.ladder.hold_off);
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    let Some(voluntary) = track.voluntary.as_deref_mut() else { return };
    if !voluntary.lasts() || voluntary.pending.is_some() || !is_undone(voluntary, workload, at) {
        return;
    }
    voluntary.reloads.retain(|&then| then <= at && at.since(then) < CYCLES_WITHIN);
    voluntary.reloads.push(at);
    let first = voluntary.reloads.first().copied().unwrap_or(at);
    let times = voluntary.reloads.len();
    let until = (times >= CYCLES).then_some(at + hold_off);
    if let Some(until) = until {
        voluntary.held_off = until;
        voluntary.reloads.clear();
    }
    restored(voluntary, at);
    let times = u32::try_from(times).unwrap_or(u32::MAX);
    voluntary.evidence = vec![Evidence::Reloaded { times, within: at.since(first), until }];
    turn.state.action = turn.state.action.saturating_add(1);
    voluntary.action = turn.state.action;
}

/// By the meters, or by its own word where that is newer than the answer.
fn is_undone(voluntary: &Voluntary, workload: &Workload, at: Monotonic) -> bool {
    let says = workload.offer.as_ref().and_then(|offer| offer.level);
    let fresh = at.since(voluntary.since) >= STALE_OFFER;
    voluntary.is_back(workload) || (fresh && says.is_some_and(|level| level < Level::Offload))
}

/// Nobody is waited for who may not be touched any more.
pub(super) fn forget_gentle(turn: &mut Turn<'_>, id: &WorkloadId) {
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    let Some(voluntary) = track.voluntary.as_deref_mut() else { return };
    let Some(level) = voluntary.wish.as_ref().map(|wish| wish.level) else { return };
    let may = workload.spec.preference != crate::sample::Preference::Omit
        && (level == Level::Gc || !roles::is_protected(turn.config, workload))
        && roles::allows(turn.config, workload, level.rung())
        && workload.populated != Some(false);
    if matches!(level, Level::Gc | Level::Aggressive) && !may {
        (voluntary.wish, voluntary.pending) = (None, None);
    }
}
