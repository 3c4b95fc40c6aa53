//! The host is short: who is asked to unload.
//!
//! An unload costs a workload its service for a while, so it is for the brake target, as a freeze is, and asked for so early that the
//! answer is in time, and no earlier. Growth that a brake on somebody lower would stop is no reason for it, nor is a machine that is
//! full and stands still because somebody lower is braked: then nobody who matters more needs the memory.

use std::cmp::Reverse;

use super::prospect::{Promise, Why, promise, why_not};
use super::{PATIENCE, begin, is_ahead};
use crate::assess::{Memory, time_for};
use crate::concession::Level;
use crate::decide::ladder::spent;
use crate::decide::{Turn, calm};
use crate::plan::{Evidence, Tier};
use crate::relief::{BRAKE_AHEAD, CRUMBS, Candidate, HORIZON, SLOW};
use crate::roles::{self, Rank};
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// A machine that is critically full for this long is short, whatever moves there.
const FULL_FOR: Span = Span::secs(10);
/// What takes longer than the forecast of critical is asked for this long before it would be too late.
const SPARE: Span = Span::millis(1500);

/// What the walk over those who yield has found so far.
struct Walk {
    memory: Memory,
    /// Growth that nobody passed so far could be stopped from.
    growth: Bytes,
    /// The part of it that brakes on those who are still to come would stop.
    above: Bytes,
    /// What those passed so far give by other means.
    given: Bytes,
    /// Those of them who could be trimmed and are free.
    spared: Vec<(WorkloadId, Rank)>,
}

pub(crate) fn ask(turn: &mut Turn<'_>) {
    let Some(memory) = turn.memory().filter(|_| turn.tier() >= Tier::Constrained) else { return };
    if !turn.volunteers().any(|(_, w, t)| leaves_host(turn, w, t).is_some()) {
        return;
    }
    let promised = turn.promised(PATIENCE) + turn.pending(HORIZON);
    let growth = memory.decline.saturating_sub(turn.just_stopped());
    let order = order(turn);
    let above = order.iter().map(|id| stoppable(turn, &memory, id)).sum();
    let mut walk = Walk { memory, growth, above, given: promised, spared: Vec::new() };
    for id in order {
        if let Some(asked) = step(turn, &mut walk, &id) {
            carry_out(turn, &mut walk, &id, asked);
        }
    }
}

/// Those who yield, the lowest first; of equals the one whose unload gives most, then the one that is back soonest.
fn order(turn: &Turn<'_>) -> Vec<WorkloadId> {
    let eligible = turn.tracked().filter(|(_, w, _)| roles::is_eligible(turn.config, w));
    let mut all: Vec<_> = eligible
        .map(|(id, w, t)| {
            let gives = leaves_host(turn, w, t).map(|(_, promise)| promise.gains.host_bytes());
            (roles::rank(&w.spec), Reverse(gives), w.spec.restart_cost_ms, id)
        })
        .collect();
    all.sort();
    all.into_iter().map(|(.., id)| id.clone()).collect()
}

/// The gentlest level at which it gives host memory back for good.
fn leaves_host(turn: &Turn<'_>, workload: &Workload, track: &Track) -> Option<(Level, Promise)> {
    workload.offer.as_ref()?;
    [Level::Offload, Level::Unload].into_iter().find_map(|level| {
        let able = why_not(turn, workload, track, level).is_none();
        let promise = able.then(|| promise(turn, workload, track, level))?;
        (promise.gains.host_bytes() >= CRUMBS).then_some((level, promise))
    })
}

/// Looks at one of them; says what it is to be asked, if anything.
fn step(turn: &Turn<'_>, walk: &mut Walk, id: &WorkloadId) -> Option<(Level, Promise, Bytes)> {
    let (workload, track) = (turn.sample.workloads.get(id)?, turn.state.workloads.get(id)?);
    let candidate = turn.candidate(workload, track, walk.memory.swap_free)?;
    let leaves = leaves_host(turn, workload, track);
    // Who can still be asked is not frozen first: only a throttle that may help spares it the question.
    let throttled = can_be_throttled(turn, workload, track);
    let stopped =
        if leaves.is_some() && !throttled { Bytes::ZERO } else { stoppable(turn, &walk.memory, id) };
    (walk.growth, walk.above) = (walk.growth.saturating_sub(stopped), walk.above.saturating_sub(stopped));
    if track.voluntary.as_ref().is_some_and(|it| it.leaves()) {
        return None;
    }
    let gentle = by_brakes(turn, workload, &candidate, &[Rung::Trim, Rung::Throttle]);
    let Some((level, promise)) = leaves else {
        spare(turn, walk, id, workload, &candidate);
        walk.given =
            walk.given + by_brakes(turn, workload, &candidate, &[Rung::Trim, Rung::Throttle, Rung::Freeze]);
        return None;
    };
    let needed = needed(turn, walk, promise.takes);
    let wanted = needed >= CRUMBS && gentle < needed && due(turn, walk, workload, track, promise.takes);
    if !wanted {
        spare(turn, walk, id, workload, &candidate);
        walk.given = walk.given + gentle;
        return None;
    }
    Some((level, promise, needed))
}

/// Bytes above what constrained may be left at by the time that it would have answered.
fn needed(turn: &Turn<'_>, walk: &Walk, takes: Span) -> Bytes {
    let ahead = takes.saturating_add(BRAKE_AHEAD);
    let limit = turn.config.host.constrained.leave;
    walk.memory.above(limit, walk.growth, ahead).saturating_sub(walk.given)
}

/// Whether it is time: somebody needs the memory, and the answer would come before it has run out, but not much before.
fn due(turn: &Turn<'_>, walk: &Walk, workload: &Workload, track: &Track, takes: Span) -> bool {
    let critical = turn.config.host.critical.forecast.unwrap_or_default();
    let left = time_for(walk.memory.headroom, walk.growth);
    let in_time = left.is_none_or(|left| takes.saturating_add(BRAKE_AHEAD) <= left);
    let last_moment = takes.saturating_add(BRAKE_AHEAD) > critical
        && left.is_some_and(|left| left <= takes.saturating_add(SPARE));
    // Before one who matters more is braked, it is the turn of those who matter less.
    let frozen_else = !can_be_throttled(turn, workload, track) && turn.may_freeze(workload, track);
    let called_for = turn.tier() >= Tier::Critical || last_moment || walk.above >= SLOW || frozen_else;
    in_time && called_for && contested(turn, walk, workload)
}

/// Whether anybody who matters as much needs more of it.
fn contested(turn: &Turn<'_>, walk: &Walk, workload: &Workload) -> bool {
    let rank = roles::rank(&workload.spec);
    let full = turn.state.tier.critically_full().is_some_and(|since| turn.at().since(since) >= FULL_FOR);
    let braked = |test: fn(&Rank, &Rank) -> bool| {
        let mut braked = turn.held(|r| matches!(r, Rung::Throttle | Rung::Freeze));
        braked.any(|(_, w, t)| t.held.leash.is_none() && test(&roles::rank(&w.spec), &rank))
    };
    walk.growth >= SLOW
        || calm::suffers(turn)
        || turn.tier() == Tier::Emergency
        || braked(|other, this| other > this)
        || (full && !braked(|other, this| other < this))
}

/// The growth of a workload that a brake on it would stop.
fn stoppable(turn: &Turn<'_>, memory: &Memory, id: &WorkloadId) -> Bytes {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return Bytes::ZERO;
    };
    let candidate = turn.candidate(workload, track, memory.swap_free);
    let candidate = candidate.filter(|_| brakeable(turn, workload, track));
    candidate.map_or(Bytes::ZERO, |it| it.brakeable())
}

/// Whether a brake could stop its growth.
fn brakeable(turn: &Turn<'_>, workload: &Workload, track: &Track) -> bool {
    (can_be_throttled(turn, workload, track) || turn.may_freeze(workload, track))
        && spent(turn, track, Rung::Freeze).is_none()
}

/// Whether a throttle may be tried on it: the last one did not turn out to be futile.
fn can_be_throttled(turn: &Turn<'_>, workload: &Workload, track: &Track) -> bool {
    roles::allows(turn.config, workload, Rung::Throttle) && !is_ahead(track.no_throttle, turn.at())
}

fn by_brakes(turn: &Turn<'_>, workload: &Workload, candidate: &Candidate<'_>, rungs: &[Rung]) -> Bytes {
    let allowed = rungs.iter().filter(|rung| roles::allows(turn.config, workload, **rung));
    let bytes = allowed.map(|rung| candidate.relief(*rung, HORIZON, &turn.config.ladder).bytes);
    bytes.max().unwrap_or_default()
}

/// Notes one that would give by being trimmed, and is not.
fn spare(turn: &Turn<'_>, walk: &mut Walk, id: &WorkloadId, workload: &Workload, candidate: &Candidate<'_>) {
    let gives = by_brakes(turn, workload, candidate, &[Rung::Trim]) >= CRUMBS;
    if candidate.track.rung() == Rung::Free && gives {
        walk.spared.push((id.clone(), roles::rank(&workload.spec)));
    }
}

/// Asks, after those below have been put to give what they can.
fn carry_out(turn: &mut Turn<'_>, walk: &mut Walk, id: &WorkloadId, asked: (Level, Promise, Bytes)) {
    let (level, promise, needed) = asked;
    let Some(rank) = turn.sample.workloads.get(id).map(|w| roles::rank(&w.spec)) else { return };
    let tier = turn.tier();
    for (below, _) in walk.spared.extract_if(.., |(_, below)| *below < rank) {
        let evidence = turn.because([Evidence::Tier { tier, deficit: needed }]);
        turn.put(&below, Rung::Trim, evidence);
    }
    let gives = promise.gains.host_bytes();
    walk.given = walk.given + gives;
    let evidence = turn.reasons(Why::Host, tier, needed, level, gives);
    let taken = turn.weighed(id, level, &promise, needed);
    begin(turn, id, level, Vec::new(), promise, evidence);
    turn.explained(id, taken);
}
